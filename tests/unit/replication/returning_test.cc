// R10 and R11: a replica that returns is copied by the map of what differs where that map is of
// just what it holds, and whole otherwise; one that lacks what it had said was durable is no
// member. Method: two nodes whose contents differ in a place that the map does not have, so that a
// copy by the map can be told from one of all.
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/replication/node_pair.h"

namespace ublkd::replication {
namespace {

constexpr std::uint64_t kLostBy = 3;  // the number
constexpr std::uint64_t kThrough = 7;

/// The primary has a map of the second replica, empty; the second was a member under number 1.
void returning(Joining& left) {
    left.hole = false;
    left.first.content[0] = std::byte{9};
    left.first.found.lost[0] = {ReplicaId(2), kLostBy, kThrough};
    left.second.found.record = record_of(1, 1);
    left.second.found.durable_through = kThrough;
}

bool equal(const Joining& pair) { return pair.first.content == pair.second.content; }

/// The contents are equal afterwards, and are not with the rule off.
void is_made_equal_by(const std::string& rule, void (*left)(Joining&)) {
    for (const bool on : {true, false}) {
        if (!on) {
            ASSERT_TRUE(faults::arm(rule + "=off"));
        }
        const Joining pair(left);
        faults::disarm_all();
        EXPECT_EQ(equal(pair), on) << rule;
    }
}

TEST(NodeReturning, R11_WhatTheMapHasIsCopiedAndNothingElse) {
    const Joining nothing([](Joining& left) { returning(left); });
    EXPECT_FALSE(equal(nothing));
    EXPECT_EQ(nothing.first.proposals.size(), 1U);
    EXPECT_EQ(nothing.first.node.join_done_bytes(), 0U);
    const Joining one([](Joining& left) {
        returning(left);
        left.first.units = {0};
    });
    EXPECT_TRUE(equal(one));
    EXPECT_EQ(one.first.node.join_done_bytes(), Fake::kBytes);
    ASSERT_EQ(one.first.proposals.size(), 1U);
    EXPECT_TRUE(one.first.proposals[0].next.has(ReplicaId(2)));
}

TEST(NodeReturning, R12_WhatWasUnderWayThereIsCopiedToo) {
    is_made_equal_by("rule.joining_activity", [](Joining& left) {
        returning(left);
        left.second.active = {0};
    });
}

/// It was sent to nobody, and the map has it when the disk does it: after the plan was made.
TEST(NodeReturning, R12_WhatIsUnderWayHereIsCopiedToo) {
    is_made_equal_by("rule.open_writes_copied", [](Joining& left) {
        returning(left);
        left.first.content[0] = std::byte{};
        left.writes_before = true;
    });
}

/// The replica that joins is needed from the end of its copy on: a round of confirmations that is
/// under way then asks it too, or it would never end while the authority is away.
TEST(NodeReturning, R2_RoundUnderWayAsksWhoIsNeededFromNowOn) {
    Pair pair;
    Fake third(3);
    third.node.start(third.found);
    std::vector<Message> held;
    const auto exchange = [&] {
        for (bool more = true; more;) {
            more = false;
            for (Fake* const from : {&pair.first, &pair.second, &third}) {
                from->complete();
                for (const std::uint64_t token : std::exchange(from->extents, {})) {
                    from->node.on_extent(token, block::Extent{.length_bytes = 64 * kKiB});
                    more = true;
                }
                for (const Message& message : std::exchange(from->sent, {})) {
                    if (message.type == MessageType::kConfirmed && message.from == ReplicaId(2)) {
                        held.push_back(message);
                        continue;
                    }
                    more = true;
                    if (!message.to) {
                        pair.to_client.push_back(message);
                    } else {
                        Fake& to = message.to == ReplicaId(1)   ? pair.first
                                   : message.to == ReplicaId(2) ? pair.second
                                                                : third;
                        to.node.on_message(message);
                    }
                }
            }
        }
    };
    Message health;  // a round without a range
    health.type = MessageType::kHealth;
    health.volume = VolumeId(1);
    health.from = ReplicaId(2);
    health.to = ReplicaId(1);
    health.number = 1;
    pair.first.node.on_message(health);
    exchange();
    ASSERT_EQ(held.size(), 1U);
    ASSERT_TRUE(pair.first.node.add({ReplicaId(3), HostId(1), PoolId(3)}));
    exchange();
    ASSERT_EQ(pair.first.proposals.size(), 1U);  // it is copied; the authority does not answer
    pair.first.node.on_message(held[0]);
    exchange();
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    exchange();
    ASSERT_EQ(held.size(), 2U);
    pair.first.node.on_message(held[1]);
    exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_FALSE(pair.to_client[0].failed);
}

/// It was a member once more since that loss: the map is of another time.
TEST(NodeReturning, R11_MapOfAnEarlierLossDoesNotFit) {
    is_made_equal_by("rule.map_is_bound", [](Joining& left) {
        returning(left);
        left.first.found.lost[0].number = 1;
    });
}

TEST(NodeReturning, R11_ReplicaThatWasNeverAMemberIsCopiedWhole) {
    const Joining pair([](Joining& left) {
        returning(left);
        left.second.found.record.reset();
    });
    EXPECT_TRUE(equal(pair));
}

TEST(NodeReturning, R10_OlderImageIsCopiedWhole) {
    is_made_equal_by("rule.older_image", [](Joining& left) {
        returning(left);
        left.second.found.durable_through = kThrough - 1;
    });
}

/// Bits were cleared for what the member had marked as durable; its superblock knows nothing of it.
TEST(NodeReturning, R10_MemberThatIsAnOlderImageIsLost) {
    for (const bool rule : {true, false}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.older_image=off"));
        }
        Pair pair([](Pair& left) {
            left.first.found.durable_through = left.first.found.cleared_through = 4;
            left.second.found.durable_through = 3;
        });
        pair.exchange();
        faults::disarm_all();
        ASSERT_EQ(pair.first.proposals.size(), rule ? 1U : 0U);
        if (rule) {
            EXPECT_FALSE(pair.first.proposals[0].next.has(ReplicaId(2)));
        }
        EXPECT_EQ(pair.first.node.role(), rule ? Role::kPreparing : Role::kServing);
    }
}

TEST(NodeReturning, R10_PrimaryThatIsAnOlderImageHandsOver) {
    for (const bool rule : {true, false}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.older_image=off"));
        }
        Pair pair([](Pair& left) {
            left.first.found.durable_through = left.first.found.cleared_through = 3;
            left.second.found.durable_through = left.second.found.cleared_through = 4;
        });
        pair.exchange();
        faults::disarm_all();
        ASSERT_EQ(pair.first.proposals.size(), rule ? 1U : 0U);
        if (rule) {
            EXPECT_EQ(pair.first.proposals[0].next.primary, ReplicaId(2));
            EXPECT_FALSE(pair.first.proposals[0].next.has(ReplicaId(1)));
        }
    }
}

/// Who leaves gets a map, bound to the number without it and to the mark for which bits went.
TEST(NodeReturning, R5_MapOfALostMemberIsBoundToItsLoss) {
    Pair pair([](Pair& left) {
        for (Fake* const fake : {&left.first, &left.second})
            fake->found.durable_through = fake->found.cleared_through = 4;
    });
    pair.exchange();
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo});
    pair.first.complete();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership next = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.first.complete();
    EXPECT_EQ(pair.first.lost_stored[0], (LostMember{ReplicaId(2), 2, 4}));
    EXPECT_FALSE(pair.first.lost_stored[1].replica);
}

}  // namespace
}  // namespace ublkd::replication
