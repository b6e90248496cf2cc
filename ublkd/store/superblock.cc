#include "ublkd/store/superblock.h"

#include <cstring>

#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::store {
namespace {

// docs/format-replica.md, "superblock".
constexpr std::array kMagic{std::byte{'U'}, std::byte{'B'}, std::byte{'L'}, std::byte{'K'},
                            std::byte{'D'}, std::byte{'S'}, std::byte{'B'}, std::byte{'\n'}};
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kChecksumAt = 12;
constexpr std::size_t kSequenceAt = 16;
constexpr std::size_t kCopyAt = 24;
constexpr std::size_t kFlagsAt = 28;
constexpr std::size_t kVolumeAt = 32;
constexpr std::size_t kIncarnationAt = 40;
constexpr std::size_t kSizeAt = 48;
constexpr std::size_t kNumberAt = 56;
constexpr std::size_t kDurableThroughAt = 64;
constexpr std::size_t kBootIdAt = 72;
constexpr std::size_t kRecordLengthAt = 88;
constexpr std::size_t kPendingLengthAt = 90;
constexpr std::size_t kLeftByLengthAt = 92;
constexpr std::size_t kClearedThroughAt = 96;
constexpr std::size_t kLostAt = 104;  // kDirtyMaps times replica, number, through
constexpr std::size_t kLostBytes = 24;
constexpr std::size_t kRecordAt = 256;
static_assert(kLostAt + kDirtyMaps * kLostBytes <= kRecordAt);
constexpr std::size_t kRecordCapacity = 512;
constexpr std::size_t kPendingAt = kRecordAt + kRecordCapacity;
constexpr std::size_t kPendingCapacity = 640;
constexpr std::size_t kLeftByAt = kPendingAt + kPendingCapacity;
static_assert(kLeftByAt + kRecordCapacity <= kSuperblockBytes);

constexpr std::uint32_t kFlagClean = 1;
constexpr std::uint32_t kFlagBuffered = 2;

/// The checksum of the page with its own field taken as zero.
std::uint32_t checksum(std::span<const std::byte, kSuperblockBytes> page) {
    constexpr std::array<std::byte, 4> kZero{};
    std::uint32_t crc = crc32c(page.first(kChecksumAt));
    crc = crc32c(kZero, crc);
    return crc32c(page.subspan(kChecksumAt + 4), crc);
}

}  // namespace

void encode_superblock(const SuperblockCopy& from, std::uint32_t copy, SuperblockPage page) {
    const Superblock& value = from.value;
    std::memset(page.data(), 0, page.size());
    std::byte* const at = page.data();
    std::memcpy(at, kMagic.data(), kMagic.size());
    store_le<std::uint32_t>(at + kVersionAt, kSuperblockVersion);
    store_le<std::uint64_t>(at + kSequenceAt, from.sequence);
    store_le<std::uint32_t>(at + kCopyAt, copy);
    const std::uint32_t flags =
        (value.clean ? kFlagClean : 0) | (value.buffered ? kFlagBuffered : 0);
    store_le<std::uint32_t>(at + kFlagsAt, flags);
    store_le<std::uint64_t>(at + kVolumeAt, value.volume.value());
    store_le<std::uint64_t>(at + kIncarnationAt, value.incarnation.value());
    store_le<std::uint64_t>(at + kSizeAt, value.size_bytes);
    store_le<std::uint64_t>(at + kNumberAt, value.number);
    store_le<std::uint64_t>(at + kDurableThroughAt, value.durable_through);
    store_le<std::uint64_t>(at + kClearedThroughAt, value.cleared_through);
    for (std::size_t i = 0; i < kDirtyMaps; ++i) {
        std::byte* const entry = at + kLostAt + i * kLostBytes;
        store_le<std::uint64_t>(entry, value.lost[i].replica.value());
        store_le<std::uint64_t>(entry + 8, value.lost[i].number);
        store_le<std::uint64_t>(entry + 16, value.lost[i].through);
    }
    std::memcpy(at + kBootIdAt, value.boot_id.data(), value.boot_id.size());
    store_le<std::uint16_t>(at + kRecordLengthAt, static_cast<std::uint16_t>(value.record.size()));
    store_le<std::uint16_t>(at + kPendingLengthAt,
                            static_cast<std::uint16_t>(value.pending.size()));
    store_le<std::uint16_t>(at + kLeftByLengthAt, static_cast<std::uint16_t>(value.left_by.size()));
    std::ranges::copy(value.record.span(), at + kRecordAt);
    std::ranges::copy(value.left_by.span(), at + kLeftByAt);
    std::ranges::copy(value.pending.span(), at + kPendingAt);
    store_le<std::uint32_t>(at + kChecksumAt, checksum(page));
}

Result<SuperblockCopy> decode_superblock(std::span<const std::byte, kSuperblockBytes> page,
                                         std::uint32_t copy, ReplicaId incarnation) {
    const std::byte* const at = page.data();
    if (std::memcmp(at, kMagic.data(), kMagic.size()) != 0)
        return fail(Errc::kCorrupt, "superblock: magic");
    if (load_le<std::uint32_t>(at + kChecksumAt) != checksum(page))
        return fail(Errc::kCorrupt, "superblock: checksum");
    if (load_le<std::uint32_t>(at + kVersionAt) != kSuperblockVersion)
        return fail(Errc::kUnsupported, "superblock: format version");
    if (load_le<std::uint32_t>(at + kCopyAt) != copy && !faults::rule_off("rule.own_location"))
        return fail(Errc::kCorrupt, "superblock: not where it was written");
    const std::uint32_t flags = load_le<std::uint32_t>(at + kFlagsAt);
    if ((flags & ~(kFlagClean | kFlagBuffered)) != 0)
        return fail(Errc::kUnsupported, "superblock: unknown flag");

    SuperblockCopy out;
    Superblock& value = out.value;
    out.sequence = load_le<std::uint64_t>(at + kSequenceAt);
    value.clean = (flags & kFlagClean) != 0;
    value.buffered = (flags & kFlagBuffered) != 0;
    value.volume = VolumeId(load_le<std::uint64_t>(at + kVolumeAt));
    value.incarnation = ReplicaId(load_le<std::uint64_t>(at + kIncarnationAt));
    value.size_bytes = load_le<std::uint64_t>(at + kSizeAt);
    value.number = load_le<std::uint64_t>(at + kNumberAt);
    value.durable_through = load_le<std::uint64_t>(at + kDurableThroughAt);
    value.cleared_through = load_le<std::uint64_t>(at + kClearedThroughAt);
    for (std::size_t i = 0; i < kDirtyMaps; ++i) {
        const std::byte* const entry = at + kLostAt + i * kLostBytes;
        value.lost[i] = {ReplicaId(load_le<std::uint64_t>(entry)),
                         load_le<std::uint64_t>(entry + 8), load_le<std::uint64_t>(entry + 16)};
    }
    std::memcpy(value.boot_id.data(), at + kBootIdAt, value.boot_id.size());
    const std::size_t record_bytes = load_le<std::uint16_t>(at + kRecordLengthAt);
    const std::size_t pending_bytes = load_le<std::uint16_t>(at + kPendingLengthAt);
    const std::size_t left_by_bytes = load_le<std::uint16_t>(at + kLeftByLengthAt);
    if (record_bytes > kRecordCapacity || pending_bytes > kPendingCapacity ||
        left_by_bytes > kRecordCapacity || !value.volume || value.size_bytes == 0 ||
        !is_aligned(value.size_bytes, kSectorBytes) || out.sequence == 0)
        return fail(Errc::kCorrupt, "superblock: contradicts itself");
    if (value.incarnation != incarnation)
        return fail(Errc::kCorrupt, "superblock: of another replica");
    value.record = RecordBytes(page.subspan(kRecordAt, record_bytes));
    value.pending = ProposalBytes(page.subspan(kPendingAt, pending_bytes));
    value.left_by = RecordBytes(page.subspan(kLeftByAt, left_by_bytes));
    return out;
}

}  // namespace ublkd::store
