#include "ublkd/block/block_device.h"

#include "ublkd/base/check.h"

namespace ublkd::block {

Result<void> BlockDevice::check_range(Range range, std::uint64_t max_bytes) const {
    const Geometry& g = geometry();
    if (range.length_bytes == 0 || range.length_bytes > max_bytes)
        return fail(Errc::kInvalidArgument, "length of the request");
    if (!is_aligned(range.offset_bytes, g.logical_block_bytes) ||
        !is_aligned(range.length_bytes, g.logical_block_bytes))
        return fail(Errc::kInvalidArgument, "alignment of the request");
    if (range.offset_bytes > g.size_bytes || range.length_bytes > g.size_bytes - range.offset_bytes)
        return fail(Errc::kInvalidArgument, "request beyond the end of the device");
    return {};
}

Result<void> BlockDevice::check_change(Range range, std::uint64_t max_bytes) const {
    if (geometry().read_only) return fail(Errc::kReadOnly, "write to a read-only device");
    return check_range(range, max_bytes);
}

io::Task<Result<void>> BlockDevice::read(std::uint64_t offset_bytes, std::span<std::byte> into) {
    CO_TRY(check_range(Range{offset_bytes, into.size()}, geometry().max_io_bytes));
    co_return co_await do_read(offset_bytes, into);
}

io::Task<Result<void>> BlockDevice::write(std::uint64_t offset_bytes,
                                          std::span<const std::byte> data, WriteOptions options) {
    CO_TRY(check_change(Range{offset_bytes, data.size()}, geometry().max_io_bytes));
    co_return co_await do_write(offset_bytes, data, options);
}

io::Task<Result<void>> BlockDevice::flush() { co_return co_await do_flush(); }

io::Task<Result<void>> BlockDevice::discard(Range range, WriteOptions options) {
    CO_TRY(check_change(range, geometry().max_range_bytes));
    co_return co_await do_discard(range, options);
}

io::Task<Result<void>> BlockDevice::write_zeroes(Range range, ZeroOptions options) {
    CO_TRY(check_change(range, geometry().max_range_bytes));
    co_return co_await do_write_zeroes(range, options);
}

io::Task<Result<std::vector<Extent>>> BlockDevice::block_status(Range range,
                                                                std::size_t max_extents) {
    CHECK(max_extents > 0, "at least one extent is asked for");
    CO_TRY(check_range(range, geometry().size_bytes));
    auto extents = co_await do_block_status(range, max_extents);
    if (!extents) co_return extents;
    CHECK(!extents->empty() && extents->size() <= max_extents, "1 to max_extents extents");
    std::uint64_t covered = 0;
    for (const Extent& extent : *extents) covered += extent.length_bytes;
    CHECK(covered > 0 && covered <= range.length_bytes, "extents lie within the range");
    co_return extents;
}

}  // namespace ublkd::block
