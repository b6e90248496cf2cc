// Goal: the parts of the core by themselves, and the rules that one process alone never needs: a
// primary that was replaced without knowing it, messages of another number, volume or incarnation.
// Method: nodes over effects that are written down.
#include <gtest/gtest.h>

#include <set>

#include "tests/unit/replication/node_pair.h"
#include "ublkd/replication/client.h"

namespace ublkd::replication {
namespace {

// ---- R3

class Locks : public ::testing::Test {
  protected:
    bool acquire(RangeLock& lock, std::uint64_t offset, std::uint64_t length, bool exclusive) {
        return locks_.acquire(lock, Range{offset, length}, exclusive);
    }
    RangeLocks locks_{4096};
};

TEST_F(Locks, ReadsShareAndWritesHaveTheirBlockAlone) {
    RangeLock read1, read2, write, far;
    EXPECT_TRUE(acquire(read1, 0, 4096, false));
    EXPECT_TRUE(acquire(read2, 0, 512, false));
    EXPECT_FALSE(acquire(write, 512, 512, true));
    EXPECT_TRUE(acquire(far, 4096, 512, true));
    locks_.release(read1);
    EXPECT_EQ(locks_.take_granted(), nullptr);
    locks_.release(read2);
    EXPECT_EQ(locks_.take_granted(), &write);
    EXPECT_EQ(locks_.take_granted(), nullptr);
    locks_.release(write);
    locks_.release(far);
    EXPECT_TRUE(locks_.empty());
}

TEST_F(Locks, TwoWritesOf512BytesInOneBlockFollowEachOther) {
    RangeLock first, second;
    EXPECT_TRUE(acquire(first, 0, 512, true));
    EXPECT_FALSE(acquire(second, 3584, 512, true));  // they would meet in one read-modify-write
    locks_.release(first);
    EXPECT_EQ(locks_.take_granted(), &second);
    locks_.release(second);
}

TEST_F(Locks, WaitingWriteIsNotOvertakenByLaterReads) {
    RangeLock read1, write, read2;
    EXPECT_TRUE(acquire(read1, 0, 8192, false));
    EXPECT_FALSE(acquire(write, 4096, 4096, true));
    EXPECT_FALSE(acquire(read2, 0, 8192, false));
    locks_.release(read1);
    EXPECT_EQ(locks_.take_granted(), &write);
    locks_.release(write);
    EXPECT_EQ(locks_.take_granted(), &read2);
    locks_.release(read2);
}

TEST_F(Locks, WaitingLockCanBeGivenUp) {
    RangeLock first, second, third;
    EXPECT_TRUE(acquire(first, 0, 4096, false));
    EXPECT_FALSE(acquire(second, 0, 4096, true));
    EXPECT_FALSE(acquire(third, 0, 4096, false));
    locks_.release(second);
    EXPECT_EQ(locks_.take_granted(), &third);
    locks_.release(first);
    locks_.release(third);
}

TEST_F(Locks, GrantedLockThatIsGivenUpAtOnceLeavesTheOthersGranted) {
    RangeLock write, read1, read2, read3;
    EXPECT_TRUE(acquire(write, 0, 4096, true));
    for (RangeLock* const read : {&read1, &read2, &read3})
        EXPECT_FALSE(acquire(*read, 0, 4096, false));
    locks_.release(write);
    locks_.release(read1);  // its request is gone before it heard of the grant
    locks_.release(read3);
    read1 = read3 = RangeLock{};
    EXPECT_EQ(locks_.take_granted(), &read2);
    EXPECT_EQ(locks_.take_granted(), nullptr);
    locks_.release(read2);
    EXPECT_TRUE(locks_.empty());
}

// ---- R8

constexpr Range kSomewhere{4096, 512};

TEST(AppliedIdsTest, RemembersTheWindowOfEachClientAndForgetsTheOldestClient) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    EXPECT_FALSE(ids.applied({1, 1}));
    for (std::uint64_t i = 1; i <= AppliedIds::kWindow + 10; ++i)
        ids.note_applied({1, i}, kSomewhere);
    EXPECT_FALSE(ids.applied({1, 10}));
    EXPECT_TRUE(ids.applied({1, 11}));
    EXPECT_FALSE(ids.applied({2, 11}));
    for (std::uint64_t client = 2; client <= AppliedIds::kClients; ++client)
        ids.note_applied({client, 1}, kSomewhere);
    EXPECT_TRUE(ids.applied({1, 11}));
    ids.note_applied({99, 1}, kSomewhere);
    EXPECT_FALSE(ids.applied({1, 11}));
    EXPECT_TRUE(ids.applied({2, 1}));
    AppliedIds again(table.get());  // the next process finds them
    EXPECT_TRUE(again.applied({99, 1}));
    again.erase({99, 1});
    EXPECT_FALSE(again.applied({99, 1}));
    EXPECT_FALSE(again.applied({0, 0}));
}

TEST(AppliedIdsTest, ForgetsTheClientThatWasSilentForTheLongestTime) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    for (std::uint64_t client = 1; client <= AppliedIds::kClients; ++client)
        ids.note_applied({client, 1}, kSomewhere);
    ids.note_applied({1, 2}, kSomewhere);  // came first, and is still at work
    ids.note_applied({99, 1}, kSomewhere);
    EXPECT_TRUE(ids.applied({1, 1}));
    EXPECT_FALSE(ids.applied({2, 1}));
}

using Pieces = std::vector<Range>;
constexpr RequestId kLater{2, 1};

TEST(AppliedIdsTest, WhatIsWrittenOverAPieceIsNoneOfItAnyMore) {
    auto table = std::make_unique<AppliedIds::Table>();
    {
        AppliedIds before(table.get());
        before.note_perhaps({1, 7}, {1024, 4096});
        before.overwritten({0, 2048}, kLater);  // that change began before this one was interrupted
    }
    AppliedIds ids(table.get());  // the next process
    EXPECT_FALSE(ids.applied({1, 7}));
    EXPECT_EQ(ids.pieces({1, 7}), (Pieces{{1024, 4096}}));
    ids.overwritten({0, 1024}, kLater);
    ids.overwritten({5120, 512}, kLater);
    EXPECT_EQ(ids.pieces({1, 7}), (Pieces{{1024, 4096}}));
    ids.overwritten({0, 1536}, kLater);
    EXPECT_EQ(ids.pieces({1, 7}), (Pieces{{1536, 3584}}));
    ids.overwritten({2048, 512}, kLater);
    EXPECT_EQ(ids.pieces({1, 7}), (Pieces{{1536, 512}, {2560, 2560}}));
    AppliedIds third(table.get());
    EXPECT_EQ(third.pieces({1, 7}), (Pieces{{1536, 512}, {2560, 2560}}));
    third.overwritten({1536, 512}, kLater);
    EXPECT_EQ(third.pieces({1, 7}), (Pieces{{2560, 2560}}));
    third.overwritten({0, 65536}, kLater);
    EXPECT_EQ(third.pieces({1, 7}), std::nullopt);
    EXPECT_TRUE(third.applied({1, 7}));
}

TEST(AppliedIdsTest, WhatIsWrittenAgainIsOfItsPlaceInTheOrder) {
    auto table = std::make_unique<AppliedIds::Table>();
    {
        AppliedIds before(table.get());
        before.note_perhaps({1, 7}, {0, 1024});
        before.note_perhaps({2, 3}, {512, 1024});  // over a part of it, and interrupted as well
    }
    AppliedIds ids(table.get());
    ids.note_perhaps({1, 7}, {0, 1024});
    ids.overwritten({0, 1024}, {1, 7});
    EXPECT_TRUE(ids.applied({1, 7}));
    EXPECT_EQ(ids.pieces({2, 3}), (Pieces{{512, 1024}}));
}

TEST(AppliedIdsTest, WhatNotBothHaveAppliedIsPerhapsApplied) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.note_applied({1, 1}, {0, 512});
    ids.note_applied({1, 2}, {512, 512});
    ids.note_perhaps({1, 4}, {2048, 512});
    ids.agree({{{1, 2}, true, {512, 512}},
               {{1, 3}, true, {1024, 512}},
               {{1, 4}, true, {2048, 1024}},
               {{1, 5}, false, {4096, 512}},
               {{1, 5}, false, {8192, 512}}});
    EXPECT_EQ(ids.pieces({1, 1}), (Pieces{{0, 512}}));
    EXPECT_TRUE(ids.applied({1, 2}));
    EXPECT_EQ(ids.pieces({1, 3}), (Pieces{{1024, 512}}));
    EXPECT_EQ(ids.pieces({1, 4}), (Pieces{{2048, 512}}));
    EXPECT_EQ(ids.pieces({1, 5}), (Pieces{{4096, 512}, {8192, 512}}));
    ids.overwritten({0, 1024}, kLater);
    EXPECT_TRUE(ids.applied({1, 1}));
}

TEST(AppliedIdsTest, WhoJoinsKnowsWhatWasCopiedToIt) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.note_applied({1, 3}, {1024, 512});
    ids.note_perhaps({1, 4}, {2048, 512});  // under way
    ids.join({{{1, 1}, true, {0, 512}},
              {{1, 2}, false, {4096, 512}},
              {{1, 2}, false, {8192, 512}},
              {{1, 3}, true, {1024, 512}},
              {{1, 4}, true, {2048, 512}}});
    EXPECT_TRUE(ids.applied({1, 1}));
    EXPECT_EQ(ids.pieces({1, 2}), (Pieces{{4096, 512}, {8192, 512}}));
    EXPECT_TRUE(ids.applied({1, 3}));
    EXPECT_EQ(ids.pieces({1, 4}), (Pieces{{2048, 512}}));
}

TEST(AppliedIdsTest, OlderSequenceDoesNotTakeTheNewerOnesPlace) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.note_applied({1, 1 + AppliedIds::kWindow}, kSomewhere);
    ids.agree({{{1, 1}, true, kSomewhere}, {{1, 1 + AppliedIds::kWindow}, true, kSomewhere}});
    EXPECT_TRUE(ids.applied({1, 1 + AppliedIds::kWindow}));
    EXPECT_EQ(ids.pieces({1, 1}), std::nullopt);
}

TEST(ProposalBytes, ComeBackAsTheyWere) {
    Proposal proposal;
    proposal.proposer = ReplicaId(7);
    proposal.base_number = 3;
    proposal.next.volume = VolumeId(1);
    proposal.next.number = 4;
    proposal.next.primary = ReplicaId(7);
    proposal.next.members.push_back({ReplicaId(7), HostId(1), PoolId(2)});
    const auto bytes = encode(proposal);
    EXPECT_LE(bytes.size(), 640U);  // what a superblock has room for
    const auto back = decode_proposal(bytes);
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(back->proposer, proposal.proposer);
    EXPECT_EQ(back->base_number, 3U);
    EXPECT_EQ(back->next, proposal.next);
    for (std::size_t length = 0; length < bytes.size(); ++length)
        EXPECT_FALSE(decode_proposal(std::span(bytes).first(length))) << length;
}

// ---- tokens

struct Numbered {
    std::uint64_t token = 0;
};

TEST(SlabTest, NoTokenComesTwice) {
    Slab<Numbered, 5, 3> slab;  // 7 generations of each place
    std::set<std::uint64_t> seen;
    std::vector<Numbered*> kept;
    for (int i = 0; i < 5000; ++i) {
        Numbered& object = slab.make();
        ASSERT_TRUE(seen.insert(object.token).second) << i;
        EXPECT_TRUE((Slab<Numbered, 5, 3>::owns(object.token)));
        if (i % 100 == 0) {
            kept.push_back(&object);
        } else {
            slab.free(object);
        }
    }
    EXPECT_EQ(slab.count(), kept.size());
    // Tokens of objects that are gone find nothing; the others find theirs.
    std::size_t found = 0;
    for (const std::uint64_t token : seen) found += slab.find(token) == nullptr ? 0U : 1U;
    EXPECT_EQ(found, kept.size());
    for (Numbered* const object : kept) EXPECT_EQ(slab.find(object->token), object);
}

// ---- the client

struct Sent final : ClientEffects {
    void send_to_node(const Message& message) override { messages.push_back(message); }
    std::vector<Message> messages;
};

TEST(ClientTest, SendsAgainUnderTheSameIdWhatAPrimaryHandedBack) {
    Sent sent;
    Client client(VolumeId(1), 50, &sent);
    ClientRequest request;
    request.kind = OpKind::kWrite;
    request.range = {0, 512};
    static bool done = false;
    done = false;
    request.on_done = [](ClientRequest*) noexcept { done = true; };
    client.submit(request);
    EXPECT_TRUE(sent.messages.empty());  // no record yet
    client.set_record(record_of(1, 1), false);
    ASSERT_EQ(sent.messages.size(), 1U);
    Message moved = sent.messages[0];
    moved.type = MessageType::kMoved;
    moved.record = std::make_shared<const Membership>(record_of(2, 2));
    client.on_message(moved);
    ASSERT_EQ(sent.messages.size(), 2U);
    EXPECT_EQ(sent.messages[1].to, ReplicaId(2));
    EXPECT_EQ(sent.messages[1].number, 2U);
    EXPECT_EQ(sent.messages[1].id, sent.messages[0].id);
    EXPECT_EQ(sent.messages[1].id.client_start, 50U);
    Message answer = sent.messages[1];
    answer.type = MessageType::kAnswer;
    client.on_message(answer);
    EXPECT_TRUE(done);
    EXPECT_EQ(client.open(), 0U);
    client.on_message(answer);  // a second answer finds nobody
}

TEST(ClientTest, ChangeWaitsWhileOneThatIsAWindowOlderIsOpen) {
    Sent sent;
    Client client(VolumeId(1), 50, &sent);
    client.set_record(record_of(1, 1), false);
    std::vector<ClientRequest> requests(AppliedIds::kWindow + 1);
    for (ClientRequest& request : requests) {
        request.kind = OpKind::kWrite;
        request.range = {0, 512};
        request.on_done = [](ClientRequest*) noexcept {};
        client.submit(request);
    }
    EXPECT_EQ(sent.messages.size(), AppliedIds::kWindow);
    Message answer = sent.messages[5];
    answer.type = MessageType::kAnswer;
    client.on_message(answer);
    EXPECT_EQ(sent.messages.size(), AppliedIds::kWindow);  // the oldest is still open
    answer = sent.messages[0];
    answer.type = MessageType::kAnswer;
    client.on_message(answer);
    EXPECT_EQ(sent.messages.size(), AppliedIds::kWindow + 1);
    for (std::size_t i = 1; i < sent.messages.size(); ++i) {
        answer = sent.messages[i];
        answer.type = MessageType::kAnswer;
        if (i != 5) client.on_message(answer);
    }
    EXPECT_EQ(client.open(), 0U);
}

/// Under ids of a front end, as after a restart: the older ones come later (R8).
struct Ordered : ClientRequest {
    explicit Ordered(std::uint64_t sequence) {
        kind = OpKind::kWrite;
        range = {0, 512};
        id = {9, sequence};
        on_done = [](ClientRequest*) noexcept {};
    }
};

void answer(Client& client, const ClientRequest& request) {
    Message message;
    message.type = MessageType::kAnswer;
    message.volume = VolumeId(1);
    message.token = request.token;
    client.on_message(message);
}

TEST(ClientTest, ChangeWaitsForALowerSequenceThatCameLater) {
    Sent sent;
    Client client(VolumeId(1), 50, &sent);
    client.set_record(record_of(1, 1), false);
    Ordered newer(1000), oldest(1), next(1 + AppliedIds::kWindow), other(2000);
    client.submit(newer);
    client.submit(oldest);
    ASSERT_EQ(sent.messages.size(), 2U);
    client.submit(next);  // its id would take the place of the oldest one's, which is open
    EXPECT_EQ(sent.messages.size(), 2U);
    other.id.client_start = 10;
    client.submit(other);  // another client's sequences are no concern of these
    EXPECT_EQ(sent.messages.size(), 3U);
    answer(client, newer);
    EXPECT_EQ(sent.messages.size(), 3U);
    answer(client, oldest);
    ASSERT_EQ(sent.messages.size(), 4U);
    EXPECT_EQ(sent.messages.back().id, (RequestId{9, 1 + AppliedIds::kWindow}));
    answer(client, next);
    answer(client, other);
    EXPECT_EQ(client.open(), 0U);
}

TEST(ClientTest, LowerSequenceWaitsForOneThatIsAWindowNewer) {
    Sent sent;
    Client client(VolumeId(1), 50, &sent);
    client.set_record(record_of(1, 1), false);
    Ordered newest(5000), older(5000 - AppliedIds::kWindow), oldest(3000), same(5000), after(5001);
    client.submit(newest);
    client.submit(older);
    client.submit(oldest);
    client.submit(same);   // sent again while it is open
    client.submit(after);  // would keep the older ones waiting for ever
    EXPECT_EQ(sent.messages.size(), 1U);
    answer(client, newest);
    ASSERT_EQ(sent.messages.size(), 3U);
    EXPECT_EQ(sent.messages[1].id.sequence, 3000U);
    EXPECT_EQ(sent.messages[2].id.sequence, older.id.sequence);
    answer(client, older);
    EXPECT_EQ(sent.messages.size(), 3U);  // 2000 newer than the oldest
    answer(client, oldest);
    ASSERT_EQ(sent.messages.size(), 5U);
    EXPECT_EQ(sent.messages[3].id.sequence, 5000U);
    EXPECT_EQ(sent.messages[4].id.sequence, 5001U);
    answer(client, same);
    answer(client, after);
    EXPECT_EQ(client.open(), 0U);
}

// ---- nodes

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
        // Number 2 with the same primary.
        Message adopt;
        adopt.type = MessageType::kAdopt;
        adopt.volume = VolumeId(1);
        adopt.from = ReplicaId(1);
        adopt.to = ReplicaId(2);
        adopt.number = 2;
        adopt.record = std::make_shared<const Membership>(record_of(2, 1));
        pair.second.node.on_message(adopt);
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
    Message adopt;
    adopt.type = MessageType::kAdopt;
    adopt.volume = VolumeId(1);
    adopt.from = ReplicaId(1);
    adopt.to = ReplicaId(2);
    adopt.number = 2;
    adopt.record = std::make_shared<const Membership>(record_of(2, 1));
    pair.second.node.on_message(adopt);  // being stored
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

}  // namespace
}  // namespace ublkd::replication
