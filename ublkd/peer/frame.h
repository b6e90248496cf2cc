// The peer protocol's frames: what clients and members on several hosts send each other over
// connections (TCP or unix) of which each carries one volume's messages.
//
// A frame is a header of a fixed size for its kind, then, of a message only, its variable parts
// (record, regions, ids) and its payload. All integers are little-endian; each of header, parts and
// payload has a CRC-32C. What is unknown, out of bounds or not zero where it should be is refused,
// never guessed at. Constants and plain values; byte by byte in docs/peer-protocol.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ublkd/base/ids.h"
#include "ublkd/base/units.h"
#include "ublkd/replication/applied_ids.h"
#include "ublkd/replication/membership.h"

namespace ublkd::peer {

inline constexpr std::uint32_t kMagic = 0x504c4255;  // "UBLP"

/// Of messages. What hellos agree on is in each frame that follows.
inline constexpr std::uint16_t kOldestVersion = 1;
inline constexpr std::uint16_t kNewestVersion = 1;
/// Of hellos and refusals: the same for ever, so that any two versions can tell each other why not.
inline constexpr std::uint16_t kHelloVersion = 1;

enum class FrameKind : std::uint8_t {
    kHello = 1,    // the first frame of each side
    kRefusal = 2,  // the last frame of a side: why it closes
    kAlive = 3,    // nothing, so that the other side knows that this one is there
    kMessage = 4,
};

inline constexpr std::size_t kPrefixBytes = 16;  // what all headers begin with
inline constexpr std::size_t kHelloBytes = 128;
inline constexpr std::size_t kRefusalBytes = 64;
inline constexpr std::size_t kAliveBytes = kPrefixBytes;
inline constexpr std::size_t kMessageBytes = 192;  // without parts and payload

// Variable parts.
inline constexpr std::uint32_t kRegionsInWord = 64;
inline constexpr std::size_t kRegionWordBytes = 12;
inline constexpr std::size_t kNotedIdBytes = 56;
/// What a whole table has: one piece of each id, and further pieces.
inline constexpr std::size_t kMaxIds =
    replication::AppliedIds::kClients * replication::AppliedIds::kWindow +
    replication::AppliedIds::kMorePieces;

/// What the messages of a connection are held to. All of a volume: a connection has one.
struct Limits {
    VolumeId volume;
    std::uint64_t volume_bytes = 0;
    std::uint32_t region_bytes = kRegionBytes;

    constexpr std::uint64_t regions() const { return divide_up(volume_bytes, region_bytes); }
    constexpr std::uint64_t region_words() const { return divide_up(regions(), kRegionsInWord); }
    /// The most that record, regions and ids of one message take.
    constexpr std::uint64_t parts_bytes() const {
        return replication::kMaxRecordBytes + region_words() * kRegionWordBytes +
               kMaxIds * kNotedIdBytes;
    }
};

}  // namespace ublkd::peer
