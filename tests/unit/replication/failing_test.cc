// Goal: what a node does when a member is lost (R5) or a range can't be read (R14), and that bits
// go where nobody flushes (R10); each rule once with its switch off. Method: two nodes over effects
// that are written down, so that each message and disk request is held where the rule matters.
#include <gtest/gtest.h>

#include "tests/unit/replication/node_pair.h"

namespace ublkd::replication {
namespace {

constexpr Error kUnreadable{Errc::kIo};

void fill(Fake& fake, int value) {
    std::fill(fake.content.begin(), fake.content.end(), static_cast<std::byte>(value));
}
bool all_are(std::span<const std::byte> bytes, int value) {
    return std::all_of(bytes.begin(), bytes.end(),
                       [&](std::byte byte) { return byte == static_cast<std::byte>(value); });
}

// ---- R5

/// The other member has failed, and now the own disk too: what waits for the other one gets an
/// error, since nobody can take it out of the membership any more.
TEST(NodePair, R5_NothingWaitsWhereTheDisksOfAllHaveFailed) {
    Pair pair;
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.first.complete();
    pair.first.sent.clear();  // the other one is gone
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kIo});
    for (const std::uint64_t token : std::exchange(pair.first.stores, {}))
        pair.first.node.on_stored(token, fail(Errc::kIo, "the disk"));
    for (const OpKind kind : {OpKind::kWrite, OpKind::kRead, OpKind::kFlush}) {
        Message later = Pair::request(kind, 1, 1, pair.memory);
        later.range.offset_bytes = 8192;  // the first one's memory may still be in use
        if (kind == OpKind::kWrite) later.id = {5, 2};
        pair.first.node.on_message(later);
        pair.exchange();
    }
    ASSERT_EQ(pair.to_client.size(), 4U);
    for (const Message& answer : pair.to_client) {
        EXPECT_EQ(answer.type, MessageType::kAnswer);
        EXPECT_TRUE(answer.failed);
    }
}

/// On an operator's word: as one that is lost, but told of as what it is. Not while anything else
/// changes, and not the node itself.
TEST(NodePair, R5_MemberThatIsLetGoLeavesBeforeAWriteIsAcknowledgedWithoutIt) {
    Pair pair;
    EXPECT_FALSE(pair.first.node.let_go(ReplicaId(1), 1));
    EXPECT_FALSE(pair.first.node.let_go(ReplicaId(7), 1));
    EXPECT_FALSE(pair.second.node.let_go(ReplicaId(1), 1));
    std::fill(pair.memory.begin(), pair.memory.end(), std::byte{2});
    EXPECT_FALSE(pair.first.node.let_go(ReplicaId(2), 7)) << "it was decided by another record";
    ASSERT_TRUE(pair.first.node.let_go(ReplicaId(2), 1));
    EXPECT_FALSE(pair.first.node.let_go(ReplicaId(2), 1));
    pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
    pair.exchange();
    EXPECT_EQ(pair.to_client.size(), 0U);
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership current = pair.first.proposals[0].next;
    EXPECT_FALSE(current.has(ReplicaId(2)));
    pair.first.node.on_outcome(Verdict::kAuthorized, &current);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_FALSE(pair.to_client[0].failed);
}

/// A member that is lost holds up acknowledgements until the number without it is stored: until
/// then it may take over.
TEST(NodePair, R5_LostMemberLeavesBeforeAWriteIsAcknowledgedWithoutIt) {
    for (const bool rule : {true, false}) {
        Pair pair;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.lost_leaves_first=off"));
        }
        const Membership before = *pair.first.node.record();
        fill(pair.first, 1);
        fill(pair.second, 1);
        std::fill(pair.memory.begin(), pair.memory.end(), std::byte{2});
        pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kTimedOut});
        pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, pair.memory));
        pair.exchange();
        ASSERT_EQ(pair.to_client.size(), rule ? 0U : 1U);
        Membership current = before;
        if (rule) {
            ASSERT_EQ(pair.first.proposals.size(), 1U);
            current = pair.first.proposals[0].next;
            pair.first.node.on_outcome(Verdict::kAuthorized, &current);
            pair.exchange();
            ASSERT_EQ(pair.to_client.size(), 1U);
            EXPECT_EQ(current.members.size(), 1U);
        }
        EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
        EXPECT_FALSE(pair.to_client[0].failed);
        // The primary dies, and the member that was lost asks to be primary.
        pair.second.node.replace_primary(before, {ReplicaId(1)});
        pair.second.complete();
        ASSERT_EQ(pair.second.proposals.size(), 1U);
        const Verdict verdict = decide(current, pair.second.proposals[0]);
        EXPECT_EQ(verdict, rule ? Verdict::kDeclined : Verdict::kAuthorized);
        if (rule) continue;
        // Without the rule it serves, and the write that was acknowledged is gone.
        current = pair.second.proposals[0].next;
        pair.second.node.on_outcome(verdict, &current);
        pair.second.complete();
        pair.second.sent.clear();
        pair.second.node.on_message(Pair::request(OpKind::kRead, 2, 2, pair.memory));
        pair.second.complete();
        ASSERT_EQ(pair.second.sent.size(), 1U);
        EXPECT_EQ(pair.second.sent[0].type, MessageType::kAnswer);
        EXPECT_TRUE(all_are(pair.memory, 1));
    }
}

/// The first serves again after a death: its region is still to be copied, a read waits for that,
/// and nothing of the copy has ended.
struct Copying : Pair {
    Copying() : Pair([](Pair& pair) { pair.first.active = {0}; }) {
        second.complete();
        first.complete();
        for (const Message& message : std::exchange(first.sent, {}))
            second.node.on_message(message);
        second.complete();
        for (const Message& message : std::exchange(second.sent, {}))
            first.node.on_message(message);
        CHECK(first.node.regions_to_copy() == 1, "nothing of the copy has ended");
        first.node.on_message(request(OpKind::kRead, 1, 1, memory));
        CHECK(first.sent.empty(), "the read waits");
    }
    const Message* answer() {
        const auto found = std::find_if(first.sent.begin(), first.sent.end(),
                                        [](const Message& message) { return !message.to; });
        return found == first.sent.end() ? nullptr : &*found;
    }
};

/// What can't be read is not copied to a member that is lost: the volume goes on with its last
/// member, whole but for that range.
TEST(NodePair, R7_UnreadableRegionIsServedWhenNobodyIsLeftToCopyItTo) {
    Copying pair;
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kTimedOut});
    pair.first.read_error = kUnreadable;
    for (const auto& [token, bytes] : std::exchange(pair.first.buffers, {}))
        pair.first.node.on_buffer(token, {.bytes = *bytes, .handle = 0});
    for (const DiskRequest& request : std::exchange(pair.first.disks, {}))
        pair.first.node.on_disk(request.token, pair.first.carry_out(request));
    pair.first.read_error.reset();  // another range of it
    pair.first.complete();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    EXPECT_EQ(pair.answer(), nullptr);  // the other one may take over until it has left
    const Membership alone = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &alone);
    pair.first.complete();
    ASSERT_NE(pair.answer(), nullptr);
    EXPECT_EQ(pair.answer()->type, MessageType::kAnswer);
    EXPECT_FALSE(pair.answer()->failed);
    EXPECT_FALSE(pair.first.node.self_failed());
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
    EXPECT_TRUE(pair.first.node.add({ReplicaId(3), HostId(1), PoolId(3)}));
}

/// This node's disk fails, then its heir is lost before it could hand over: nobody is left, and
/// what waits for the copy gets an error, as the rest does.
TEST(NodePair, R7_NothingWaitsForACopyThatNobodyCanMake) {
    Copying pair;
    const Membership next = record_of(2, 1);
    pair.first.node.on_current(&next);
    for (const std::uint64_t token : std::exchange(pair.first.stores, {}))
        pair.first.node.on_stored(token, fail(Errc::kIo, "the disk"));
    pair.first.read_error = kUnreadable;
    pair.first.complete();
    ASSERT_TRUE(pair.first.node.self_failed());
    ASSERT_TRUE(pair.first.proposals.empty());  // the other one has not stored number 2 yet
    EXPECT_EQ(pair.answer(), nullptr);
    pair.first.read_error.reset();
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kTimedOut});
    pair.first.complete();
    ASSERT_NE(pair.answer(), nullptr);
    EXPECT_EQ(pair.answer()->type, MessageType::kAnswer);
    EXPECT_TRUE(pair.answer()->failed);
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
    EXPECT_EQ(pair.first.node.regions_to_copy(), 0U);
}

// ---- R14

TEST(NodePair, R14_UnreadableRangeIsReadFromTheOtherMemberAndRewritten) {
    for (const bool rule : {true, false}) {
        Pair pair;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.read_from_peer=off"));
        }
        fill(pair.second, 7);  // the first's disk has lost what both had
        pair.first.read_error = kUnreadable;
        pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
        pair.exchange();
        ASSERT_EQ(pair.to_client.size(), 1U);
        EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
        EXPECT_EQ(pair.to_client[0].failed, !rule);  // without it a volume of two is one disk's
        EXPECT_EQ(all_are(pair.memory, 7), rule);
        EXPECT_EQ(all_are(std::span(pair.first.content).first(4096), 7), rule);
        EXPECT_EQ(pair.first.node.number(), 1U);
    }
}

TEST(NodePair, R14_UnreadableRangeWaitsForAMemberThatStoresANumber) {
    Pair pair;
    fill(pair.second, 7);
    pair.first.read_error = kUnreadable;
    const Membership next = record_of(2, 1);
    pair.first.node.on_current(&next);
    pair.first.complete();
    ASSERT_EQ(pair.first.node.number(), 2U);  // and the second has not stored it yet
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 2, pair.memory));
    pair.first.complete();
    for (const Message& message : pair.first.sent) EXPECT_TRUE(message.to);  // no answer yet
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
    EXPECT_FALSE(pair.to_client[0].failed);
    EXPECT_TRUE(all_are(pair.memory, 7));
}

TEST(NodePair, R14_UnreadableRangeThatWasAskedForUnderAnOlderNumberIsAskedForAgain) {
    Pair pair;
    fill(pair.second, 7);
    pair.first.read_error = kUnreadable;
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    pair.first.complete();
    ASSERT_EQ(pair.first.sent.back().type, MessageType::kFetch);
    // Number 2 comes to the second first: it refuses what is asked under 1.
    const Membership next = record_of(2, 1);
    pair.first.node.on_current(&next);
    pair.first.complete();
    std::vector<Message> sent = std::exchange(pair.first.sent, {});
    std::stable_partition(sent.begin(), sent.end(), [](const Message& message) {
        return message.type == MessageType::kAdopt;
    });
    for (const Message& message : sent) {
        pair.second.node.on_message(message);
        pair.second.complete();
    }
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].type, MessageType::kAnswer);
    EXPECT_FALSE(pair.to_client[0].failed);
    EXPECT_TRUE(all_are(pair.memory, 7));
}

TEST(NodePair, R14_UnreadableRangeOfALostMemberFailsWhenTheOtherIsTheOnlyOne) {
    Pair pair;
    pair.first.read_error = kUnreadable;
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kTimedOut});
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    pair.first.complete();
    pair.first.sent.clear();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    pair.first.node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
    pair.first.complete();
    EXPECT_TRUE(pair.first.sent.empty());  // the member may still be the one that goes on
    pair.first.node.on_timer(TimerKind::kAuthority);
    const Membership alone = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &alone);
    pair.first.complete();
    ASSERT_EQ(pair.first.sent.size(), 1U);
    EXPECT_EQ(pair.first.sent[0].type, MessageType::kAnswer);
    EXPECT_TRUE(pair.first.sent[0].failed);
    EXPECT_EQ(pair.first.sent[0].error.code, Errc::kIo);
}

TEST(NodePair, R14_UnreadableRangeIsHandedToTheMemberThatTookOver) {
    Pair pair;
    pair.first.read_error = kUnreadable;
    pair.first.node.on_peer_lost(ReplicaId(2), Error{Errc::kTimedOut});
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    pair.first.complete();
    pair.first.sent.clear();
    Membership theirs = record_of(2, 2);
    theirs.members.erase(theirs.members.begin());
    pair.first.node.on_outcome(Verdict::kDeclined, &theirs);  // the other one's proposal came first
    pair.first.complete();
    const auto answer = std::find_if(pair.first.sent.begin(), pair.first.sent.end(),
                                     [](const Message& message) { return !message.to; });
    ASSERT_NE(answer, pair.first.sent.end());
    EXPECT_EQ(answer->type, MessageType::kMoved);
    ASSERT_NE(answer->record, nullptr);
    EXPECT_EQ(answer->record->primary, ReplicaId(2));
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
}

/// A region that is to be copied before it is served has a sector that the primary can't read: what
/// another member has of it is as good. The primary keeps its place.
TEST(NodePair, R14_UnreadableRegionIsCopiedFromAnotherMember) {
    for (const bool rewritten : {true, false}) {
        Copying pair;
        fill(pair.second, 7);
        pair.first.read_error = kUnreadable;
        if (!rewritten) pair.first.write_error = kUnreadable;
        // Until it is rewritten: a few rounds, and none without the rule.
        const auto rewrites = [&] {
            return !pair.first.disks.empty() && pair.first.disks.back().kind == OpKind::kWrite;
        };
        for (int round = 0; round < 100 && !rewrites(); ++round) {
            for (const auto& [token, bytes] : std::exchange(pair.first.buffers, {}))
                pair.first.node.on_buffer(token, {.bytes = *bytes, .handle = 0});
            for (const DiskRequest& request : std::exchange(pair.first.disks, {}))
                pair.first.node.on_disk(request.token, pair.first.carry_out(request));
            for (const Message& message : std::exchange(pair.first.sent, {}))
                pair.second.node.on_message(message);
            pair.second.complete();
            for (const Message& message : std::exchange(pair.second.sent, {}))
                pair.first.node.on_message(message);
        }
        ASSERT_TRUE(rewrites());
        pair.first.read_error.reset();
        pair.exchange();
        EXPECT_EQ(pair.first.node.self_failed().has_value(), !rewritten);
        ASSERT_EQ(pair.first.proposals.size(), rewritten ? 0U : 1U);
        if (!rewritten) {  // its disk has failed
            EXPECT_EQ(pair.first.proposals[0].next.primary, ReplicaId(2));
            continue;
        }
        EXPECT_TRUE(all_are(pair.first.content, 7));
        EXPECT_TRUE(all_are(pair.second.content, 7));
        ASSERT_EQ(pair.to_client.size(), 1U);
        EXPECT_FALSE(pair.to_client[0].failed);
        EXPECT_TRUE(all_are(pair.memory, 7));
        EXPECT_EQ(pair.first.node.regions_to_copy(), 0U);
    }
}

/// Nobody can read it: the others, which can't be made equal, leave, and it fails for those alone
/// who ask for it. A handover could make a replica primary whose disk is dead.
TEST(NodePair, R14_RegionThatNobodyCanReadMakesTheOthersLeave) {
    Copying pair;
    pair.first.read_error = kUnreadable;
    pair.second.read_error = kUnreadable;
    pair.exchange();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership alone = pair.first.proposals[0].next;
    EXPECT_EQ(alone.primary, ReplicaId(1));
    EXPECT_EQ(alone.members.size(), 1U);
    EXPECT_FALSE(pair.first.node.self_failed());
    pair.first.node.on_outcome(Verdict::kAuthorized, &alone);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_EQ(pair.to_client[0].error.code, Errc::kIo);
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
    EXPECT_EQ(pair.first.node.role(), Role::kServing);
}

TEST(NodePair, R14_RangeThatNobodyCanReadFails) {
    Pair pair;
    pair.first.read_error = kUnreadable;
    pair.second.read_error = kUnreadable;
    pair.first.node.on_message(Pair::request(OpKind::kRead, 1, 1, pair.memory));
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_TRUE(pair.to_client[0].failed);
    EXPECT_EQ(pair.to_client[0].error.code, Errc::kIo);
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
}

/// verify --repair: the primary's content of a range, durably and read back; a disk that does not
/// keep it is told of, and one that fails leaves.
TEST(NodePair, R14_RangeIsMadeEqualToThePrimarys) {
    Pair pair;
    fill(pair.first, 1);
    fill(pair.second, 2);
    const auto answer = [&] {
        pair.first.node.on_message(Pair::request(OpKind::kMakeEqual, 1, 1, pair.memory));
        pair.exchange();
        CHECK(pair.to_client.size() == 1, "one answer");
        return std::exchange(pair.to_client, {}).front();
    };
    EXPECT_FALSE(answer().failed);
    EXPECT_TRUE(all_are(std::span(pair.second.content).first(4096), 1));
    EXPECT_TRUE(all_are(std::span(pair.second.content).subspan(4096), 2));
    EXPECT_TRUE(all_are(pair.first.content, 1));

    pair.second.keeps_wrong = true;
    EXPECT_EQ(answer().error.code, Errc::kIo);
    pair.second.keeps_wrong = false;
    pair.second.write_error = Error{Errc::kNoSpace};
    EXPECT_EQ(answer().error.code, Errc::kNoSpace);
    pair.second.write_error.reset();
    pair.first.read_error = kUnreadable;
    EXPECT_EQ(answer().error.code, Errc::kIo);
    pair.first.read_error.reset();
    EXPECT_FALSE(answer().failed);
    EXPECT_TRUE(pair.first.lost.empty());

    pair.second.write_error = Error{Errc::kIo};
    pair.first.node.on_message(Pair::request(OpKind::kMakeEqual, 1, 1, pair.memory));
    pair.exchange();
    ASSERT_EQ(pair.first.proposals.size(), 1U);
    const Membership alone = pair.first.proposals[0].next;
    pair.first.node.on_outcome(Verdict::kAuthorized, &alone);
    pair.exchange();
    ASSERT_EQ(pair.to_client.size(), 1U);
    EXPECT_TRUE(pair.to_client[0].failed);
    EXPECT_EQ(pair.first.node.open_ops(), 0U);
}

TEST(NodePair, R14_RepairOverwritesNoWriteThatIsUnderWay) {
    for (const bool rule : {true, false}) {
        Pair pair;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.repair_held=off"));
        }
        std::array<std::byte, 4096> newer;
        newer.fill(std::byte{2});
        const auto give_buffers = [&] {
            for (const auto& [token, bytes] : std::exchange(pair.first.buffers, {}))
                pair.first.node.on_buffer(token, {.bytes = *bytes, .handle = 0});
        };
        pair.first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, newer));
        give_buffers();
        pair.first.node.on_message(Pair::request(OpKind::kMakeEqual, 1, 1, pair.memory));
        give_buffers();
        // What it reads, where it does, is there first.
        std::stable_partition(
            pair.first.disks.begin(), pair.first.disks.end(),
            [](const DiskRequest& request) { return request.kind == OpKind::kRead; });
        pair.exchange();
        EXPECT_EQ(pair.to_client.size(), 2U);
        EXPECT_TRUE(all_are(std::span(pair.first.content).first(4096), 2));
        EXPECT_EQ(all_are(std::span(pair.second.content).first(4096), 2), rule);
    }
}

/// The member to which the primary sent its content becomes primary: what was sent has ended
/// before it serves.
TEST(NodePair, R14_RepairOfAnOlderNumberLandsOnNothingNewer) {
    for (const bool rule : {true, false}) {
        Pair pair;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.drain_first=off"));
        }
        pair.first.node.on_message(Pair::request(OpKind::kMakeEqual, 1, 1, pair.memory));
        pair.first.complete();
        ASSERT_EQ(pair.first.sent.size(), 1U);
        pair.second.node.on_message(pair.first.sent[0]);
        const std::vector<DiskRequest> late = std::exchange(pair.second.disks, {});
        ASSERT_EQ(late.size(), 1U);
        Membership alone = record_of(2, 2);
        alone.members.erase(alone.members.begin());
        pair.second.node.on_current(&alone);
        pair.second.complete();
        EXPECT_EQ(pair.second.node.role(), rule ? Role::kPreparing : Role::kServing);
        std::array<std::byte, 4096> newer;
        newer.fill(std::byte{9});
        pair.second.node.on_message(Pair::request(OpKind::kWrite, 2, 2, newer));
        pair.second.complete();
        pair.second.node.on_disk(late[0].token, pair.second.carry_out(late[0]));
        pair.second.complete();
        EXPECT_EQ(all_are(std::span(pair.second.content).first(4096), 9), rule);
        EXPECT_EQ(pair.second.node.open_ops(), 0U);
    }
}

// ---- R10

TEST(NodePair, R10_BitsGoWithoutAFlushOfTheGuestWhereEachWriteIsDurable) {
    for (const bool durable : {true, false}) {
        Pair pair(durable);
        Message write = Pair::request(OpKind::kWrite, 1, 1, pair.memory);
        write.fua = durable;
        pair.first.node.on_message(write);
        pair.exchange();
        ASSERT_EQ(pair.to_client.size(), 1U);
        pair.first.node.on_timer(TimerKind::kBits);
        EXPECT_EQ(pair.first.disks.size(), durable ? 1U : 0U);
        EXPECT_TRUE(pair.first.cleared.empty());  // not before the flush has ended everywhere
        pair.first.complete();
        EXPECT_TRUE(pair.first.cleared.empty());
        pair.exchange();
        const RegionSet expected = durable ? RegionSet{0} : RegionSet{};
        EXPECT_EQ(pair.first.cleared, expected);
        EXPECT_EQ(pair.second.cleared, expected);
        EXPECT_EQ(pair.to_client.size(), 1U);  // nobody is told of it
        EXPECT_EQ(pair.first.node.open_ops(), 0U);
        pair.first.node.on_timer(TimerKind::kBits);
        EXPECT_TRUE(pair.first.disks.empty());  // nothing was written since
    }
}

}  // namespace
}  // namespace ublkd::replication
