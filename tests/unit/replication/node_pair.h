// Two nodes of the core over effects that are written down: the ground of the tests of rules that
// one run of a volume never needs.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

inline Membership record_of(std::uint64_t number, std::uint64_t primary) {
    Membership record;
    record.volume = VolumeId(1);
    record.number = number;
    record.primary = ReplicaId(primary);
    record.members = {{ReplicaId(1), HostId(1), PoolId(1)}, {ReplicaId(2), HostId(1), PoolId(2)}};
    return record;
}

/// The first member's record, of which it is the primary, for the second.
inline Message invitation(const Membership& record) {
    Message adopt;
    adopt.type = MessageType::kAdopt;
    adopt.volume = VolumeId(1);
    adopt.from = ReplicaId(1);
    adopt.to = ReplicaId(2);
    adopt.number = record.number;
    adopt.record = std::make_shared<const Membership>(record);
    return adopt;
}

/// Written-down effects over a disk of 64 KiB; every disk request and store ends when complete() is
/// called, reads with `read_error` where one is set, all else well.
struct Fake final : Effects {
    static constexpr std::size_t kBytes = 64 * kKiB;

    explicit Fake(std::uint64_t id, bool durable_changes = false)
        : table(std::make_unique<AppliedIds::Table>()),
          ids(table.get()),
          node({.volume = VolumeId(1),
                .self = {ReplicaId(id), HostId(1), PoolId(id)},
                .size_bytes = kBytes,
                .durable_changes = durable_changes},
               this, &ids) {}
    void send(const Message& message) override { sent.push_back(message); }
    void disk(const DiskRequest& request) override {
        (holds_writes && request.kind == OpKind::kWrite ? held : disks).push_back(request);
    }
    void store(const StoreRequest& request) override {
        stores.push_back(request.token);
        lost_stored = request.lost;
        left_by = request.left_by == nullptr ? 0 : request.left_by->number;
        if (request.pending != nullptr) pending_stored = request.pending->has_value();
    }
    void extent(std::uint64_t token, Range) override { extents.push_back(token); }
    RegionSet activity() override { return active; }
    void clear_activity(const RegionSet& regions, std::uint64_t) override { cleared = regions; }
    void mark(std::uint64_t through) override { marks.push_back(through); }
    UnitSet dirty(ReplicaId) override { return units; }
    void acquire_buffer(std::uint64_t token, std::size_t bytes) override {
        memory.emplace_back(bytes);
        buffers.emplace_back(token, &memory.back());
    }
    void release_buffer(std::uint32_t) override {}
    void propose(const Proposal& proposal) override { proposals.push_back(proposal); }
    void ask_authority() override { ++asked; }
    void start_timer(TimerKind, std::uint32_t) override {}
    void notice(const Notice& notice) override {
        if (notice.kind == Notice::Kind::kLost) lost.push_back(notice.cause.code);
    }
    void complete() {
        while (!disks.empty() || !stores.empty() || !buffers.empty() || !marks.empty()) {
            for (const std::uint64_t through : std::exchange(marks, {}))
                node.on_marked(through, {});
            for (const std::uint64_t token : std::exchange(stores, {})) node.on_stored(token, {});
            for (const DiskRequest& request : std::exchange(disks, {})) {
                node.on_disk(request.token, carry_out(request));
            }
            for (const auto& [token, bytes] : std::exchange(buffers, {}))
                node.on_buffer(token, {.bytes = *bytes, .handle = 0});
        }
    }
    Result<void> carry_out(const DiskRequest& request) {
        if (request.kind == OpKind::kFlush) return {};
        if (request.kind == OpKind::kCut) {
            if (cut_error) return fail(*cut_error);
            cuts[request.cut] = content;
            return {};
        }
        const auto at =
            std::span(content).subspan(request.range.offset_bytes, request.range.length_bytes);
        if (request.kind == OpKind::kRead) {
            if (read_error) return fail(*read_error);
            std::copy(at.begin(), at.end(), request.into.begin());
        } else if (write_error) {
            return fail(*write_error);
        } else if (request.kind == OpKind::kWrite) {
            std::copy(request.data.begin(), request.data.end(), at.begin());
            if (keeps_wrong) at.front() ^= std::byte{1};
        } else {
            std::fill(at.begin(), at.end(), std::byte{});
        }
        return {};
    }

    /// What a process leaves to the next one of its boot.
    void inherit(const Fake& before) {
        content = before.content;
        *table = *before.table;
        ids = AppliedIds(table.get());
    }

    std::unique_ptr<AppliedIds::Table> table;
    AppliedIds ids;
    Node node;
    std::vector<Message> sent;
    std::vector<DiskRequest> disks;
    bool holds_writes = false;
    std::vector<DiskRequest> held;  // by a disk that has not begun with them
    std::vector<std::byte> content = std::vector<std::byte>(kBytes);
    NodeStart found{};  // what the superblock says at the start
    std::optional<Error> read_error;
    std::optional<Error> write_error;
    std::optional<Error> cut_error;
    std::map<std::uint64_t, std::vector<std::byte>> cuts;  // what was preserved, by name
    bool keeps_wrong = false;  // the disk has other content than what it was given
    std::vector<std::uint64_t> stores;
    std::vector<std::uint64_t> marks;
    UnitSet units;
    LostMembers lost_stored{};
    std::vector<std::pair<std::uint64_t, std::vector<std::byte>*>> buffers;
    std::deque<std::vector<std::byte>> memory;
    std::vector<Proposal> proposals;
    RegionSet active;
    RegionSet cleared;
    std::vector<std::uint64_t> extents;
    std::vector<Errc> lost;
    bool pending_stored = false;
    std::uint64_t left_by = 0;  // the number of the record in the superblock (R16)
    int asked = 0;
};

/// Two nodes under number 1, the first serving.
struct Pair {
    explicit Pair(bool durable_changes = false)
        : first(1, durable_changes), second(2, durable_changes) {
        start();
        exchange();
    }
    explicit Pair(const Membership& record) : first(1), second(2) {
        start(record);
        exchange();
    }
    /// What an earlier process left is set by `left_behind`; both are started, and nothing was
    /// handed over yet.
    explicit Pair(void (*left_behind)(Pair& pair)) : first(1), second(2) {
        left_behind(*this);
        start();
    }
    void start(const Membership& record = record_of(1, 1)) {
        for (Fake* const fake : {&first, &second}) {
            fake->found.record = record;
            fake->found.in_sync = true;
            fake->node.start(fake->found);
        }
        second.node.begin(record, {});
        first.node.begin(record, {});
    }
    ~Pair() { faults::disarm_all(); }
    /// Hands over all messages between the two, and completes all of their requests, until nothing
    /// is left.
    void exchange() {
        for (bool more = true; more;) {
            more = false;
            for (Fake* const from : {&first, &second}) {
                from->complete();
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

    Fake first;
    Fake second;
    std::vector<Message> to_client;
    std::array<std::byte, 4096> memory{};
};

/// Two nodes; the second joins the first, the only member, and its copy has ended: the proposal
/// that adds it is sent.
struct Joining {
    explicit Joining(void (*left)(Joining&) = [](Joining&) {}) {
        left(*this);
        Membership record = record_of(1, 1);
        record.members.pop_back();
        first.found.record = record;
        first.found.in_sync = true;
        first.node.start(first.found);
        first.node.begin(record, {});
        first.complete();
        second.node.start(second.found);
        if (writes_before) {
            first.holds_writes = true;
            std::fill(memory.begin(), memory.end(), std::byte{7});
            first.node.on_message(Pair::request(OpKind::kWrite, 1, 1, memory));
            first.complete();
        }
        CHECK(first.node.add({ReplicaId(2), HostId(1), PoolId(2)}), "it serves");
        exchange();
        first.holds_writes = false;
        first.disks = std::exchange(first.held, {});
        exchange();
    }
    void exchange() {
        for (bool more = true; more;) {
            more = false;
            for (Fake* const from : {&first, &second}) {
                from->complete();
                for (const std::uint64_t token : std::exchange(from->extents, {})) {
                    from->node.on_extent(
                        token, block::Extent{.length_bytes = 64 * kKiB, .allocated = !hole});
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
    bool hole = true;            // what is copied
    bool writes_before = false;  // of a write that the disk does after the copy has begun
    std::vector<Message> to_client;
    std::array<std::byte, 4096> memory{};
};

}  // namespace ublkd::replication
