// Goal: the rules that one process alone never needs: a primary that was replaced without knowing
// it, messages of another number, volume or incarnation, a proposal whose outcome is open; and what
// happens without them. Method: two nodes over effects that are written down.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/replication/node_pair.h"

namespace ublkd::replication {
namespace {

TEST(NodePair, R2_ReplacedPrimaryAnswersNoReadAndHandsItToItsSuccessor) {
    Pair pair;
    ASSERT_EQ(pair.first.node.role(), Role::kServing);
    pair.replace_first();
    pair.first.node.on_message(
        Pair::request(OpKind::kRead, 1, 1, pair.memory));  // from its socket's buffer
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kMoved);
    ASSERT_NE(pair.to_client[0].record, nullptr);
    EXPECT_EQ(pair.to_client[0].record->number, 2U);
    EXPECT_EQ(pair.first.node.role(), Role::kOut);
}

TEST(NodePair, R2_WithoutConfirmationAReplacedPrimaryAnswersAStaleRead) {
    Pair pair;
    pair.replace_first();
    ASSERT_TRUE(faults::arm("rule.confirm_reads=off"));
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
}

TEST(NodePair, R2_ConfirmationThatWasUnderWayWhenAReadCameDoesNotCount) {
    Pair pair;
    std::array<std::byte, 4096> other{};
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    ASSERT_EQ(pair.first.sent.size(), 1U);
    const Message confirm = pair.first.sent[0];
    EXPECT_EQ(confirm.type, MessageType::kConfirm);
    pair.first.node.on_message(
        Pair::request(OpKind::kRead, 1, 1, other));  // while that is in flight
    EXPECT_EQ(pair.first.sent.size(), 1U);
    pair.first.complete();
    pair.first.sent.clear();
    pair.second.node.on_message(confirm);
    ASSERT_EQ(pair.second.sent.size(), 1U);
    pair.first.node.on_message(std::exchange(pair.second.sent, {})[0]);
    // The first read is answered; the second has its own round now.
    ASSERT_EQ(pair.first.sent.size(), 2U);
    EXPECT_EQ(pair.first.sent[0].type, MessageType::kAnswer);
    EXPECT_EQ(pair.first.sent[1].type, MessageType::kConfirm);
    EXPECT_GT(pair.first.sent[1].value, confirm.value);
}

/// The confirmation of the first read was given before the second read came; in between another
/// primary served a write.
TEST(NodePair, R2_ReadThatCountsAnEarlierConfirmationIsStale) {
    for (const bool rule : {true, false}) {
        Pair pair;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.round_after_read=off"));
        }
        pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
        ASSERT_EQ(pair.first.sent.size(), 1U);
        pair.second.node.on_message(std::exchange(pair.first.sent, {})[0]);
        const std::vector<Message> confirmed = std::exchange(pair.second.sent, {});
        ASSERT_EQ(confirmed.size(), 1U);
        pair.replace_first();
        std::array<std::byte, 4096> newer;
        newer.fill(std::byte{9});
        pair.second.node.on_message(Pair::request(OpKind::kWrite, 2, 2, newer));
        pair.second.complete();
        ASSERT_EQ(pair.second.sent.back().type, MessageType::kAnswer);
        std::array<std::byte, 4096> later{};
        Message read = Pair::request(OpKind::kRead, 1, 1, later);
        read.token = 78;
        pair.first.node.on_message(read);
        pair.first.complete();
        pair.first.node.on_message(confirmed[0]);
        const bool stale = std::ranges::any_of(pair.first.sent, [](const Message& message) {
            return message.type == MessageType::kAnswer && message.token == 78;
        });
        EXPECT_EQ(stale, !rule);
        EXPECT_EQ(later[0], std::byte{});  // what the first's disk has
    }
}

TEST(NodePair, R2_WriteIsAnsweredWhenTheOtherMemberHasItToo) {
    Pair pair;
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.first.complete();
    ASSERT_EQ(pair.first.sent.size(), 1U);  // to the member, and nothing to the client
    EXPECT_EQ(pair.first.sent[0].type, MessageType::kReplicate);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
    EXPECT_FALSE(pair.to_client[0].failed);
}

TEST(NodePair, R1_MessagesOfAnOlderNumberAreRefusedWithTheRecord) {
    for (const bool rule : {true, false}) {
        Pair pair;
        pair.second.node.on_message(invitation(record_of(2, 1)));
        pair.second.complete();
        ASSERT_EQ(pair.second.node.number(), 2U);
        pair.second.sent.clear();
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.number_checked=off"));
        }
        Message late = Pair::request(OpKind::kWrite, 2, 1, pair.memory);
        late.type = MessageType::kReplicate;
        late.from = ReplicaId(1);
        pair.second.node.on_message(late);
        EXPECT_EQ(pair.second.disks.empty(),
                  rule);  // without the rule a late write lands on newer ones
        if (rule) {
            ASSERT_EQ(pair.second.sent.size(), 1U);
            EXPECT_TRUE(pair.second.sent[0].failed);
            EXPECT_EQ(pair.second.sent[0].error.code, Errc::kStale);
            EXPECT_EQ(pair.second.sent[0].record->number, 2U);
        }
        pair.second.complete();
    }
}

TEST(NodePair, R1_RecordThatIsOvertakenWhileItIsStoredIsRefusedAndTheNewerOneCounts) {
    Pair pair;
    pair.second.node.on_message(invitation(record_of(2, 1)));  // being stored
    Membership newer = record_of(3, 2);
    newer.members.erase(newer.members.begin());
    pair.second.node.on_current(&newer);  // it is primary now, alone
    pair.second.complete();
    ASSERT_EQ(pair.second.sent.size(), 1U);
    EXPECT_EQ(pair.second.sent[0].type, MessageType::kAdopted);
    EXPECT_TRUE(pair.second.sent[0].failed);
    EXPECT_EQ(pair.second.node.number(), 3U);
    EXPECT_EQ(pair.second.node.role(), Role::kServing);  // it prepared for ever
}

TEST(NodePair, R1_MessagesOfAnotherVolumeOrIncarnationAreNotForUs) {
    Pair pair;
    Message message = Pair::request(OpKind::kWrite, 1, 1, pair.memory);
    message.volume = VolumeId(2);
    pair.first.node.on_message(message);
    message = Pair::request(OpKind::kWrite, 9, 1, pair.memory);
    pair.first.node.on_message(message);
    // A replica that is no member, or not the primary, is not listened to.
    message = Pair::request(OpKind::kWrite, 2, 1, pair.memory);
    message.type = MessageType::kReplicate;
    message.from = ReplicaId(9);
    pair.second.node.on_message(message);
    EXPECT_TRUE(pair.first.disks.empty());
    EXPECT_TRUE(pair.first.sent.empty());
    EXPECT_TRUE(pair.second.disks.empty());
}

TEST(NodePair, R1_WithoutTheCheckAnotherVolumesWriteLandsOnThisOnesContent) {
    for (const bool volume : {true, false}) {
        Pair pair;
        ASSERT_TRUE(faults::arm("rule.own_messages=off"));
        pair.memory.fill(std::byte{9});
        Message message = Pair::request(OpKind::kWrite, volume ? 1 : 9, 1, pair.memory);
        if (volume) message.volume = VolumeId(2);
        pair.first.node.on_message(message);
        pair.exchange();
        EXPECT_EQ(pair.first.content[0], std::byte{9});
        EXPECT_EQ(pair.second.content[0], std::byte{9});
    }
}

/// A write of the older number is still under way on the disk of the next primary.
TEST(NodePair, R7_LateWriteOfAnOlderNumberLandsOnNoNewerOne) {
    for (const bool rule : {true, false}) {
        Pair pair;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.drain_first=off"));
        }
        Message message = Pair::request(OpKind::kWrite, 2, 1, pair.memory);
        message.type = MessageType::kReplicate;
        message.from = ReplicaId(1);
        pair.second.node.on_message(message);
        const std::vector<DiskRequest> late = std::exchange(pair.second.disks, {});
        ASSERT_EQ(late.size(), 1U);
        Membership alone = record_of(2, 2);
        alone.members.erase(alone.members.begin());
        pair.second.node.on_current(&alone);
        pair.second.complete();
        EXPECT_EQ(pair.second.node.role(), rule ? Role::kPreparing : Role::kServing);
        std::array<std::byte, 4096> newer;
        newer.fill(std::byte{9});
        message = Pair::request(OpKind::kWrite, 2, 2, newer);
        message.id = {5, 2};
        pair.second.node.on_message(message);
        pair.second.complete();
        pair.second.node.on_disk(late[0].token, pair.second.carry_out(late[0]));
        pair.second.complete();
        ASSERT_FALSE(pair.second.sent.empty());
        EXPECT_EQ(pair.second.sent.back().failed, false);
        EXPECT_EQ(pair.second.content[0], rule ? std::byte{9} : std::byte{0});
    }
}

TEST(NodePair, R1_GreaterNumberWithoutARecordIsAskedForAndNeverStored) {
    Pair pair;
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 8, pair.memory));
    EXPECT_EQ(pair.first.asked, 1);
    EXPECT_EQ(pair.first.node.number(), 1U);
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 8, pair.memory));
    EXPECT_EQ(pair.first.asked, 1);  // one question at a time
    const Membership record = record_of(8, 2);
    pair.first.node.on_current(&record);
    pair.first.complete();
    EXPECT_EQ(pair.first.node.number(), 8U);
    EXPECT_EQ(pair.first.node.role(), Role::kSecondary);
}

TEST(NodePair, R4_SameProposalIsSentAgainUntilItsOutcomeIsCertain) {
    Pair pair;
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo});
    pair.first.complete();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.first.complete();
    pair.first.node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
    const Membership old = record_of(1, 1);
    pair.first.node.on_timer(TimerKind::kAuthority);
    ASSERT_EQ(pair.first.proposals.size(), 2U);
    EXPECT_EQ(pair.first.proposals[1].next, pair.first.proposals[0].next);
    // The old number read back says nothing: it may arrive later.
    pair.first.node.on_outcome(Verdict::kDeclined, &old);
    pair.first.node.on_timer(TimerKind::kAuthority);
    ASSERT_EQ(pair.first.proposals.size(), 3U);
    for (const Message& message : pair.first.sent) EXPECT_TRUE(message.to);  // no answer meanwhile
    const Membership next = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAlreadyYours, &next);
    pair.first.complete();
    ASSERT_FALSE(pair.first.sent.empty());
    EXPECT_EQ(pair.first.sent.back().type, MessageType::kAnswer);
    EXPECT_EQ(pair.first.node.number(), 2U);
}

TEST(NodeJoining, R4_BarredProposalIsWithdrawnAndNothingWaitsForTheReplica) {
    Joining pair;
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    pair.second_hears = false;
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.exchange();
    EXPECT_TRUE(pair.to_client.empty());  // R4: acknowledged by all of the proposed membership
    const Membership current = *pair.first.node.record();
    // Declined under its own number says nothing; barred under it says that it never will be.
    pair.first.node.on_outcome(Verdict::kDeclined, &current);
    pair.exchange();
    EXPECT_TRUE(pair.to_client.empty());
    pair.first.node.on_timer(TimerKind::kAuthority);
    pair.first.node.on_outcome(Verdict::kBarred, &current);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
    EXPECT_FALSE(pair.first.node.proposing());
    EXPECT_FALSE(pair.first.pending_stored);  // out of the superblock as well
    EXPECT_EQ(pair.first.node.number(), 1U);
    EXPECT_EQ(pair.first.node.joining(), ReplicaId());
    ASSERT_EQ(pair.first.lost.size(), 1U);
    EXPECT_EQ(pair.first.lost[0], Errc::kConflict);
    EXPECT_EQ(pair.first.proposals.size(), 2U);  // and it is not proposed again
}

/// The proposal arrives, the primary dies, and the replica that was proposed is the next primary.
TEST(NodeJoining, R4_WithoutJointAcknowledgementsAnAnsweredWriteIsMissingAtTheNextPrimary) {
    for (const bool rule : {true, false}) {
        Joining pair;
        ASSERT_EQ(pair.first.proposals.size(), 1U);
        pair.second_hears = false;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.joint_acknowledgement=off"));
        }
        pair.memory.fill(std::byte{9});
        pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
        pair.exchange();
        EXPECT_EQ(pair.to_client.empty(), rule);
        Membership next = pair.first.proposals[0].next;
        ++next.number;
        next.primary = ReplicaId(2);
        next.members.erase(next.members.begin());
        pair.second.node.on_current(&next);
        pair.second.complete();
        ASSERT_EQ(pair.second.node.role(), Role::kServing);
        EXPECT_EQ(pair.second.content[0], std::byte{});
        faults::disarm_all();
    }
}

/// The joining member's disk keeps something else than what it was given.
TEST(NodeJoining, R12_CopyThatDiffersOnItsTargetsDiskMakesNoMember) {
    for (const bool rule : {true, false}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.copy_compared=off"));
        }
        Joining pair([](Joining& left) {
            left.hole = false;
            left.first.content[0] = std::byte{9};
            left.second.keeps_wrong = true;
        });
        faults::disarm_all();
        EXPECT_NE(pair.first.content, pair.second.content);
        EXPECT_EQ(pair.first.proposals.empty(), rule);
        EXPECT_EQ(pair.second.node.in_sync(), !rule);
        EXPECT_EQ(pair.first.lost, rule ? std::vector<Errc>{Errc::kCorrupt} : std::vector<Errc>{});
    }
}

/// The authority has made it a member, and it is lost while the primary stores that record: it
/// leaves by a number of its own, and nothing is acknowledged without it before.
TEST(NodeJoining, R4_ReplicaThatIsLostWhileItsRecordIsStoredIsAMember) {
    Joining pair;
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership next = pair.first.proposals[0].next;
    pair.second_hears = false;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo});
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.exchange();
    EXPECT_EQ(pair.first.node.number(), 2U);
    EXPECT_TRUE(pair.to_client.empty());
    ASSERT_EQ(pair.first.proposals.size(), 2U);
    const Membership without = pair.first.proposals[1].next;
    EXPECT_EQ(without.members.size(), 1U);
    pair.first.node.on_outcome(Verdict::kAuthorized, &without);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_FALSE(pair.to_client[0].failed);
}

/// A change that failed for space at its source is taken back there (repair): a retry writes it.
TEST(NodeJoining, R8_WhatARepairTookBackIsNotKnownAsAppliedThere) {
    for (const bool off : {false, true}) {
        AppliedIds::Table table{};
        AppliedIds ids(&table);
        const RequestId lost{5, 1};
        const RequestId kept{5, 2};
        ids.note_applied(lost, {0, 8192});
        ids.note_applied(kept, {4096, 8192});
        const IdList source{{kept, true, {4096, 8192}, {}}};
        if (!off) ids.copied_while_joining({0, 4096}, source);
        ids.join(source);
        EXPECT_EQ(ids.applied(lost), off);
        EXPECT_TRUE(ids.applied(kept));
    }
}

/// It was given up and begins anew: what was noted in between may have been taken back since.
TEST(NodeJoining, R8_ANewJoinBeginsWithoutIds) {
    Joining pair;
    pair.second.ids.note_applied({5, 9}, {0, 4096});
    Message examine = invitation(record_of(1, 1));
    examine.type = MessageType::kExamine;
    examine.record.reset();
    pair.second.node.on_message(examine);
    Membership record = record_of(1, 1);
    record.members.pop_back();
    Message adopt = invitation(record);
    adopt.joining = true;
    pair.second.node.on_message(adopt);
    pair.second.complete();
    EXPECT_FALSE(pair.second.ids.applied({5, 9}));
}

/// What was copied to it is active there alone; its bits go like others.
TEST(NodeJoining, R10_BitsOfWhatWasCopiedAreClearedToo) {
    Joining pair;
    pair.second.active = {0, 3};
    const Membership next = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &next);
    pair.exchange();
    ASSERT_EQ(pair.first.node.number(), 2U);
    pair.first.node.on_timer(TimerKind::kBits);
    pair.exchange();
    EXPECT_TRUE(pair.second.cleared.empty());  // no flush has ended since
    pair.first.node.on_message(Pair::request(OpKind::kFlush, 1, 2, pair.memory));
    pair.exchange();
    pair.first.node.on_timer(TimerKind::kBits);
    pair.exchange();
    EXPECT_EQ(pair.second.cleared, (RegionSet{0, 3}));
}

/// A replica that is proposed and finds its pool full is no lost one: the change waits for space.
TEST(NodeJoining, ProposedReplicaWithAFullPoolWaitsForSpace) {
    Joining pair;
    pair.second.write_error = Error{Errc::kNoSpace};
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.exchange();
    EXPECT_TRUE(pair.to_client.empty());
    EXPECT_TRUE(pair.first.lost.empty());
    pair.second.write_error.reset();
    pair.first.node.on_timer(TimerKind::kFull);
    pair.exchange();
    EXPECT_EQ(pair.to_client.size(), 1U);
}

TEST(NodeJoining, R2_ReadThatWaitsForAReplicaThatIsGivenUpIsAnswered) {
    Joining pair;
    pair.second_hears = false;
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    pair.exchange();
    EXPECT_TRUE(pair.to_client.empty());  // its confirmation is needed, and it does not answer
    const Membership current = *pair.first.node.record();
    pair.first.node.on_outcome(Verdict::kBarred, &current);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
    EXPECT_FALSE(pair.to_client[0].failed);
}

/// A handover that was proposed before a power cut and authorized after it: who is primary by it
/// has lost its unflushed writes too, and goes on under a loss number.
TEST(NodePair, R9_PrimaryOfALateHandoverThatRestartedServesUnderALossNumberAlone) {
    for (const bool rule : {true, false}) {
        for (const bool told : {true, false}) {
            if (!rule) {
                ASSERT_TRUE(faults::arm("rule.boot_check=off"));
            }
            Fake second(2);
            second.found.record = record_of(1, 1);
            second.node.start(second.found);
            second.node.begin(record_of(1, 1), {});
            Membership late = record_of(2, 2);
            late.members.erase(late.members.begin());
            if (told) {
                second.node.on_message(invitation(late));
            } else {
                second.node.on_current(&late);
            }
            second.complete();
            faults::disarm_all();
            EXPECT_EQ(second.node.role(), rule ? Role::kProbing : Role::kServing);
            ASSERT_EQ(second.proposals.size(), rule ? 1U : 0U);
            if (!rule) continue;
            EXPECT_EQ(second.proposals[0].next.loss_count, 1U);
            EXPECT_TRUE(second.pending_stored);
            const Membership next = second.proposals[0].next;
            second.node.on_outcome(Verdict::kAuthorized, &next);
            second.complete();
            EXPECT_EQ(second.node.role(), Role::kServing);
            EXPECT_TRUE(second.node.in_sync());
        }
    }
}

/// Three members; the primary's proposal comes second to one of before, by which a replica is
/// primary that can't be opened any more: the third one is told, and takes its place.
TEST(NodeThree, R4_RecordWhosePrimaryIsGoneIsToldToTheOthers) {
    Membership record = record_of(1, 1);
    record.members.push_back({ReplicaId(3), HostId(1), PoolId(3)});
    Fake first(1), third(3);
    for (Fake* const fake : {&first, &third}) {
        fake->found.record = record;
        fake->found.in_sync = true;
        fake->node.start(fake->found);
        fake->node.begin(record, {ReplicaId(2)});
    }
    const auto exchange = [&] {
        for (bool more = true; more;) {
            more = false;
            for (Fake* const from : {&first, &third}) {
                from->complete();
                for (const Message& message : std::exchange(from->sent, {})) {
                    more = true;
                    EXPECT_NE(message.to, ReplicaId(2));
                    (message.to == ReplicaId(1) ? first : third).node.on_message(message);
                }
            }
        }
    };
    exchange();
    ASSERT_EQ(first.proposals.size(), 1U);  // without the second
    Membership late = record;
    late.number = 2;
    late.primary = ReplicaId(2);
    late.members.erase(late.members.begin());
    first.node.on_outcome(Verdict::kDeclined, &late);
    exchange();
    EXPECT_EQ(first.node.role(), Role::kOut);
    ASSERT_EQ(third.proposals.size(), 1U);  // it was never told, and nobody served
    const Membership next = third.proposals[0].next;
    EXPECT_EQ(next.number, 3U);
    EXPECT_EQ(next.primary, ReplicaId(3));
    EXPECT_EQ(next.members.size(), 1U);
    third.node.on_outcome(Verdict::kAuthorized, &next);
    exchange();
    EXPECT_EQ(third.node.role(), Role::kServing);
}

}  // namespace
}  // namespace ublkd::replication
