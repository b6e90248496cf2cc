// Goal: the parts of the core by themselves: range locks (R3), applied ids (R8), the client.
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
        before.note_perhaps({1, 7}, {1024, 4096}, {1024, 4096});
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
        before.note_perhaps({1, 7}, {0, 1024}, {0, 1024});
        before.note_perhaps({2, 3}, {512, 1024},
                            {512, 1024});  // over a part of it, and interrupted as well
    }
    AppliedIds ids(table.get());
    ids.note_perhaps({1, 7}, {0, 1024}, {0, 1024});
    ids.overwritten({0, 1024}, {1, 7});
    EXPECT_TRUE(ids.applied({1, 7}));
    EXPECT_EQ(ids.pieces({2, 3}), (Pieces{{512, 1024}}));
}

TEST(AppliedIdsTest, WhatIsSaidOfARangeGoesWithItsContent) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.note_applied({1, 1}, {0, 1024});
    ids.note_applied({1, 2}, {1024, 1024});
    ids.note_perhaps({1, 3}, {0, 4096}, {0, 4096});
    ids.note_applied({1, 5}, {8192, 512});
    ids.take_stock();
    const IdList there{{{1, 2}, true, {1024, 1024}},
                       {{1, 3}, false, {0, 4096}, {1024, 512}},
                       {{1, 3}, false, {0, 4096}, {3072, 1024}},
                       {{1, 4}, true, {0, 512}},
                       {{1, 6}, false, {512, 2048}, {512, 512}}};
    ids.may_be_copied({0, 2048}, there);  // now either content may be here
    EXPECT_EQ(ids.pieces({1, 1}), (Pieces{{0, 1024}}));
    EXPECT_TRUE(ids.applied({1, 2}));
    EXPECT_EQ(ids.pieces({1, 3}), (Pieces{{0, 4096}}));
    EXPECT_EQ(ids.pieces({1, 4}), (Pieces{{0, 512}}));
    EXPECT_EQ(ids.pieces({1, 6}), (Pieces{{512, 2048}}));
    ids.copied({0, 2048}, there);
    EXPECT_EQ(ids.pieces({1, 1}), (Pieces{{0, 1024}}));  // nothing of it is in what was copied
    EXPECT_TRUE(ids.applied({1, 2}));
    EXPECT_EQ(ids.pieces({1, 3}), (Pieces{{1024, 512}, {2048, 2048}}));
    EXPECT_TRUE(ids.applied({1, 4}));
    EXPECT_EQ(ids.pieces({1, 6}), (Pieces{{512, 512}, {2048, 512}}));
    ids.may_be_copied({2048, 2048}, there);
    ids.copied({2048, 2048}, there);
    EXPECT_EQ(ids.pieces({1, 3}), (Pieces{{1024, 512}, {3072, 1024}}));
    EXPECT_EQ(ids.pieces({1, 6}), (Pieces{{512, 512}}));
    EXPECT_TRUE(ids.applied({1, 5}));
    ids.overwritten({0, 1024}, kLater);
    EXPECT_TRUE(ids.applied({1, 1}));
    EXPECT_TRUE(ids.applied({1, 6}));
    EXPECT_EQ(ids.about({8192, 1}).size(), 1U);
}

TEST(AppliedIdsTest, WhoTakesOverSaysInWhichOrderTheyWereNoted) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    constexpr Range kAll{0, 1024};
    for (const std::uint64_t sequence : {4U, 1U, 2U}) ids.note_perhaps({1, sequence}, kAll, kAll);
    ids.agree({{{1, 1}, false, kAll, kAll},
               {{1, 3}, false, kAll, {512, 512}},
               {{1, 2}, false, kAll, kAll}});
    const IdList list = ids.list();
    ASSERT_EQ(list.size(), 4U);
    const std::uint64_t expected[] = {1, 3, 2, 4};
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(list[i].id.sequence, expected[i]) << i;
    EXPECT_EQ(ids.pieces({1, 3}), (Pieces{kAll}));  // nothing of it is here
    ids.overwritten(kAll, {1, 3});
    EXPECT_TRUE(ids.applied({1, 1}));
    EXPECT_EQ(ids.pieces({1, 2}), (Pieces{kAll}));
}

TEST(AppliedIdsTest, WhoJoinsKnowsWhatWasCopiedToIt) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.note_applied({1, 3}, {1024, 512});
    ids.note_perhaps({1, 4}, {2048, 512}, {2048, 512});  // under way
    ids.join({{{1, 1}, true, {0, 512}},
              {{1, 2}, false, {4096, 8192}, {4096, 512}},
              {{1, 2}, false, {4096, 8192}, {8192, 512}},
              {{1, 3}, true, {1024, 512}},
              {{1, 4}, true, {2048, 512}}});
    EXPECT_TRUE(ids.applied({1, 1}));
    EXPECT_EQ(ids.pieces({1, 2}), (Pieces{{4096, 512}, {8192, 512}}));
    EXPECT_TRUE(ids.applied({1, 3}));
    EXPECT_EQ(ids.pieces({1, 4}), (Pieces{{2048, 512}}));
}

/// Found by the simulation (hosts_snapshots 201385): what came between the list and its arrival.
TEST(AppliedIdsTest, WhoJoinsLeavesOutWhatWasWrittenHereOverWhatItHearsOf) {
    const NotedId doubt{{1, 1}, false, {0, 2048}, {0, 2048}};
    const NotedId over{{2, 1}, false, {512, 512}, {512, 512}};
    for (const bool in_order : {true, false}) {
        auto table = std::make_unique<AppliedIds::Table>();
        AppliedIds ids(table.get());
        ids.note_perhaps({2, 1}, {512, 512}, {512, 512});
        ids.overwritten({512, 512}, {2, 1});
        ids.note_applied({2, 1}, {512, 512});
        ids.note_perhaps({3, 1}, {1024, 512}, {1024, 512});  // under way, and not in the list
        ids.join(in_order ? IdList{doubt, over} : IdList{over, doubt});
        const std::vector<Range> left =
            in_order ? std::vector<Range>{{0, 512}, {1024, 1024}} : std::vector<Range>{{0, 2048}};
        EXPECT_EQ(ids.pieces({1, 1}), left) << in_order;
        EXPECT_TRUE(ids.applied({2, 1}));
        ids.overwritten({1024, 512}, {3, 1});
        ids.note_applied({3, 1}, {1024, 512});
        std::uint64_t left_bytes = 0;
        const auto pieces = ids.pieces({1, 1});
        for (const Range& piece : *pieces) {
            left_bytes += piece.length_bytes;
            EXPECT_FALSE(piece.overlaps(Range{1024, 512})) << "it comes after all of the list";
        }
        EXPECT_EQ(left_bytes, in_order ? 1024U : 1536U);
    }
}

TEST(AppliedIdsTest, OlderSequenceDoesNotTakeTheNewerOnesPlace) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.note_applied({1, 1 + AppliedIds::kWindow}, kSomewhere);
    ids.copied(kSomewhere, {{{1, 1}, false, kSomewhere, kSomewhere},
                            {{1, 1 + AppliedIds::kWindow}, true, kSomewhere}});
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

/// A copy that ends begins the next one in such a loop, and the slab may be full.
TEST(SlabTest, ObjectsAreMadeWhileAllAreLookedAt) {
    Slab<Numbered, 5> slab;
    constexpr int kObjects = 64 * 3;  // all places of some chunks
    for (int i = 0; i < kObjects; ++i) slab.make();
    int seen = 0;
    slab.for_each([&](const Numbered& object) {
        EXPECT_NE(object.token, 0U);
        if (seen++ < kObjects) slab.make();
    });
    EXPECT_EQ(slab.count(), 2U * kObjects);
    EXPECT_EQ(seen, 2 * kObjects);
}

// ---- the client

struct Sent final : ClientEffects {
    void send_to_node(const Message& message) override { messages.push_back(message); }
    std::vector<Message> messages;
};

TEST(ClientTest, SendsAgainUnderTheSameIdWhatAPrimaryHandedBack) {
    Sent sent;
    Client client({.volume = VolumeId(1), .client_start = 50}, &sent);
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
    Client client({.volume = VolumeId(1), .client_start = 50}, &sent);
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
    Client client({.volume = VolumeId(1), .client_start = 50}, &sent);
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
    Client client({.volume = VolumeId(1), .client_start = 50}, &sent);
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

}  // namespace
}  // namespace ublkd::replication
