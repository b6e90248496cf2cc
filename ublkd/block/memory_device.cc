#include "ublkd/block/memory_device.h"

#include <algorithm>
#include <cstring>

#include "ublkd/base/check.h"

namespace ublkd::block {

MemoryDevice::MemoryDevice(Geometry geometry)
    : geometry_(geometry),
      bytes_(geometry.size_bytes),
      allocated_(divide_up(geometry.size_bytes, kDirtyUnitBytes)) {
    CHECK(is_aligned(geometry.size_bytes, geometry.logical_block_bytes), "whole logical blocks");
}

io::Task<Result<void>> MemoryDevice::do_read(std::uint64_t offset_bytes,
                                             std::span<std::byte> into) {
    std::memcpy(into.data(), bytes_.data() + offset_bytes, into.size());
    co_return Result<void>{};
}

io::Task<Result<void>> MemoryDevice::do_write(std::uint64_t offset_bytes,
                                              std::span<const std::byte> data, WriteOptions) {
    std::memcpy(bytes_.data() + offset_bytes, data.data(), data.size());
    const std::uint64_t last = (offset_bytes + data.size() - 1) / kDirtyUnitBytes;
    for (std::uint64_t unit = offset_bytes / kDirtyUnitBytes; unit <= last; ++unit)
        allocated_[unit] = true;
    co_return Result<void>{};
}

io::Task<Result<void>> MemoryDevice::do_flush() { co_return Result<void>{}; }

void MemoryDevice::zero(Range range, bool keep_allocated) {
    std::memset(bytes_.data() + range.offset_bytes, 0, range.length_bytes);
    const std::uint64_t begin = divide_up(range.offset_bytes, kDirtyUnitBytes);
    const std::uint64_t end = range.end_bytes() == geometry_.size_bytes
                                  ? allocated_.size()
                                  : range.end_bytes() / kDirtyUnitBytes;
    for (std::uint64_t unit = begin; unit < end; ++unit) allocated_[unit] = keep_allocated;
}

io::Task<Result<void>> MemoryDevice::do_discard(Range range, WriteOptions) {
    zero(range, false);
    co_return Result<void>{};
}

io::Task<Result<void>> MemoryDevice::do_write_zeroes(Range range, ZeroOptions options) {
    zero(range, options.keep_allocated);
    co_return Result<void>{};
}

io::Task<Result<std::vector<Extent>>> MemoryDevice::do_block_status(Range range,
                                                                    std::size_t max_extents) {
    std::vector<Extent> extents;
    std::uint64_t at = range.offset_bytes;
    while (at < range.end_bytes()) {
        const bool allocated = allocated_[at / kDirtyUnitBytes];
        const std::uint64_t end =
            std::min(range.end_bytes(), (at / kDirtyUnitBytes + 1) * kDirtyUnitBytes);
        if (!extents.empty() && extents.back().allocated == allocated) {
            extents.back().length_bytes += end - at;
        } else {
            if (extents.size() == max_extents) break;
            extents.push_back(Extent{end - at, allocated, !allocated});
        }
        at = end;
    }
    co_return extents;
}

}  // namespace ublkd::block
