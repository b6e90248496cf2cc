#include "ublkd/peer/encode.h"

#include <algorithm>
#include <vector>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/peer/layout.h"
#include "ublkd/peer/wire_numbers.h"

namespace ublkd::peer {
namespace {

using replication::IdList;
using replication::Message;
using replication::NotedId;
using replication::RegionSet;

std::size_t record_bytes(const Message& message) {
    return message.record == nullptr ? 0 : replication::encode(*message.record).size();
}

/// Those that have a region in the set, which is ascending.
std::size_t words_of(const Message& message) {
    if (message.regions == nullptr) return 0;
    std::size_t words = 0;
    std::uint32_t last = UINT32_MAX;
    for (const std::uint32_t region : *message.regions) {
        if (region / kRegionsInWord != last) ++words;
        last = region / kRegionsInWord;
    }
    return words;
}

std::byte* put_regions(const RegionSet& regions, std::byte* at) {
    for (auto region = regions.begin(); region != regions.end();) {
        const std::uint32_t word = *region / kRegionsInWord;
        std::uint64_t bits = 0;
        for (; region != regions.end() && *region / kRegionsInWord == word; ++region)
            bits |= std::uint64_t{1} << (*region % kRegionsInWord);
        store_le<std::uint32_t>(at, word);
        store_le<std::uint64_t>(at + 4, bits);
        at += kRegionWordBytes;
    }
    return at;
}

std::byte* put_ids(const IdList& ids, std::byte* at) {
    for (const NotedId& noted : ids) {
        std::fill_n(at, kNotedIdBytes, std::byte{0});
        layout::store_id(at + layout::kNotedId, noted.id);
        layout::store_range(at + layout::kNotedChange, noted.change);
        // Of an applied one it says nothing, and is whatever was there before.
        if (!noted.applied) layout::store_range(at + layout::kNotedPiece, noted.piece);
        at[layout::kNotedApplied] = static_cast<std::byte>(noted.applied ? 1 : 0);
        at += kNotedIdBytes;
    }
    return at;
}

std::uint32_t flags_of(const Message& message) {
    std::uint32_t flags = 0;
    for (const auto& [flag, field] : layout::kFields) {
        if (message.*field) flags |= flag;
    }
    if (message.regions != nullptr) flags |= layout::kHasRegions;
    if (ids_of(message) != nullptr) flags |= layout::kHasIds;
    return flags;
}

void put_fields(const Message& message, std::byte* at) {
    at[layout::kType] = static_cast<std::byte>(wire_number(message.type));
    at[layout::kOpKind] = static_cast<std::byte>(wire_number(message.kind));
    store_le<std::uint32_t>(at + layout::kFlags, flags_of(message));
    if (message.failed) {
        store_le<std::uint16_t>(at + layout::kError, wire_number(message.error.code));
        store_le<std::int16_t>(at + layout::kErrno, message.error.sys_errno);
    }
    store_le<std::uint64_t>(at + layout::kMessageVolume, message.volume.value());
    store_le<std::uint64_t>(at + layout::kFrom, message.from.value());
    store_le<std::uint64_t>(at + layout::kTo, message.to.value());
    store_le<std::uint64_t>(at + layout::kAttachment, message.attachment.value());
    store_le<std::uint64_t>(at + layout::kLosses, message.losses);
    store_le<std::uint64_t>(at + layout::kNumber, message.number);
    layout::store_id(at + layout::kId, message.id);
    store_le<std::uint64_t>(at + layout::kToken, message.token);
    store_le<std::uint64_t>(at + layout::kValue, message.value);
    store_le<std::uint64_t>(at + layout::kThrough, message.through);
    store_le<std::uint64_t>(at + layout::kCleared, message.cleared);
    layout::store_range(at + layout::kRange, message.range);
    store_le<std::uint64_t>(at + layout::kCut, message.cut);
}

}  // namespace

std::size_t head_bytes(const Message& message) {
    const IdList* const ids = ids_of(message);
    return kMessageBytes + record_bytes(message) + words_of(message) * kRegionWordBytes +
           (ids == nullptr ? 0 : ids->size()) * kNotedIdBytes;
}

void encode_head(const Message& message, std::uint16_t version, const Limits& limits,
                 std::span<std::byte> into) {
    const std::span<const std::byte> payload = payload_of(message);
    const Result<void> shape = check_shape(message, payload.size(), limits);
    CHECK(shape, shape.error().where);  // every peer would refuse it
    CHECK(into.size() == head_bytes(message), "memory for the head");

    const std::span<std::byte> header = into.first(kMessageBytes);
    layout::begin_header(header, FrameKind::kMessage, version);
    put_fields(message, header.data());
    std::byte* at = into.data() + kMessageBytes;
    if (message.record != nullptr) {
        const std::vector<std::byte> record = replication::encode(*message.record);
        at = std::ranges::copy(record, at).out;
        store_le<std::uint16_t>(header.data() + layout::kRecordBytes,
                                static_cast<std::uint16_t>(record.size()));
    }
    if (message.regions != nullptr) {
        at = put_regions(*message.regions, at);
        store_le<std::uint32_t>(header.data() + layout::kRegionWords,
                                static_cast<std::uint32_t>(words_of(message)));
    }
    if (const IdList* const ids = ids_of(message); ids != nullptr) {
        put_ids(*ids, at);
        store_le<std::uint32_t>(header.data() + layout::kIds,
                                static_cast<std::uint32_t>(ids->size()));
    }
    store_le<std::uint32_t>(header.data() + layout::kPartsChecksum,
                            crc32c(into.subspan(kMessageBytes)));
    store_le<std::uint32_t>(header.data() + layout::kPayloadBytes,
                            static_cast<std::uint32_t>(payload.size()));
    store_le<std::uint32_t>(header.data() + layout::kPayloadChecksum, crc32c(payload));
    layout::end_header(header);
}

}  // namespace ublkd::peer
