#include "ublkd/daemon/membership_story.h"

#include <gtest/gtest.h>

namespace ublkd::daemon {
namespace {

using replication::Member;
using replication::Membership;

const Member kOne{ReplicaId(1), HostId(1), PoolId(1)};
const Member kTwo{ReplicaId(2), HostId(1), PoolId(2)};
const Member kThree{ReplicaId(3), HostId(1), PoolId(3)};

Membership record(std::uint64_t number, std::vector<Member> members) {
    Membership made;
    made.volume = VolumeId(1);
    made.number = number;
    made.primary = members.front().replica;
    made.members = std::move(members);
    return made;
}

TEST(MembershipStory, WhoLeftIsToldWithTheCause) {
    EXPECT_EQ(what_changed(record(1, {kOne, kTwo}), record(2, {kOne}),
                           {{kTwo.replica, "write data: io"}}),
              "number 2: rep-00000000000000002 in pool-00000000000000002 left (write data: io); 1 "
              "member, primary rep-00000000000000001");
    EXPECT_EQ(what_changed(record(1, {kOne, kTwo}), record(2, {kTwo}), {}),
              "number 2: rep-00000000000000001 in pool-00000000000000001 left, another primary; 1 "
              "member, primary rep-00000000000000002");
}

TEST(MembershipStory, WhoJoinedIsTold) {
    EXPECT_EQ(
        what_changed(record(2, {kOne}), record(3, {kOne, kThree}), {}),
        "number 3: rep-00000000000000003 in pool-00000000000000003 joined; 2 members, primary "
        "rep-00000000000000001");
}

TEST(MembershipStory, LossAndWhatChangesNothingAreTold) {
    Membership lost = record(3, {kOne, kTwo});
    ++lost.loss_count;
    EXPECT_EQ(what_changed(record(2, {kOne, kTwo}), lost, {}),
              "number 3: all restarted, what was not flushed may be lost; 2 members, primary "
              "rep-00000000000000001");
    EXPECT_EQ(what_changed(record(2, {kOne, kTwo}), record(3, {kOne, kTwo}), {}),
              "number 3: the same members; 2 members, primary rep-00000000000000001");
    EXPECT_EQ(what_changed(std::nullopt, record(3, {kOne}), {}),
              "number 3; 1 member, primary rep-00000000000000001");
}

}  // namespace
}  // namespace ublkd::daemon
