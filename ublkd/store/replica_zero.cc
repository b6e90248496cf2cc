// Discard and write zeroes: whole pages as a hole (or a zeroed extent), ragged edges and file
// systems without holes by writing zeroes. Exclusive over its range, so that no write lands between
// the hole and its place in the allocated map.
#include <algorithm>

#include "ublkd/base/fault_injection.h"
#include "ublkd/store/replica_impl.h"

namespace ublkd::store {
namespace {

// Never written to: the pages behind it are the kernel's zero page. Not const, so that it takes no
// room in the program.
alignas(kPageBytes) std::byte zero_bytes[kMaxIoBytes];

}  // namespace

io::Task<Result<void>> ReplicaStore::Impl::zero(ZeroRequest request) {
    const Range range = request.range;
    UnderWay under_way(this, align_out(range, kPageBytes), !faults::rule_off("rule.zero_lock"));
    while (under_way.must_wait()) co_await under_way.one_ended();
    if (!writable_) {
        CO_TRY(co_await remove_clean_mark());
    }
    if (failed_) co_return fail(*failed_);
    if (request.keep_allocated) {
        CO_TRY(co_await zero_part(request, range));
    } else {
        // What is a hole stays one: a discard of a whole empty volume marks nothing active.
        std::uint64_t at = range.offset_bytes;
        while (at < range.end_bytes()) {
            const std::uint64_t unit = allocated_->bits().find_set(at / kDirtyUnitBytes);
            const std::uint64_t begin = std::max(at, unit * kDirtyUnitBytes);
            if (begin >= range.end_bytes()) break;
            const std::uint64_t end =
                std::min(range.end_bytes(), allocated_->bits().find_clear(unit) * kDirtyUnitBytes);
            CO_TRY(co_await zero_part(request, Range{begin, end - begin}));
            at = end;
        }
    }
    if (request.fua) {
        unflushed_ = true;  // this change has not ended yet, but it is what the flush is for
        co_return co_await flush();
    }
    co_return Result<void>{};
}

/// `part`: of the request's range; within units that are allocated, unless these are to be kept.
io::Task<Result<void>> ReplicaStore::Impl::zero_part(ZeroRequest request, Range part) {
    CO_TRY(co_await make_active(part));
    if (tracks_) {
        CO_TRY(co_await make_dirty(part));
    }
    if (failed_) co_return fail(*failed_);
    if (request.keep_allocated) {
        CO_TRY(take_units(part));
    }
    // The file has whole pages: its last one may be zeroed whole.
    const bool to_the_end = part.end_bytes() == geometry_.size_bytes;
    const std::uint64_t first = align_up(part.offset_bytes, kPageBytes);
    const std::uint64_t end = to_the_end ? align_up(part.end_bytes(), kPageBytes)
                                         : align_down(part.end_bytes(), kPageBytes);
    if (first >= end) co_return co_await write_zero_bytes(part);

    // The pages first: where that is not possible a fast request ends here and has changed nothing.
    bool is_hole_now = false;
    CO_TRY_ASSIGN(is_hole_now, co_await zero_pages(request, Range{first, end - first}));
    if (part.offset_bytes < first) {
        CO_TRY(co_await write_zero_bytes(Range{part.offset_bytes, first - part.offset_bytes}));
    }
    if (end < part.end_bytes()) {
        CO_TRY(co_await write_zero_bytes(Range{end, part.end_bytes() - end}));
    }
    if (is_hole_now) drop_units(part);
    co_return Result<void>{};
}

/// True where the pages are a hole now.
io::Task<Result<bool>> ReplicaStore::Impl::zero_pages(ZeroRequest request, Range pages) {
    bool& possible = request.keep_allocated ? can_zero_range_ : can_punch_;
    if (possible) {
        ++stats_.zeroings;
        const auto mode =
            request.keep_allocated ? DiskFile::ZeroMode::kKeep : DiskFile::ZeroMode::kPunch;
        Result<void> zeroed;
        if (const int error = faults::hit("store.zero")) {
            zeroed = fail_errno(error, "zero data");
        } else {
            zeroed = co_await files_.data->zero(mode, pages);
        }
        if (!zeroed && zeroed.error().code != Errc::kUnsupported) {
            CO_TRY(co_await disk_failed(zeroed.error()));
        }
        if (zeroed) {
            if (const int error = faults::hit("store.after_zero")) {
                CO_TRY(co_await disk_failed(error_from_errno(error, "zero data")));
            }
            co_return !request.keep_allocated;
        }
        possible = false;
    }
    if (request.fast_only)
        co_return fail(Errc::kUnsupported, "zeroes are written by this file system");
    if (!faults::rule_off("rule.discard_is_zero")) {
        CO_TRY(co_await write_zero_bytes(pages));
    }
    co_return false;
}

io::Task<Result<void>> ReplicaStore::Impl::write_zero_bytes(Range range) {
    while (range.length_bytes > 0) {
        const std::uint64_t bytes = std::min<std::uint64_t>(range.length_bytes, kMaxIoBytes);
        const auto zeroes =
            std::span<const std::byte>(zero_bytes).first(static_cast<std::size_t>(bytes));
        if (is_page_aligned(Range{range.offset_bytes, bytes})) {
            CO_TRY(co_await put(range.offset_bytes, zeroes, Durability::kCached));
        } else {
            CO_TRY(co_await write_bounced(range.offset_bytes, zeroes, Durability::kCached));
        }
        range = Range{range.offset_bytes + bytes, range.length_bytes - bytes};
    }
    co_return Result<void>{};
}

/// The units that lie in `part` whole are holes from now on.
void ReplicaStore::Impl::drop_units(Range part) {
    const std::uint64_t first = divide_up(part.offset_bytes, kDirtyUnitBytes);
    const std::uint64_t end = part.end_bytes() == geometry_.size_bytes
                                  ? divide_up(part.end_bytes(), kDirtyUnitBytes)
                                  : part.end_bytes() / kDirtyUnitBytes;
    std::uint64_t dropped = 0;
    for (std::uint64_t unit = first; unit < end; ++unit) {
        if (!allocated_->test(unit)) continue;
        allocated_->clear(unit);
        ++dropped;
    }
    if (options_.budget) options_.budget->refund(dropped * kDirtyUnitBytes);
}

}  // namespace ublkd::store
