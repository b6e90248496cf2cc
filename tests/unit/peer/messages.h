// Messages of every type with every field that it may have, drawn at random; the fields of a
// message by name, for comparing two; and a decoder that is fed in pieces. Used by the codec's
// tests and by its fuzzer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "ublkd/peer/decoder.h"
#include "ublkd/peer/frame.h"
#include "ublkd/peer/hello.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer::test {

using Bytes = std::vector<std::byte>;

/// 257 regions of 4 MiB, the last one in part.
inline constexpr Limits kLimits{.volume = VolumeId(0xa1), .volume_bytes = kGiB + 512 * 1024};

struct Drawn {
    replication::Message message;
    Bytes data;  // message.data is this; moves with it
};

/// `type` and `kind` must fit. `failed` counts for answers. All else is drawn, within the limits.
Drawn draw(std::mt19937_64& random, replication::MessageType type, replication::OpKind kind,
           bool failed);

struct TypeAndKind {
    replication::MessageType type{};
    replication::OpKind kind{};
};
/// Each type with each kind that it may have.
std::vector<TypeAndKind> all_types();

/// Each field as text, by name. Parts that are not there and empty ones differ. A message that has
/// got a new field does not compile here until it is among them.
std::map<std::string, std::string> fields_of(const replication::Message& message);

std::string hex(std::span<const std::byte> bytes);

/// The whole frame.
Bytes encoded(const replication::Message& message, std::uint16_t version = kNewestVersion);

/// Of each frame that is whole in `stream` the checksums are made right, whatever it says.
void repair_checksums(std::span<std::byte> stream);

Hello hello_of(HostId host);

/// Everything that a decoder makes of a stream, and how it ended.
struct Heard {
    std::vector<Decoder::Step> frames;
    std::vector<replication::Message> messages;  // with `data` in `payloads`
    std::deque<Bytes> payloads;
    Bytes again;  // the frames, encoded once more
    std::optional<Error> error;
};
/// Feeds `stream` in pieces of `piece` bytes (0: all at once) to `decoder`, which takes messages
/// within kLimits once it has heard a hello; every other payload directly into its memory.
Heard hear(Decoder& decoder, std::span<const std::byte> stream, std::size_t piece);
/// The same, of one that has heard a hello.
Heard hear(std::span<const std::byte> stream, std::size_t piece = 0);

}  // namespace ublkd::peer::test
