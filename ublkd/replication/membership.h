// The membership record of a volume: which replicas are members (in sync, and all needed to
// acknowledge), which one is primary, under which number; kept by the authority (metadata/), stored
// by each member in its superblock, carried in messages. And the authority's decision over it
// (replication R4), which metadata/ runs as a compare-and-set. Plain values; no thread. Binary
// form: docs/format-replica.md. Protocol: docs/replication.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"

namespace ublkd::replication {

inline constexpr std::size_t kMaxMembers = 3;
inline constexpr std::size_t kMaxAttachments = 16;

struct Member {
    ReplicaId replica;  // the incarnation
    HostId host;
    PoolId pool;
    friend bool operator==(const Member&, const Member&) = default;
};

struct Membership {
    VolumeId volume;
    std::uint64_t number = 0;       // sequence number; the first record has 1
    std::uint64_t loss_count = 0;   // R9: how often unflushed writes may have been lost
    bool data_may_be_lost = false;  // R5, R16: the permanent mark that a force leaves
    ReplicaId primary;
    std::vector<Member> members;            // 1 to kMaxMembers; the primary is one of them
    std::vector<AttachmentId> attachments;  // tokens of who may send I/O (R15)
    friend bool operator==(const Membership&, const Membership&) = default;

    const Member* find(ReplicaId replica) const;
    bool has(ReplicaId replica) const { return find(replica) != nullptr; }
};

/// At most kMaxRecordBytes. decode() refuses what it cannot read whole (kCorrupt) and records that
/// contradict themselves.
inline constexpr std::size_t kMaxRecordBytes = 512;
std::vector<std::byte> encode(const Membership& record);
Result<Membership> decode_membership(std::span<const std::byte> bytes);

/// kInvalidArgument, with what is wrong, unless the record could be authorized: a volume, 1 to 3
/// distinct members, the primary among them, at most 16 distinct attachments.
Result<void> validate(const Membership& record);

struct Proposal {
    ReplicaId proposer;  // must be a member of the current record
    std::uint64_t base_number =
        0;            // the number that the proposer holds; 0: the volume has no record yet
    Membership next;  // next.number must be base_number + 1
};

enum class Verdict : std::uint8_t {
    kAuthorized,    // store `next`, then answer
    kAlreadyYours,  // the very same record is current: an earlier answer was lost
    kDeclined,  // not greater than the greatest, or another base, or the proposer or the primary
                // is no member, or a replica is added that may not be hosted
    kBarred,    // its base is current, but it adds a replica that never joins anything again:
                // declined for ever
};

/// The proposal's record is the current one.
constexpr bool accepted(Verdict verdict) {
    return verdict == Verdict::kAuthorized || verdict == Verdict::kAlreadyYours;
}

/// What the authority answers to `proposal` when `current` is what it stores (nullopt: nothing
/// yet). Pure: who is barred or may not be hosted only the authority knows.
Verdict decide(const std::optional<Membership>& current, const Proposal& proposal);

/// R16: what a host answers when a restored authority asks: the records of its replicas'
/// superblocks (also those by which they left) and nodes, and proposals without an outcome. With
/// the answer it promises to listen to nothing that the store said before it was restored.
struct HostReport {
    HostId host;
    std::vector<Membership> records;
    std::vector<Proposal> pending;
};
/// Numbers of generation g begin at g times this.
inline constexpr std::uint64_t kGenerationNumbers = std::uint64_t{1} << 32;

/// The record with which an authority goes on that was restored to `restored`: the newest one that
/// was reported, when all hosts have reported that its members live on, or those of a proposal over
/// it, which may have been authorized and stored there; nullopt: not yet. Its number is greater
/// than all of earlier generations, so that nothing that was authorized and then lost with the
/// store can be taken for it. `generation`: of the restored store, greater than any before. Pure.
std::optional<Membership> thawed(const Membership& restored, std::uint64_t generation,
                                 std::span<const HostReport> reports);

}  // namespace ublkd::replication
