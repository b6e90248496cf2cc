// What each type of message looks like: who sends it to whom, which parts and kinds it has, whether
// it has a range and a payload. The core trusts its messages: it takes it for granted that a kClear
// has regions, and hands ranges to a disk. So what comes from another host is held to this table
// before the core sees it, and what is sent is too (there it is a bug). Pure; tests/sim holds all
// messages of the core against it. See docs/peer-protocol.md.
#pragma once

#include <cstddef>
#include <span>

#include "ublkd/base/result.h"
#include "ublkd/peer/frame.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer {

/// What of `message.data` is sent. Empty where the core sets `data` and nobody reads it: of a
/// change whose data came by a copy (mark_only) it may be memory that was given back already.
std::span<const std::byte> payload_of(const replication::Message& message);

/// What of `message.ids` is sent; nullptr: none. The core sets a list that names no change where it
/// copies a hole to a joining member, and nobody reads it.
const replication::IdList* ids_of(const replication::Message& message);

/// Whether a peer may send that, with so much payload. `message.data` and `into` are not looked at,
/// nor ids that are not sent.
/// Errors: kProtocol, with what is wrong.
Result<void> check_shape(const replication::Message& message, std::size_t payload_bytes,
                         const Limits& limits);

}  // namespace ublkd::peer
