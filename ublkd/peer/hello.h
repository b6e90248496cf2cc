// The first frame of each side, and the last one of a side that closes. The side that connects
// sends its hello first; the other one answers with its own, or with a refusal; each judges the
// other's by agree(). Messages follow when both have come. Hellos and refusals look the same in all
// versions. Plain values, no I/O. See docs/peer-protocol.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>

#include "ublkd/base/result.h"
#include "ublkd/peer/frame.h"

namespace ublkd::peer {

using BootId = std::array<std::byte, 16>;

/// As a feature that is required: no message follows; the volume is to be looked at there, since
/// the metadata says something new of it, and that is done when the hello is answered.
inline constexpr std::uint64_t kWordOnly = 1;

struct Hello {
    std::uint16_t oldest_version = kOldestVersion;  // of messages, that this side speaks
    std::uint16_t newest_version = kNewestVersion;
    std::uint64_t features = 0;  // beyond the version, a bit each
    std::uint64_t required = 0;  // of them: without which this side does not talk
    ClusterId cluster;
    HostId host;
    VolumeId volume;            // whose messages the connection carries
    BootId boot_id{};           // of the host
    AttachmentId attachment{};  // whose client asks over the connection; none: the host's members
    friend bool operator==(const Hello&, const Hello&) = default;
};

enum class Reason : std::uint16_t {
    kVersion = 1,   // no version that both speak
    kFeature = 2,   // one that one side needs and the other one does not have
    kCluster = 3,   // of another cluster
    kVolume = 4,    // of another volume, or nothing of it is here
    kHost = 5,      // not the host that was looked for, or not admitted
    kBusy = 6,      // all connections are taken: later
    kProtocol = 7,  // a frame that was refused
    kStopping = 8,
};
/// "no common version", for logs.
const char* to_string(Reason reason) noexcept;

struct Refusal {
    Reason reason{};
    std::uint16_t oldest_version = kOldestVersion;  // of who refuses
    std::uint16_t newest_version = kNewestVersion;
    friend bool operator==(const Refusal&, const Refusal&) = default;
};

struct Agreed {
    std::uint16_t version = 0;
    std::uint64_t features = 0;
    friend bool operator==(const Agreed&, const Agreed&) = default;
};

/// The newest version and the features that both have, or why not. The same on both sides.
std::expected<Agreed, Refusal> agree(const Hello& own, const Hello& other);

std::array<std::byte, kHelloBytes> encode(const Hello& hello);
std::array<std::byte, kRefusalBytes> encode(const Refusal& refusal);
/// Under the version that was agreed on.
std::array<std::byte, kAliveBytes> encode_alive(std::uint16_t version);

/// Of a header whose checksum is right (decoder.h). Errors: kProtocol.
Result<Hello> decode_hello(std::span<const std::byte, kHelloBytes> header);
Result<Refusal> decode_refusal(std::span<const std::byte, kRefusalBytes> header);

}  // namespace ublkd::peer
