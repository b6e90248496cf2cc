// Transmission, the requests at the device: one coroutine each.
#include <algorithm>
#include <cstring>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/front/nbd/transmission.h"

namespace ublkd::front::nbd {
namespace {

constexpr std::size_t kMaxExtents = 1024;  // of one BLOCK_STATUS reply

std::uint32_t state_flags(const block::Extent& extent) {
    return (extent.allocated ? 0 : kStateHole) | (extent.zero ? kStateZero : 0);
}

/// The descriptors for `wanted`, which lies within `asked`; extents with the same state are joined.
void describe_extents(std::span<const block::Extent> extents, Range asked, Range wanted,
                      std::vector<std::byte>& body) {
    std::uint64_t at = asked.offset_bytes;
    std::uint32_t last_flags = 0;
    body.clear();
    for (const block::Extent& extent : extents) {
        const std::uint64_t begin = std::max(at, wanted.offset_bytes);
        at += extent.length_bytes;
        const std::uint64_t end = std::min(at, wanted.end_bytes());
        if (end <= begin) continue;
        const auto bytes = static_cast<std::uint32_t>(end - begin);  // within a 32-bit request
        const std::uint32_t flags = state_flags(extent);
        if (!body.empty() && flags == last_flags) {
            std::byte* const length = body.data() + body.size() - 8;
            store_be(length, load_be<std::uint32_t>(length) + bytes);
            continue;
        }
        last_flags = flags;
        body.resize(body.size() + 8);
        store_be(body.data() + body.size() - 8, bytes);
        store_be(body.data() + body.size() - 4, flags);
    }
}

}  // namespace

void Transmission::start(Request* request) {
    io::Task<void> task;
    switch (Command(request->wire.command)) {
        case Command::kRead:
            task = request->buffer ? serve_read(request) : serve_large_read(request);
            break;
        case Command::kWrite:
            task = serve_write(request);
            break;
        case Command::kFlush:
            task = serve_flush(request);
            break;
        case Command::kTrim:
            task = serve_trim(request);
            break;
        case Command::kWriteZeroes:
            task = serve_write_zeroes(request);
            break;
        case Command::kBlockStatus:
            task = serve_block_status(request);
            break;
        case Command::kCache:  // nothing is cached here: O_DIRECT below, and the client's own cache
                               // above
        case Command::kDisconnect:
            finish(request, Result<void>{});
            return;
    }
    const bool started = io::spawn(requests_, std::move(task));
    CHECK(started, "requests start before their gate is closed");
}

io::Task<void> Transmission::serve_read(Request* request) {
    const Range blocks = blocks_of(request->range());
    const std::span<std::byte> into = request->buffer.span();
    const Result<void> result = co_await device_->read(blocks.offset_bytes, into);
    finish(
        request, result,
        into.subspan(request->wire.offset_bytes - blocks.offset_bytes, request->wire.length_bytes));
}

io::Task<void> Transmission::read_part(std::uint64_t offset_bytes, std::span<std::byte> into,
                                       Result<void>* result) {
    const Result<void> read = co_await device_->read(offset_bytes, into);
    if (!read && *result) *result = read;
}

io::Task<void> Transmission::serve_large_read(Request* request) {
    const Range blocks = blocks_of(request->range());
    const std::uint64_t memory =
        std::min<std::uint64_t>(blocks.length_bytes, SharedExport::kLargeReadBytes);
    co_await shared_->large_reads.acquire(memory);
    request->large = io::AlignedMemory(blocks.length_bytes);
    request->large_reads = &shared_->large_reads;
    request->large_read_bytes = memory;
    if (!request->large) {
        finish(request, fail(Errc::kExhausted, "memory for a large read"));
        co_return;
    }
    Result<void> result;
    io::TaskGroup parts;
    for (std::uint64_t at = 0; at < blocks.length_bytes; at += kMaxIoBytes) {
        const std::uint64_t bytes = std::min<std::uint64_t>(kMaxIoBytes, blocks.length_bytes - at);
        parts.start(
            read_part(blocks.offset_bytes + at, request->large.span().subspan(at, bytes), &result));
    }
    co_await parts.wait();
    const std::uint64_t skew = request->wire.offset_bytes - blocks.offset_bytes;
    finish(request, result, request->large.span().subspan(skew, request->wire.length_bytes));
}

bool Transmission::must_wait(const io::QueuedChange& change) const {
    return shared_->changes.must_wait(change) && !faults::rule_off("rule.nbd_change_order");
}

io::Task<void> Transmission::serve_write(Request* request) {
    const Range payload = request->range();
    const Range blocks = blocks_of(payload);
    request->change.range = blocks;
    request->change.exclusive = blocks != payload;
    shared_->changes.add(&request->change);
    while (must_wait(request->change)) co_await shared_->changes.one_ended();
    Result<void> result;
    if (request->change.exclusive)
        result = co_await fill_edges(request->buffer.span(), blocks, payload);
    if (result) {
        const block::WriteOptions options{.fua = request->has_flag(kFua)};
        result = co_await device_->write(blocks.offset_bytes, request->buffer.span(), options);
    }
    shared_->changes.remove(&request->change);
    if (request->parent != nullptr) {
        finish_part(request, result);
    } else {
        finish(request, result);
    }
}

/// Fills what `payload` leaves of its first and last logical block with what the device holds
/// there.
io::Task<Result<void>> Transmission::fill_edges(std::span<std::byte> blocks, Range covered,
                                                Range payload) {
    const std::uint64_t unit = geometry_.logical_block_bytes;
    const io::AlignedMemory old(unit);
    if (!old) co_return fail(Errc::kExhausted, "memory for a read-modify-write");
    const std::uint64_t lead = payload.offset_bytes - covered.offset_bytes;
    const std::uint64_t tail = covered.end_bytes() - payload.end_bytes();
    const bool one_block = covered.length_bytes == unit;
    if (lead > 0 || one_block) {
        CO_TRY(co_await device_->read(covered.offset_bytes, old.span()));
        std::memcpy(blocks.data(), old.span().data(), lead);
    }
    if (tail > 0) {
        if (!one_block) {
            CO_TRY(co_await device_->read(covered.end_bytes() - unit, old.span()));
        }
        std::memcpy(blocks.data() + blocks.size() - tail, old.span().data() + unit - tail, tail);
    }
    co_return Result<void>{};
}

io::Task<void> Transmission::serve_flush(Request* request) {
    const Result<void> result = co_await device_->flush();
    finish(request, result);
}

/// A hint: what it covers of a logical block only in part stays as it is.
io::Task<void> Transmission::serve_trim(Request* request) {
    const std::uint64_t unit = geometry_.logical_block_bytes;
    const std::uint64_t end = align_down(request->range().end_bytes(), unit);
    std::uint64_t at = align_up(request->wire.offset_bytes, unit);
    Result<void> result;
    if (at < end) {
        request->change.range = Range{at, end - at};
        request->change.exclusive = false;
        shared_->changes.add(&request->change);
        while (must_wait(request->change)) co_await shared_->changes.one_ended();
        const block::WriteOptions options{.fua = request->has_flag(kFua)};
        while (at < end && result) {
            const std::uint64_t bytes = std::min(end - at, geometry_.max_range_bytes);
            result = co_await device_->discard(Range{at, bytes}, options);
            at += bytes;
        }
        shared_->changes.remove(&request->change);
    }
    finish(request, result);
}

io::Task<void> Transmission::serve_write_zeroes(Request* request) {
    const std::uint64_t unit = geometry_.logical_block_bytes;
    const Range range = request->range();
    const std::uint64_t begin = align_up(range.offset_bytes, unit);
    const std::uint64_t end = align_down(range.end_bytes(), unit);
    const bool fua = request->has_flag(kFua);
    Result<void> result;
    if (begin > end) {  // within one block
        result = co_await zero_edge(range, fua);
        finish(request, result);
        co_return;
    }
    // The whole blocks first: FAST_ZERO is refused before anything has changed.
    if (begin < end)
        result = co_await zero_blocks(Range{begin, end - begin}, request->wire, &request->change);
    if (result && range.offset_bytes < begin)
        result = co_await zero_edge(Range{range.offset_bytes, begin - range.offset_bytes}, fua);
    if (result && end < range.end_bytes())
        result = co_await zero_edge(Range{end, range.end_bytes() - end}, fua);
    finish(request, result);
}

io::Task<Result<void>> Transmission::zero_blocks(Range range, const WireRequest& wire,
                                                 io::QueuedChange* change) {
    change->range = range;
    change->exclusive = false;
    shared_->changes.add(change);
    while (must_wait(*change)) co_await shared_->changes.one_ended();
    const block::ZeroOptions options{.fua = (wire.flags & kFua) != 0,
                                     .keep_allocated = (wire.flags & kNoHole) != 0,
                                     .fast_only = (wire.flags & kFastZero) != 0};
    Result<void> result;
    for (std::uint64_t at = range.offset_bytes; at < range.end_bytes() && result;) {
        const std::uint64_t bytes = std::min(range.end_bytes() - at, geometry_.max_range_bytes);
        result = co_await device_->write_zeroes(Range{at, bytes}, options);
        at += bytes;
    }
    shared_->changes.remove(change);
    co_return result;
}

/// Zeroes bytes within one logical block.
io::Task<Result<void>> Transmission::zero_edge(Range range, bool fua) {
    const Range block = blocks_of(range);
    const io::AlignedMemory old(block.length_bytes);
    if (!old) co_return fail(Errc::kExhausted, "memory for a read-modify-write");
    io::QueuedChange change{.range = block, .exclusive = true};
    shared_->changes.add(&change);
    while (must_wait(change)) co_await shared_->changes.one_ended();
    Result<void> result = co_await device_->read(block.offset_bytes, old.span());
    if (result) {
        std::memset(old.span().data() + (range.offset_bytes - block.offset_bytes), 0,
                    range.length_bytes);
        const block::WriteOptions options{.fua = fua};
        result = co_await device_->write(block.offset_bytes, old.span(), options);
    }
    shared_->changes.remove(&change);
    co_return result;
}

io::Task<void> Transmission::serve_block_status(Request* request) {
    const Range asked = blocks_of(request->range());
    const std::size_t most = request->has_flag(kReqOne) ? 1 : kMaxExtents;
    const Result<std::vector<block::Extent>> extents = co_await device_->block_status(asked, most);
    if (!extents) {
        finish(request, fail(extents.error()));
        co_return;
    }
    describe_extents(*extents, asked, request->range(), request->status_body);
    if (request->status_body.empty()) {  // the first extent ended before the unaligned start: one
                                         // block of "unknown"
        request->status_body.resize(8);
        const std::uint64_t rest =
            asked.offset_bytes + geometry_.logical_block_bytes - request->wire.offset_bytes;
        store_be(request->status_body.data(), static_cast<std::uint32_t>(std::min<std::uint64_t>(
                                                  rest, request->wire.length_bytes)));
        store_be(request->status_body.data() + 4, std::uint32_t{0});
    }
    finish(request, Result<void>{}, request->status_body);
}

}  // namespace ublkd::front::nbd
