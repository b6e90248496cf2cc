// Goal: the parts of the core by themselves, and the rules that one process alone never needs: a
// primary that was replaced without knowing it, messages of another number, volume or incarnation.
// Method: nodes over effects that are written down.
#include <gtest/gtest.h>

#include <deque>

#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/client.h"
#include "ublkd/replication/node.h"

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

// ---- R8

TEST(AppliedIdsTest, RemembersTheWindowOfEachClientAndForgetsTheOldestClient) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    EXPECT_FALSE(ids.knows({1, 1}));
    for (std::uint64_t i = 1; i <= AppliedIds::kWindow + 10; ++i) ids.insert({1, i});
    EXPECT_FALSE(ids.knows({1, 10}));
    EXPECT_TRUE(ids.knows({1, 11}));
    EXPECT_FALSE(ids.knows({2, 11}));
    for (std::uint64_t client = 2; client <= AppliedIds::kClients; ++client)
        ids.insert({client, 1});
    EXPECT_TRUE(ids.knows({1, 11}));
    ids.insert({99, 1});
    EXPECT_FALSE(ids.knows({1, 11}));
    EXPECT_TRUE(ids.knows({2, 1}));
    AppliedIds again(table.get());  // the next process finds them
    EXPECT_TRUE(again.knows({99, 1}));
    again.erase({99, 1});
    EXPECT_FALSE(again.knows({99, 1}));
    EXPECT_FALSE(again.knows({0, 0}));
}

TEST(AppliedIdsTest, KeepsOnlyWhatBothHave) {
    auto table = std::make_unique<AppliedIds::Table>();
    AppliedIds ids(table.get());
    ids.insert({1, 1});
    ids.insert({1, 2});
    const std::vector<RequestId> other{{1, 2}, {1, 3}};
    ids.keep_only(other);
    EXPECT_FALSE(ids.knows({1, 1}));
    EXPECT_TRUE(ids.knows({1, 2}));
    EXPECT_FALSE(ids.knows({1, 3}));
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

// ---- the client

struct Sent final : ClientEffects {
    void send_to_node(const Message& message) override { messages.push_back(message); }
    std::vector<Message> messages;
};

Membership record_of(std::uint64_t number, std::uint64_t primary) {
    Membership record;
    record.volume = VolumeId(1);
    record.number = number;
    record.primary = ReplicaId(primary);
    record.members = {{ReplicaId(1), HostId(1), PoolId(1)}, {ReplicaId(2), HostId(1), PoolId(2)}};
    return record;
}

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

// ---- nodes

/// Written-down effects; every disk request and store succeeds when complete() is called.
struct Fake final : Effects {
    explicit Fake(std::uint64_t id)
        : table(std::make_unique<AppliedIds::Table>()),
          ids(table.get()),
          node({.volume = VolumeId(1),
                .self = {ReplicaId(id), HostId(1), PoolId(id)},
                .size_bytes = 64 * kKiB},
               this, &ids) {}
    void send(const Message& message) override { sent.push_back(message); }
    void disk(const DiskRequest& request) override { disks.push_back(request); }
    void store(const StoreRequest& request) override {
        stores.push_back(request.token);
        if (request.pending != nullptr) pending_stored = request.pending->has_value();
    }
    void extent(std::uint64_t token, Range) override { extents.push_back(token); }
    RegionSet activity() override { return {}; }
    void clear_activity(const RegionSet& regions) override { cleared = regions; }
    void acquire_buffer(std::uint64_t token, std::size_t bytes) override {
        memory.emplace_back(bytes);
        buffers.push_back(token);
    }
    void release_buffer(std::uint32_t) override {}
    void propose(const Proposal& proposal) override { proposals.push_back(proposal); }
    void ask_authority() override { ++asked; }
    void start_timer(TimerKind, std::uint32_t) override {}
    void notice(const Notice& notice) override {
        if (notice.kind == Notice::Kind::kLost) lost.push_back(notice.cause.code);
    }
    void complete() {
        while (!disks.empty() || !stores.empty() || !buffers.empty()) {
            for (const std::uint64_t token : std::exchange(stores, {})) node.on_stored(token, {});
            for (const DiskRequest& request : std::exchange(disks, {}))
                node.on_disk(request.token, {});
            for (const std::uint64_t token : std::exchange(buffers, {}))
                node.on_buffer(token, {.bytes = memory.back(), .handle = 0});
        }
    }

    std::unique_ptr<AppliedIds::Table> table;
    AppliedIds ids;
    Node node;
    std::vector<Message> sent;
    std::vector<DiskRequest> disks;
    std::vector<std::uint64_t> stores;
    std::vector<std::uint64_t> buffers;
    std::deque<std::vector<std::byte>> memory;
    std::vector<Proposal> proposals;
    RegionSet cleared;
    std::vector<std::uint64_t> extents;
    std::vector<Errc> lost;
    bool pending_stored = false;
    int asked = 0;
};

/// Two nodes under number 1, the first serving.
struct Pair {
    Pair() {
        const Membership record = record_of(1, 1);
        for (Fake* const fake : {&first, &second})
            fake->node.start({.record = record, .pending = {}, .in_sync = true});
        second.node.begin(record, {});
        first.node.begin(record, {});
        exchange();
    }
    ~Pair() { faults::disarm_all(); }
    /// Hands over all messages between the two, and completes all of their requests, until nothing
    /// is left.
    void exchange() {
        for (bool more = true; more;) {
            more = false;
            for (Fake* const from : {&first, &second}) {
                from->complete();
                std::vector<Message> keep;
                for (const Message& message : std::exchange(from->sent, {})) {
                    if (!message.to) {
                        to_client.push_back(message);
                        continue;
                    }
                    more = true;
                    (message.to == ReplicaId(1) ? first : second).node.on_message(message);
                }
            }
        }
    }
    static Message request(OpKind kind, std::uint64_t to, std::uint64_t number,
                           std::span<std::byte> memory) {
        Message message;
        message.type = MessageType::kRequest;
        message.kind = kind;
        message.volume = VolumeId(1);
        message.to = ReplicaId(to);
        message.number = number;
        message.token = 77;
        message.range = {0, memory.size()};
        message.id = kind == OpKind::kRead ? RequestId{} : RequestId{5, 1};
        message.data = memory;
        message.into = memory;
        return message;
    }
    /// The second becomes primary under number 2, and the first is not told (it was stopped).
    void replace_first() {
        second.node.replace_primary(record_of(1, 1), {ReplicaId(1)});
        second.complete();
        ASSERT_EQ(second.proposals.size(), 1U);
        const Membership next = second.proposals[0].next;
        second.node.on_outcome(Verdict::kAuthorized, &next);
        second.complete();
        ASSERT_EQ(second.node.role(), Role::kServing);
    }

    Fake first{1};
    Fake second{2};
    std::vector<Message> to_client;
    std::array<std::byte, 4096> memory{};
};

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

/// Two nodes; the second joins the first, the only member, and its copy has ended: the proposal
/// that adds it is sent.
struct Joining {
    Joining() {
        Membership record = record_of(1, 1);
        record.members.pop_back();
        first.node.start({.record = record, .pending = {}, .in_sync = true});
        first.node.begin(record, {});
        first.complete();
        second.node.start({});
        CHECK(first.node.add({ReplicaId(2), HostId(1), PoolId(2)}), "it serves");
        exchange();
    }
    void exchange() {
        for (bool more = true; more;) {
            more = false;
            for (Fake* const from : {&first, &second}) {
                from->complete();
                for (const std::uint64_t token : std::exchange(from->extents, {})) {
                    from->node.on_extent(
                        token, block::Extent{.length_bytes = 64 * kKiB, .allocated = false});
                    more = true;
                }
                for (const Message& message : std::exchange(from->sent, {})) {
                    if (!message.to) {
                        to_client.push_back(message);
                    } else if (message.to == ReplicaId(1) || second_hears) {
                        (message.to == ReplicaId(1) ? first : second).node.on_message(message);
                    }
                    more = true;
                }
            }
        }
    }
    Fake first{1};
    Fake second{2};
    bool second_hears = true;
    std::vector<Message> to_client;
    std::array<std::byte, 4096> memory{};
};

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
