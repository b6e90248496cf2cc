// What a replica knows of itself: whose it is, under which number and record it was last a member,
// in which boot it ran and whether it was closed in order. Two copies of 4 KiB in the file
// `superblock`; an update writes the copy that does not hold the newest state, so a torn write
// leaves the older one. Values alone; replica_store.h does the I/O. Bytes: docs/format-replica.md.
// Meaning of the fields: docs/replication.md (R1, R4, R9, R10).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ublkd/base/check.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/base/units.h"

namespace ublkd::store {

inline constexpr std::uint32_t kSuperblockVersion = 2;
inline constexpr std::size_t kSuperblockBytes = kPageBytes;  // of one copy
using BootId = std::array<std::byte, 16>;

/// Bytes of replication's that the store keeps without reading them: up to `kCapacity`, trivially
/// copyable, so that they may be coroutine arguments.
template <std::size_t kCapacity>
class OpaqueBytes {
  public:
    OpaqueBytes() = default;
    explicit OpaqueBytes(std::span<const std::byte> bytes)
        : length_(static_cast<std::uint16_t>(bytes.size())) {
        CHECK(bytes.size() <= kCapacity, "fits its place in the superblock");
        std::copy(bytes.begin(), bytes.end(), bytes_.begin());
    }
    std::span<const std::byte> span() const { return std::span(bytes_).first(length_); }
    bool empty() const { return length_ == 0; }
    std::size_t size() const { return length_; }
    friend bool operator==(const OpaqueBytes& a, const OpaqueBytes& b) {
        return std::ranges::equal(a.span(), b.span());
    }

  private:
    std::array<std::byte, kCapacity> bytes_{};
    std::uint16_t length_ = 0;
};

using RecordBytes = OpaqueBytes<512>;    // encoded replication::Membership (kMaxRecordBytes)
using ProposalBytes = OpaqueBytes<640>;  // an encoded proposal: the record and its base

/// R11: a member that was lost, for which a dirty map is kept: the map in place i of the file is
/// that of entry i.
struct LostReplica {
    ReplicaId replica;          // none: a free place
    std::uint64_t number = 0;   // of the record without it
    std::uint64_t through = 0;  // R10: activity bits were cleared for this mark
    friend bool operator==(const LostReplica&, const LostReplica&) = default;
};
inline constexpr std::size_t kDirtyMaps = 2;
using LostReplicas = std::array<LostReplica, kDirtyMaps>;

struct Superblock {
    VolumeId volume;
    ReplicaId incarnation;
    std::uint64_t size_bytes = 0;
    bool buffered = false;     // the data file is used without O_DIRECT (pool of --buffered)
    std::uint64_t number = 0;  // of `record`; 0 and no record: never a member
    RecordBytes record;
    ProposalBytes pending;  // R4: stored before it is sent; empty: none
    BootId boot_id{};       // in which this replica was last used
    bool clean = false;     // closed in order: everything is durable, the allocated map is exact
    std::uint64_t durable_through = 0;  // R10: what all members had flushed at this mark is durable
    std::uint64_t cleared_through = 0;  // R10: and the mark for which activity bits were cleared
    LostReplicas lost{};
    RecordBytes left_by;  // R16: a record newer than `record` without this replica; empty: none
    friend bool operator==(const Superblock&, const Superblock&) = default;
};

/// What update_superblock() changes; the rest stays as it is.
struct SuperblockChange {
    std::optional<std::uint64_t> number{};
    std::optional<RecordBytes> record{};
    std::optional<ProposalBytes> pending{};  // an empty one clears it
    std::optional<BootId> boot_id{};
    std::optional<bool> clean{};
    std::optional<std::uint64_t> durable_through{};
    std::optional<std::uint64_t> cleared_through{};
    std::optional<LostReplicas> lost{};
    std::optional<RecordBytes> left_by{};
};

/// One copy as read from disk.
struct SuperblockCopy {
    Superblock value;
    std::uint64_t sequence = 0;  // counts the updates; the greater of two valid copies counts
};

using SuperblockPage = std::span<std::byte, kSuperblockBytes>;

/// Fills the whole of `page`. `copy`: 0 or 1, where it will be written.
void encode_superblock(const SuperblockCopy& from, std::uint32_t copy, SuperblockPage page);
/// Checks magic, checksum, version, own location (`copy`) and that it is `incarnation`'s. Errors:
/// kCorrupt; kUnsupported where a valid copy has another version (a newer ublkd wrote it): then the
/// other copy must not be used either.
Result<SuperblockCopy> decode_superblock(std::span<const std::byte, kSuperblockBytes> page,
                                         std::uint32_t copy, ReplicaId incarnation);

}  // namespace ublkd::store
