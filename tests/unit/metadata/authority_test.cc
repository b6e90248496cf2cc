// The authority (replication R4) over each store, in one process; over kill -9 and with real
// processes: tests/permission.
#include "metadata/authority.h"

#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <thread>

#include "metadata/permission.h"
#include "tests/unit/metadata/hosted_volume.h"
#include "tests/unit/metadata/http_place.h"
#include "tests/unit/metadata/local_place.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

using replication::Member;
using replication::Membership;
using replication::Proposal;
using replication::Verdict;

/// A replica that exists nowhere.
Member invented() { return Member{ReplicaId::random(), HostId::random(), PoolId::random()}; }

class AuthorityTest : public ::testing::TestWithParam<MakeMetadataPlace> {
  protected:
    void SetUp() override {
        ASSERT_EQ(authority_.propose(first())->verdict, Verdict::kAuthorized);
        current_ = first().next;
    }
    void TearDown() override { faults::disarm_all(); }

    Proposal first() const {
        return {primary_.replica, 0, record(1, {primary_, secondary_}, primary_)};
    }
    Membership record(std::uint64_t number, std::vector<Member> members,
                      const Member& primary) const {
        Membership made;
        made.volume = volume_;
        made.number = number;
        made.members = std::move(members);
        made.primary = primary.replica;
        return made;
    }
    Verdict propose(const Proposal& proposal) { return authority_.propose(proposal)->verdict; }

    std::unique_ptr<MetadataPlace> place_ = GetParam()();
    std::unique_ptr<MetadataStore> store_ = *place_->open();
    Authority authority_{store_.get()};
    HostedVolume hosted_{store_.get()};
    const VolumeId volume_ = hosted_.id();
    Member primary_ = hosted_.hosted(0);
    Member secondary_ = hosted_.hosted(1);
    Membership current_;
};

INSTANTIATE_TEST_SUITE_P(Sqlite, AuthorityTest, ::testing::Values(&make_sqlite_place));
INSTANTIATE_TEST_SUITE_P(OptimisticLocal, AuthorityTest, ::testing::Values(&make_local_place));
INSTANTIATE_TEST_SUITE_P(Http, AuthorityTest, ::testing::Values(&make_http_place));

TEST_P(AuthorityTest, FirstRecordIsStoredAndReadBack) {
    EXPECT_EQ(**authority_.current(volume_), current_);
    EXPECT_EQ(*authority_.current(VolumeId::random()), std::nullopt);
}

TEST_P(AuthorityTest, NextNumberIsAuthorizedOnce) {
    const Proposal without_secondary{primary_.replica, 1, record(2, {primary_}, primary_)};
    const Proposal takeover{secondary_.replica, 1, record(2, {secondary_}, secondary_)};
    EXPECT_EQ(propose(without_secondary), Verdict::kAuthorized);
    const auto declined = *authority_.propose(takeover);
    EXPECT_EQ(declined.verdict, Verdict::kDeclined);
    EXPECT_EQ(declined.current, without_secondary.next);  // the loser learns who won
    EXPECT_EQ(propose(without_secondary), Verdict::kAlreadyYours);
}

TEST_P(AuthorityTest, LowerAndEqualNumbersAreDeclined) {
    ASSERT_EQ(propose({primary_.replica, 1, record(2, {primary_, secondary_}, primary_)}),
              Verdict::kAuthorized);
    ASSERT_EQ(propose({primary_.replica, 2, record(3, {primary_, secondary_}, secondary_)}),
              Verdict::kAuthorized);
    EXPECT_EQ(propose({secondary_.replica, 2, record(3, {secondary_}, secondary_)}),
              Verdict::kDeclined);
    EXPECT_EQ(propose({secondary_.replica, 1, record(2, {secondary_}, secondary_)}),
              Verdict::kDeclined);
    EXPECT_EQ(propose({secondary_.replica, 0, record(1, {secondary_}, secondary_)}),
              Verdict::kDeclined);
    EXPECT_EQ(propose(first()), Verdict::kDeclined);
}

TEST_P(AuthorityTest, OutsiderMayNotPropose) {
    const Member outsider = hosted_.hosted(2);
    EXPECT_EQ(propose({outsider.replica, 1, record(2, {outsider}, outsider)}), Verdict::kDeclined);
}

TEST_P(AuthorityTest, MalformedRecordIsAnErrorAndStoresNothing) {
    Proposal proposal{primary_.replica, 1, record(2, {}, primary_)};
    EXPECT_EQ(authority_.propose(proposal).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(**authority_.current(volume_), current_);
}

TEST_P(AuthorityTest, GreatestNumberOutlivesTheVolumeAndARestart) {
    ASSERT_EQ(propose({primary_.replica, 1, record(2, {primary_}, primary_)}),
              Verdict::kAuthorized);
    ASSERT_TRUE(store_->write([&](Transaction& tx) { return Authority::retire(tx, volume_); }));
    store_.reset();
    store_ = *place_->open();
    authority_ = Authority(store_.get());
    EXPECT_EQ(*authority_.current(volume_), std::nullopt);
    EXPECT_EQ((*store_->get<MembershipRecord>(volume_))->greatest_number, 2u);
    EXPECT_EQ(propose(first()), Verdict::kDeclined);
    EXPECT_EQ(propose({primary_.replica, 2, record(3, {primary_}, primary_)}), Verdict::kDeclined);
    EXPECT_TRUE(store_->write(
        [&](Transaction& tx) { return Authority::retire(tx, volume_); }));  // again: nothing
}

TEST_P(AuthorityTest, DeletedVolumeComesBackWithTheRuleOff) {
    ASSERT_TRUE(store_->write([&](Transaction& tx) { return Authority::retire(tx, volume_); }));
    const Proposal late{primary_.replica, 1, record(2, {primary_}, primary_)};
    EXPECT_EQ(propose(late), Verdict::kDeclined);
    ASSERT_TRUE(faults::arm("rule.retired_volume_declined=off"));
    EXPECT_EQ(propose(late), Verdict::kAuthorized);
}

TEST_P(AuthorityTest, VolumeDeletedBeforeItsFirstRecordNeverGetsOne) {
    const VolumeId never = VolumeId::random();
    ASSERT_TRUE(store_->write([&](Transaction& tx) { return Authority::retire(tx, never); }));
    Membership next = record(1, {primary_}, primary_);
    next.volume = never;
    EXPECT_EQ(propose({primary_.replica, 0, next}), Verdict::kDeclined);
}

TEST_P(AuthorityTest, PastHolderOfAPermissionNeverJoins) {
    PermissionService permissions(store_.get());
    const Member joining = hosted_.hosted(2);
    const Holder holder{joining.host, joining.replica};
    ASSERT_EQ(permissions.request("another", holder)->answer, PermissionAnswer::kGranted);
    ASSERT_TRUE(permissions.revoke("another", holder));
    const Proposal add{primary_.replica, 1, record(2, {primary_, secondary_, joining}, primary_)};
    const auto answer = *authority_.propose(add);
    EXPECT_EQ(answer.verdict,
              Verdict::kBarred);  // unlike a declined one, it can never arrive later
    EXPECT_EQ(answer.current, current_);
    EXPECT_EQ(propose({primary_.replica, 4, record(5, {primary_, joining}, primary_)}),
              Verdict::kDeclined);  // its base is another: nothing is said about the bar
    ASSERT_TRUE(faults::arm("rule.past_holder_never_joins=off"));
    EXPECT_EQ(propose(add), Verdict::kAuthorized);
}

TEST_P(AuthorityTest, WhoHoldsNoPlaceOfTheVolumeDoesNotJoin) {
    const HostedVolume other(store_.get());
    const Member late = hosted_.prepared();
    Member misplaced = hosted_.hosted(2);
    const auto adding = [&](const Member& member) {
        return Proposal{primary_.replica, 1, record(2, {primary_, secondary_, member}, primary_)};
    };
    EXPECT_EQ(propose(adding(invented())), Verdict::kDeclined);
    EXPECT_EQ(propose(adding(late)), Verdict::kDeclined);
    EXPECT_EQ(propose(adding(other.hosted(0))), Verdict::kDeclined);  // another volume's
    const Member right = misplaced;
    misplaced.pool = primary_.pool;
    EXPECT_EQ(propose(adding(misplaced)), Verdict::kDeclined);
    misplaced = {right.replica, primary_.host, right.pool};
    EXPECT_EQ(propose(adding(misplaced)), Verdict::kDeclined);
    // A member that is one already does not move to where it is not.
    misplaced = {secondary_.replica, secondary_.host, right.pool};
    EXPECT_EQ(propose({primary_.replica, 1, record(2, {primary_, misplaced}, primary_)}),
              Verdict::kDeclined);
    EXPECT_EQ(**authority_.current(volume_), current_);

    EXPECT_EQ(propose(adding(right)), Verdict::kAuthorized);
    const Proposal invents{primary_.replica, 2, record(3, {primary_, invented()}, primary_)};
    ASSERT_EQ(propose(invents), Verdict::kDeclined);
    ASSERT_TRUE(faults::arm("rule.members_hold_places=off"));
    EXPECT_EQ(propose(invents), Verdict::kAuthorized);
}

TEST_P(AuthorityTest, FirstRecordIsOfThoseWhoHoldThePlaces) {
    const HostedVolume other(store_.get());
    const auto first_of = [&](const Member& member) {
        Membership next = record(1, {member}, member);
        next.volume = other.id();
        return Proposal{member.replica, 0, next};
    };
    EXPECT_EQ(propose(first_of(invented())), Verdict::kDeclined);
    EXPECT_EQ(propose(first_of(other.prepared())), Verdict::kDeclined);
    EXPECT_EQ(propose(first_of(primary_)), Verdict::kDeclined);
    EXPECT_EQ(propose(first_of(other.hosted(0))), Verdict::kAuthorized);
}

TEST_P(AuthorityTest, WhoJoinsIsNotPrimaryAtOnce) {
    const Member joining = hosted_.hosted(2);
    const Proposal takes_over{primary_.replica, 1,
                              record(2, {primary_, secondary_, joining}, joining)};
    const Proposal alone{primary_.replica, 1, record(2, {joining}, joining)};
    EXPECT_EQ(propose(takes_over), Verdict::kDeclined);
    EXPECT_EQ(propose(alone), Verdict::kDeclined);
    ASSERT_TRUE(faults::arm("rule.primary_was_member=off"));
    EXPECT_EQ(propose(alone), Verdict::kAuthorized);  // nobody has the volume's content any more
}

TEST_P(AuthorityTest, ErrorBeforeTheStoreLeavesTheOldRecord) {
    ASSERT_TRUE(faults::arm("authority.before_store=fail"));
    const Proposal proposal{primary_.replica, 1, record(2, {primary_}, primary_)};
    EXPECT_EQ(authority_.propose(proposal).error().code, Errc::kIo);
    faults::disarm_all();
    EXPECT_EQ(**authority_.current(volume_), current_);
    EXPECT_EQ(propose(proposal), Verdict::kAuthorized);
}

TEST_P(AuthorityTest, LostAnswerIsRecognisedByTheSameProposalAlone) {
    ASSERT_TRUE(faults::arm("authority.after_store=fail@1"));
    const Proposal mine{primary_.replica, 1, record(2, {primary_}, primary_)};
    EXPECT_FALSE(authority_.propose(mine));
    EXPECT_EQ(propose({secondary_.replica, 1, record(2, {secondary_}, secondary_)}),
              Verdict::kDeclined);
    EXPECT_EQ(propose(mine), Verdict::kAlreadyYours);
}

TEST_P(AuthorityTest, ThreadsAtABarrierGetOneAuthorizedARound) {
    constexpr int kProposers = 4;
    for (std::uint64_t round = 1; round <= 50; ++round) {
        std::atomic<int> authorized = 0;
        std::barrier start(kProposers);
        std::vector<std::jthread> threads;
        for (int i = 0; i < kProposers; ++i) {
            threads.emplace_back([&, i] {
                Membership next =
                    record(round + 1, {primary_, secondary_}, i % 2 == 0 ? primary_ : secondary_);
                next.attachments = {AttachmentId(static_cast<std::uint64_t>(i) + 1)};
                const Proposal proposal{i % 2 == 0 ? primary_.replica : secondary_.replica, round,
                                        next};
                start.arrive_and_wait();
                if (propose(proposal) == Verdict::kAuthorized) ++authorized;
            });
        }
        threads.clear();
        ASSERT_EQ(authorized, 1) << "round " << round;
    }
}

}  // namespace
}  // namespace ublkd::metadata::test
