// Writing. The hot path, a page-aligned write from page-aligned memory into an active region, is
// write() alone: one disk request, no map I/O, no heap. All else (first write to a region, sub-page
// writes, odd memory) branches off it.
#include <algorithm>
#include <cstring>

#include "ublkd/base/fault_injection.h"
#include "ublkd/store/replica_impl.h"

namespace ublkd::store {

UnderWay::UnderWay(ReplicaStore::Impl* impl, Range range, bool exclusive)
    : impl_(impl), range_(range), queued_(&impl->changes_, range, exclusive) {
    const std::uint64_t last = (range.end_bytes() - 1) / kRegionBytes;
    for (std::uint64_t region = range.offset_bytes / kRegionBytes; region <= last; ++region) {
        ++impl_->changing_[region];
        impl_->changed_[region] = impl_->epoch_;
    }
}

UnderWay::~UnderWay() {
    const std::uint64_t last = (range_.end_bytes() - 1) / kRegionBytes;
    for (std::uint64_t region = range_.offset_bytes / kRegionBytes; region <= last; ++region) {
        --impl_->changing_[region];
        impl_->changed_[region] = impl_->epoch_;
    }
    impl_->unflushed_ = true;
}

io::Task<Result<void>> ReplicaStore::Impl::write(std::uint64_t offset_bytes,
                                                 std::span<const std::byte> data, bool fua) {
    const Range range{offset_bytes, data.size()};
    const bool whole_pages = is_page_aligned(range);
    const bool exclusive = (!whole_pages || buffered_) && !faults::rule_off("rule.page_lock");
    UnderWay under_way(this, align_out(range, kPageBytes), exclusive);
    while (under_way.must_wait()) co_await under_way.one_ended();
    if (!writable_) {
        CO_TRY(co_await remove_clean_mark());
    }
    if (!is_active(range)) {
        CO_TRY(co_await make_active(range));
    }
    if (tracks_) {
        CO_TRY(co_await make_dirty(range));
    }
    const Durability durability = fua ? Durability::kDurable : Durability::kCached;
    if (whole_pages && is_memory_aligned(data.data())) {
        CO_TRY(take_units(range));
        co_return co_await put(offset_bytes, data, durability);
    }
    co_return co_await write_bounced(offset_bytes, data, durability);
}

io::Task<Result<void>> ReplicaStore::Impl::put(std::uint64_t offset_bytes,
                                               std::span<const std::byte> data,
                                               Durability durability) {
    if (failed_) co_return fail(*failed_);  // perhaps while this request waited
    if (const int error = faults::hit("store.data_write"))
        co_return co_await disk_failed(error_from_errno(error, "write data"));
    ++stats_.data_writes;
    const Result<void> written = co_await files_.data->write(offset_bytes, data, durability);
    if (!written) co_return co_await disk_failed(written.error());
    if (const int error = faults::hit("store.after_data_write"))
        co_return co_await disk_failed(error_from_errno(error, "write data"));
    co_return Result<void>{};
}

/// The bits of the regions of `range` are on disk when it has ended. The caller's UnderWay keeps
/// them from being cleared.
io::Task<Result<void>> ReplicaStore::Impl::make_active(Range range) {
    const bool first = !faults::rule_off("rule.activity_bit_first");
    return set_bits(&*activity_, range, kRegionBytes, first);
}

/// R11: the units of `range` are on disk in the dirty map of each lost replica when it has ended.
io::Task<Result<void>> ReplicaStore::Impl::make_dirty(Range range) {
    for (std::size_t i = 0; i < kDirtyMaps; ++i) {
        if (!tracked_[i].replica) continue;
        const bool first = !faults::rule_off("rule.dirty_bit_first");
        CO_TRY(co_await set_bits(&*dirty_[i], range, kDirtyUnitBytes, first));
    }
    co_return Result<void>{};
}

/// `bit_bytes`: what a bit stands for. `durable`: on disk when it has ended.
io::Task<Result<void>> ReplicaStore::Impl::set_bits(PersistentMap* map, Range range,
                                                    std::uint64_t bit_bytes, bool durable) {
    const std::uint64_t end = (range.end_bytes() - 1) / bit_bytes + 1;
    bool all_on_disk = true;
    bool all_being_written = true;
    for (std::uint64_t bit = range.offset_bytes / bit_bytes; bit < end; ++bit) {
        if (map->on_disk(bit)) continue;
        all_on_disk = false;
        if (!map->test(bit)) map->set(bit);
        all_being_written = all_being_written && map->is_being_written(bit);
    }
    if (all_on_disk || !durable) co_return Result<void>{};
    const Result<void> written = co_await map->make_durable(all_being_written);
    if (!written) co_return co_await disk_failed(written.error());
    co_return Result<void>{};
}

/// Counts the units of `range` as allocated from now on, and charges the budget for those that were
/// not. kNoSpace.
Result<void> ReplicaStore::Impl::take_units(Range range) {
    const std::uint64_t first = range.offset_bytes / kDirtyUnitBytes;
    const std::uint64_t last = (range.end_bytes() - 1) / kDirtyUnitBytes;
    std::uint64_t units = 0;
    for (std::uint64_t unit = first; unit <= last; ++unit)
        units += allocated_->test(unit) ? 0U : 1U;
    if (units == 0) return {};
    if (options_.budget && !options_.budget->charge(units * kDirtyUnitBytes))
        return fail(Errc::kNoSpace, "size of the pool");
    for (std::uint64_t unit = first; unit <= last; ++unit) {
        if (!allocated_->test(unit)) allocated_->set(unit);
    }
    return {};
}

bool ReplicaStore::Impl::is_hole(Range range) const {
    const std::uint64_t last = (range.end_bytes() - 1) / kDirtyUnitBytes;
    for (std::uint64_t unit = range.offset_bytes / kDirtyUnitBytes; unit <= last; ++unit) {
        if (allocated_->test(unit)) return false;
    }
    return true;
}

/// Any alignment, in steps of at most one buffer of whole pages.
io::Task<Result<void>> ReplicaStore::Impl::write_bounced(std::uint64_t offset_bytes,
                                                         std::span<const std::byte> data,
                                                         Durability durability) {
    ++stats_.bounced;
    while (!data.empty()) {
        const std::uint64_t begin = align_down(offset_bytes, kPageBytes);
        const std::uint64_t end = std::min(offset_bytes + data.size(), begin + kMaxIoBytes);
        const Range pages{begin, align_up(end, kPageBytes) - begin};
        const auto part = data.first(static_cast<std::size_t>(end - offset_bytes));
        CO_TRY(co_await write_chunk(pages, offset_bytes, part, durability));
        data = data.subspan(part.size());
        offset_bytes = end;
    }
    co_return Result<void>{};
}

io::Task<Result<void>> ReplicaStore::Impl::write_chunk(Range pages, std::uint64_t offset_bytes,
                                                       std::span<const std::byte> data,
                                                       Durability durability) {
    const std::uint64_t end_bytes = offset_bytes + data.size();
    const std::uint64_t last_page = pages.end_bytes() - kPageBytes;
    const bool head = offset_bytes != pages.offset_bytes;
    const bool tail = end_bytes != pages.end_bytes();
    // Asked before the units are taken: a page of a hole need not be read.
    const bool head_hole = is_hole(Range{pages.offset_bytes, kPageBytes});
    const bool tail_hole = is_hole(Range{last_page, kPageBytes});
    CO_TRY(take_units(Range{offset_bytes, data.size()}));

    Bounce bounce(this);
    if (!bounce.try_pool(pages.length_bytes)) {
        co_await reserve_turn_.acquire();
        bounce.use_reserve();
    }
    std::byte* const memory = bounce.data();
    if (head) {
        CO_TRY(co_await fill_page(pages.offset_bytes, memory, head_hole));
    }
    if (tail && !(head && last_page == pages.offset_bytes)) {
        CO_TRY(co_await fill_page(last_page, memory + (last_page - pages.offset_bytes), tail_hole));
    }
    std::memcpy(memory + (offset_bytes - pages.offset_bytes), data.data(), data.size());
    co_return co_await put(pages.offset_bytes,
                           std::span<const std::byte>(memory, pages.length_bytes), durability);
}

/// The first half of a read-modify-write. What cannot be read cannot be written back: an error puts
/// the replica out.
io::Task<Result<void>> ReplicaStore::Impl::fill_page(std::uint64_t offset_bytes, std::byte* page,
                                                     bool hole) {
    if (hole) {
        std::memset(page, 0, kPageBytes);
        co_return Result<void>{};
    }
    const Result<void> got = co_await get(offset_bytes, std::span<std::byte>(page, kPageBytes));
    if (!got) co_return co_await disk_failed(got.error());
    co_return Result<void>{};
}

}  // namespace ublkd::store
