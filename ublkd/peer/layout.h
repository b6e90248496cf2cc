// Where the fields of a frame lie, for encode and decode alone. Byte by byte in
// docs/peer-protocol.md.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/peer/frame.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer::layout {

// All frames.
inline constexpr std::size_t kMagic = 0;
inline constexpr std::size_t kVersion = 4;
inline constexpr std::size_t kKind = 6;
inline constexpr std::size_t kChecksum = 8;

// Hello.
inline constexpr std::size_t kOldest = 16;
inline constexpr std::size_t kNewest = 18;
inline constexpr std::size_t kFeatures = 24;
inline constexpr std::size_t kRequired = 32;
inline constexpr std::size_t kCluster = 40;
inline constexpr std::size_t kHost = 48;
inline constexpr std::size_t kHelloVolume = 56;
inline constexpr std::size_t kBootId = 64;
inline constexpr std::size_t kHelloAttachment = 80;
inline constexpr std::size_t kHelloEnd = 88;  // zero from here on

// Refusal: kOldest and kNewest as in a hello.
inline constexpr std::size_t kReason = 20;
inline constexpr std::size_t kRefusalEnd = 22;

// Message.
inline constexpr std::size_t kPartsChecksum = 12;
inline constexpr std::size_t kPayloadChecksum = 16;
inline constexpr std::size_t kPayloadBytes = 20;
inline constexpr std::size_t kType = 24;
inline constexpr std::size_t kOpKind = 25;
inline constexpr std::size_t kRecordBytes = 26;
inline constexpr std::size_t kFlags = 28;
inline constexpr std::size_t kRegionWords = 32;
inline constexpr std::size_t kIds = 36;
inline constexpr std::size_t kError = 40;
inline constexpr std::size_t kErrno = 42;
inline constexpr std::size_t kMessageVolume = 48;
inline constexpr std::size_t kFrom = 56;
inline constexpr std::size_t kTo = 64;
inline constexpr std::size_t kAttachment = 72;
inline constexpr std::size_t kLosses = 80;
inline constexpr std::size_t kNumber = 88;
inline constexpr std::size_t kId = 96;
inline constexpr std::size_t kToken = 112;
inline constexpr std::size_t kValue = 120;
inline constexpr std::size_t kThrough = 128;
inline constexpr std::size_t kCleared = 136;
inline constexpr std::size_t kRange = 144;
inline constexpr std::size_t kCut = 160;
inline constexpr std::size_t kMessageEnd = 168;  // zero from here on

/// The flags that stand for a field, by their bit.
inline constexpr std::array<std::pair<std::uint32_t, bool replication::Message::*>, 9> kFields{{
    {1U << 0, &replication::Message::fua},
    {1U << 1, &replication::Message::keep_allocated},
    {1U << 2, &replication::Message::mark_only},
    {1U << 3, &replication::Message::in_sync},
    {1U << 4, &replication::Message::takeover},
    {1U << 5, &replication::Message::joining},
    {1U << 6, &replication::Message::by_map},
    {1U << 7, &replication::Message::check},
    {1U << 8, &replication::Message::failed},
}};
/// They are there, perhaps with nothing in them.
inline constexpr std::uint32_t kHasRegions = 1U << 16;
inline constexpr std::uint32_t kHasIds = 1U << 17;
inline constexpr std::uint32_t kKnownFlags = 0x1ffU | kHasRegions | kHasIds;

// A noted id.
inline constexpr std::size_t kNotedId = 0;
inline constexpr std::size_t kNotedChange = 16;
inline constexpr std::size_t kNotedPiece = 32;
inline constexpr std::size_t kNotedApplied = 48;

inline std::size_t header_bytes(FrameKind kind) {
    switch (kind) {
        case FrameKind::kHello:
            return kHelloBytes;
        case FrameKind::kRefusal:
            return kRefusalBytes;
        case FrameKind::kAlive:
            return kAliveBytes;
        case FrameKind::kMessage:
            return kMessageBytes;
    }
    return 0;
}

/// Of a whole header, its own field taken as zero.
inline std::uint32_t header_checksum(std::span<const std::byte> header) {
    constexpr std::array<std::byte, 4> none{};
    std::uint32_t sum = crc32c(header.first(kChecksum));
    sum = crc32c(none, sum);
    return crc32c(header.subspan(kChecksum + none.size()), sum);
}

/// Zeroes `header`, and writes what all headers begin with but the checksum.
inline void begin_header(std::span<std::byte> header, FrameKind kind, std::uint16_t version) {
    std::fill(header.begin(), header.end(), std::byte{0});
    store_le<std::uint32_t>(header.data() + kMagic, peer::kMagic);
    store_le<std::uint16_t>(header.data() + kVersion, version);
    header[kKind] = static_cast<std::byte>(kind);
}
inline void end_header(std::span<std::byte> header) {
    store_le<std::uint32_t>(header.data() + kChecksum, header_checksum(header));
}

inline void store_range(std::byte* to, const Range& range) {
    store_le<std::uint64_t>(to, range.offset_bytes);
    store_le<std::uint64_t>(to + 8, range.length_bytes);
}
inline Range load_range(const std::byte* from) {
    return {load_le<std::uint64_t>(from), load_le<std::uint64_t>(from + 8)};
}
inline void store_id(std::byte* to, const replication::RequestId& id) {
    store_le<std::uint64_t>(to, id.client_start);
    store_le<std::uint64_t>(to + 8, id.sequence);
}
inline replication::RequestId load_id(const std::byte* from) {
    return {load_le<std::uint64_t>(from), load_le<std::uint64_t>(from + 8)};
}

}  // namespace ublkd::peer::layout
