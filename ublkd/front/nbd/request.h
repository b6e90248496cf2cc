// One request of the transmission phase from its header to the last byte of its reply. Requests are
// made once per connection, up to its bound, and used again: none is allocated while a connection
// is warm.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/front/nbd/protocol.h"
#include "ublkd/io/aligned_memory.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/change_queue.h"
#include "ublkd/io/sync.h"

namespace ublkd::front::nbd {

struct Request {
    WireRequest wire;
    std::uint64_t charged_bytes = 0;  // of the connection's bound on data in flight

    // Data. A WRITE's payload begins `skew_bytes` into the buffer, so that the buffer holds whole
    // logical blocks.
    io::Buffer buffer;
    io::AlignedMemory large;               // instead of `buffer`, for a READ of more than 512 KiB
    io::Semaphore* large_reads = nullptr;  // what `large` was counted against, given back with it
    std::uint64_t large_read_bytes = 0;
    std::uint32_t skew_bytes = 0;

    // A WRITE of more than 512 KiB is cut into parts, each a Request with a parent. The parent is
    // answered when it has been received whole and no part is left.
    Request* parent = nullptr;
    unsigned parts_left = 0;
    bool failed = false;
    Error error{};  // the first one, where failed

    io::QueuedChange change;

    // The reply: `head`, then `body`.
    std::array<std::byte, 36> head;
    std::uint32_t head_bytes = 0;
    std::span<const std::byte> body;
    std::vector<std::byte> status_body;  // of BLOCK_STATUS

    Request* next = nullptr;  // in the list of free ones or in the queue of replies

    Range range() const { return Range{wire.offset_bytes, wire.length_bytes}; }
    bool has_flag(CommandFlag flag) const { return (wire.flags & flag) != 0; }
};

}  // namespace ublkd::front::nbd
