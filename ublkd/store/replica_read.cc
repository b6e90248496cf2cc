// Reading: straight into the caller's memory where O_DIRECT takes it, through a buffer otherwise;
// holes cost no disk.
#include <algorithm>
#include <cstring>

#include "ublkd/base/fault_injection.h"
#include "ublkd/store/replica_impl.h"

namespace ublkd::store {

io::Task<Result<void>> ReplicaStore::Impl::read(std::uint64_t offset_bytes,
                                                std::span<std::byte> into) {
    if (failed_) co_return fail(*failed_);
    if (is_hole(Range{offset_bytes, into.size()})) {
        std::memset(into.data(), 0, into.size());
        co_return Result<void>{};
    }
    if (buffered_) co_return co_await read_queued(offset_bytes, into);
    const std::uint32_t alignment = files_.data->alignment_bytes();
    if (((offset_bytes | into.size()) & (alignment - 1)) == 0 && is_memory_aligned(into.data()))
        co_return co_await get(offset_bytes, into);
    co_return co_await read_bounced(offset_bytes, into);
}

/// From the page cache: not while a write to the same sectors is copied there.
io::Task<Result<void>> ReplicaStore::Impl::read_queued(std::uint64_t offset_bytes,
                                                       std::span<std::byte> into) {
    io::Queued queued(&changes_, Range{offset_bytes, into.size()}, false);
    while (queued.must_wait()) co_await queued.one_ended();
    co_return co_await get(offset_bytes, into);
}

io::Task<Result<void>> ReplicaStore::Impl::get(std::uint64_t offset_bytes,
                                               std::span<std::byte> into) {
    if (const int error = faults::hit("store.data_read"))
        co_return fail(Errc::kIo, "read data", error);
    ++stats_.data_reads;
    const Result<void> got = co_await files_.data->read(offset_bytes, into);
    if (got || got.error().code == Errc::kCorrupt) co_return got;
    co_return fail(Errc::kIo, "read data", got.error().sys_errno);
}

io::Task<Result<void>> ReplicaStore::Impl::read_bounced(std::uint64_t offset_bytes,
                                                        std::span<std::byte> into) {
    ++stats_.bounced;
    while (!into.empty()) {
        const std::uint64_t begin = align_down(offset_bytes, kPageBytes);
        const std::uint64_t end = std::min(offset_bytes + into.size(), begin + kMaxIoBytes);
        const std::size_t page_bytes = static_cast<std::size_t>(align_up(end, kPageBytes) - begin);
        Bounce bounce(this);
        if (!bounce.try_pool(page_bytes)) {
            co_await reserve_turn_.acquire();
            bounce.use_reserve();
        }
        CO_TRY(co_await get(begin, std::span(bounce.data(), page_bytes)));
        const std::size_t bytes = static_cast<std::size_t>(end - offset_bytes);
        std::memcpy(into.data(), bounce.data() + (offset_bytes - begin), bytes);
        into = into.subspan(bytes);
        offset_bytes = end;
    }
    co_return Result<void>{};
}

}  // namespace ublkd::store
