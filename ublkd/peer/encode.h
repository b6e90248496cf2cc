// A message as a frame. The head (header, record, regions, ids) is written into memory that the
// caller has; the payload is not copied: it is sent behind the head from where it is, so it must
// stay as it is from the encoding, which takes its checksum, until it is sent. `into` and `route`
// are the asking side's own and are not sent: the answer to a kRead or kFetch carries the bytes
// (`data`), which the receiving side puts into the asker's `into`. Called on the volume's reactor;
// allocates nothing but for a record. See docs/peer-protocol.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ublkd/peer/frame.h"
#include "ublkd/peer/shape.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer {

/// Of the head; kMessageBytes for a message without record, regions and ids.
std::size_t head_bytes(const replication::Message& message);

/// `into`: head_bytes(message) of memory. Behind it goes payload_of(message). A message that
/// check_shape() declines is a bug of this side.
void encode_head(const replication::Message& message, std::uint16_t version, const Limits& limits,
                 std::span<std::byte> into);

}  // namespace ublkd::peer
