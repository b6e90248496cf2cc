#include "ublkd/store/replica_store.h"

#include <algorithm>
#include <chrono>

#include "ublkd/base/fault_injection.h"
#include "ublkd/store/file_system.h"
#include "ublkd/store/real_disk.h"
#include "ublkd/store/replica_impl.h"

namespace ublkd::store {
namespace {

constexpr std::chrono::seconds kMarkWait{1};

Superblock first_superblock(const ReplicaConfig& config) {
    Superblock first;
    first.volume = config.volume;
    first.incarnation = config.incarnation;
    first.size_bytes = config.size_bytes;
    first.buffered = !config.direct;
    first.boot_id = config.boot_id;
    first.clean = true;
    return first;
}

io::Task<ReplicaStore::Opened> ended_with(Error error) { co_return fail(error); }

}  // namespace

// ---- superblock

io::Task<Result<void>> ReplicaStore::Impl::update_superblock(SuperblockChange change) {
    if (failed_) co_return fail(*failed_);
    if (change.lost) {
        if (*change.lost != tracked_) {
            CO_TRY(co_await begin_dirty_maps(*change.lost));
        }
        for (auto& map : dirty_) {
            const Result<void> durable = co_await map->make_durable();
            if (!durable) co_return co_await disk_failed(durable.error());
        }
    }
    const Result<void> written = co_await superblock_->update(change);
    if (!written) co_return co_await disk_failed(written.error());
    co_return Result<void>{};
}

/// Bound by the caller's update, and untied before it is changed: at no moment does the superblock
/// name a replica whose map is not whole.
io::Task<Result<void>> ReplicaStore::Impl::begin_dirty_maps(LostReplicas lost) {
    LostReplicas kept = superblock_->current().lost;
    for (std::size_t i = 0; i < kDirtyMaps; ++i) {
        if (lost[i] != tracked_[i]) kept[i] = LostReplica{};
    }
    if (kept != superblock_->current().lost) {
        SuperblockChange change;
        change.lost = kept;
        const Result<void> untied = co_await superblock_->update(change);
        if (!untied) co_return co_await disk_failed(untied.error());
    }
    // In one step: what began before is active, what begins later is marked.
    for (std::size_t i = 0; i < kDirtyMaps; ++i) {
        if (lost[i] != tracked_[i] && lost[i].replica) begin_dirty_map(*dirty_[i]);
    }
    tracked_ = lost;
    tracks_ =
        std::ranges::any_of(lost, [](const LostReplica& entry) { return bool(entry.replica); });
    co_return Result<void>{};
}

void ReplicaStore::Impl::begin_dirty_map(PersistentMap& map) {
    const Bitmap& active = activity_->bits();
    for (std::uint64_t unit = 0; unit < map.bits().size(); ++unit) {
        const bool set = active.test(unit * kDirtyUnitBytes / kRegionBytes) &&
                         !faults::rule_off("rule.map_begins_active");
        if (set && !map.test(unit)) map.set(unit);
        if (!set && map.test(unit)) map.clear(unit);
    }
}

io::Task<Result<void>> ReplicaStore::Impl::remove_clean_mark() {
    if (failed_) co_return fail(*failed_);
    const bool marked = superblock_->current().clean || marking_clean_;
    marking_clean_ = false;
    if (marked && !faults::rule_off("rule.clean_mark_first")) {
        SuperblockChange change;
        change.clean = false;
        CO_TRY(co_await update_superblock(change));
    }
    writable_ = !failed_;
    co_return Result<void>{};
}

io::Task<Result<void>> ReplicaStore::Impl::mark_clean() {
    if (failed_) co_return fail(*failed_);
    if (!changes_.empty() || marking_clean_) co_return fail(Errc::kBusy, "changes are under way");
    // From here on a change that begins takes the mark away again, after us.
    writable_ = false;
    marking_clean_ = true;
    CO_TRY(co_await flush());
    const Result<void> durable = co_await allocated_->make_durable();
    if (!durable) co_return co_await disk_failed(durable.error());
    if (!marking_clean_) co_return fail(Errc::kBusy, "changes began meanwhile");
    SuperblockChange change;
    change.clean = true;
    const Result<void> marked = co_await update_superblock(change);
    marking_clean_ = false;
    co_return marked;
}

StoreStats ReplicaStore::Impl::stats() const {
    StoreStats all = stats_;
    all.map_writes = activity_->writes() + allocated_->writes();
    for (const auto& map : dirty_) all.map_writes += map->writes();
    all.superblock_writes = superblock_->writes();
    return all;
}

io::Task<Result<void>> ReplicaStore::Impl::disk_failed(Error error) {
    if (error.code == Errc::kNoSpace) co_return fail(error);
    const Error why{error.code == Errc::kCorrupt ? Errc::kCorrupt : Errc::kIo, error.sys_errno,
                    error.where};
    if (!failed_) {
        failed_ = why;
        writable_ = false;
        told_at_ = io::Clock::now() + kMarkWait;
        io::spawn(behind_, mark_out());
    }
    // A disk may fail once and then hang: no longer, or the volume would wait with it instead of
    // going on without it. Whoever leaves by a new number needs no mark.
    (void)co_await reactor_->wait_until(&marked_out_, told_at_);
    co_return fail(why);
}

/// Out on disk as well, as far as the disk can still be written: what it acknowledged may be lost,
/// and a process that is started again in this boot would take it for in sync.
io::Task<void> ReplicaStore::Impl::mark_out() {
    const Superblock& marked = superblock_->current();
    if ((marked.clean || marked.boot_id != BootId{}) && !faults::rule_off("rule.out_is_marked")) {
        SuperblockChange change;
        change.clean = false;
        change.boot_id = BootId{};
        (void)co_await superblock_->update(change);
    }
    marked_out_.set();
}

// ---- flush and maps

io::Task<Result<void>> ReplicaStore::Impl::flush() {
    if (failed_) co_return fail(*failed_);
    // Nothing has ended since the last flush began: that one is enough, and if it is over there is
    // nothing to do.
    if (!unflushed_ && !syncing_.is_running()) co_return Result<void>{};
    const bool covered = !unflushed_ || faults::rule_off("rule.flush_starts_after");
    co_return co_await syncing_.run(covered);
}

io::Task<Result<void>> ReplicaStore::Impl::sync_round(void* self) {
    return static_cast<Impl*>(self)->sync_data();
}

io::Task<Result<void>> ReplicaStore::Impl::sync_data() {
    if (failed_) co_return fail(*failed_);
    const std::uint64_t epoch = ++epoch_;
    unflushed_ = false;
    if (const int error = faults::hit("store.data_sync"))
        co_return co_await disk_failed(error_from_errno(error, "flush data"));
    ++stats_.data_syncs;
    Result<void> synced;
    if (!faults::rule_off("rule.flush_to_disk")) synced = co_await files_.data->sync();
    if (!synced && faults::rule_off("rule.fsync_once")) synced = co_await files_.data->sync();
    if (!synced) {
        // Never kNoSpace to the caller: what could not be written back may be lost already (R14).
        co_return co_await disk_failed(Error{Errc::kIo, synced.error().sys_errno, "flush data"});
    }
    if (const int error = faults::hit("store.after_data_sync"))
        co_return co_await disk_failed(error_from_errno(error, "flush data"));
    flushed_epoch_ = epoch;
    co_return Result<void>{};
}

/// Nothing of the region is under way, or not flushed here, or newer than what the caller speaks
/// of.
bool ReplicaStore::Impl::may_clear(std::uint64_t region, std::uint64_t before_epoch) const {
    if (region >= changing_.size()) return false;
    if (changing_[region] != 0 || changed_[region] >= before_epoch) return false;
    return changed_[region] < flushed_epoch_ || faults::rule_off("rule.clear_after_flush");
}

io::Task<Result<void>> ReplicaStore::Impl::clear_activity(std::span<const std::uint32_t> regions,
                                                          std::uint64_t through) {
    if (failed_) co_return fail(*failed_);
    // Taken before anything is waited for: a change that ends meanwhile is not what the caller
    // speaks of, though a flush of here may have covered it.
    std::uint64_t now = ++epoch_;
    if (superblock_->current().cleared_through != through) {
        SuperblockChange change;
        change.cleared_through = through;
        CO_TRY(co_await update_superblock(change));
        if (faults::rule_off("rule.clear_as_of_call")) now = ++epoch_;
    }
    // A region is 64 units: one word of the allocated map, which counts on disk from the moment the
    // region is not active.
    static_assert(kRegionBytes / kDirtyUnitBytes == 64);
    const bool maps_first = !faults::rule_off("rule.allocated_before_clear");
    bool allocated_on_disk = true;
    for (const std::uint32_t region : regions)
        allocated_on_disk =
            allocated_on_disk && (!may_clear(region, now) || allocated_->word_on_disk(region));
    if (!allocated_on_disk && maps_first) {
        const Result<void> durable = co_await allocated_->make_durable();
        if (!durable) co_return co_await disk_failed(durable.error());
    }
    bool any = false;
    for (const std::uint32_t region : regions) {
        if (!may_clear(region, now) || !activity_->test(region)) continue;
        if (maps_first && !allocated_->word_on_disk(region)) continue;
        activity_->clear(region);
        any = true;
    }
    if (!any) co_return Result<void>{};
    const Result<void> durable = co_await activity_->make_durable();
    if (!durable) co_return co_await disk_failed(durable.error());
    co_return Result<void>{};
}

Result<std::vector<block::Extent>> ReplicaStore::Impl::block_status(Range range,
                                                                    std::size_t max_extents) const {
    if (failed_) return fail(*failed_);
    std::vector<block::Extent> extents;
    const Bitmap& map = allocated_->bits();
    std::uint64_t at = range.offset_bytes;
    while (at < range.end_bytes() && extents.size() < max_extents) {
        const std::uint64_t unit = at / kDirtyUnitBytes;
        const bool allocated = map.test(unit);
        const std::uint64_t end =
            std::min(map.find(unit, !allocated) * kDirtyUnitBytes, range.end_bytes());
        extents.push_back(block::Extent{end - at, allocated, !allocated});
        at = end;
    }
    return extents;
}

// ---- the public face

io::Task<ReplicaStore::Opened> ReplicaStore::create(io::Reactor* reactor, io::BufferPool* buffers,
                                                    std::string folder, const ReplicaConfig& config,
                                                    StoreOptions options) {
    return create_in(reactor, buffers,
                     std::make_unique<RealDiskFolder>(*reactor, std::move(folder)), config,
                     std::move(options));
}

io::Task<ReplicaStore::Opened> ReplicaStore::open(io::Reactor* reactor, io::BufferPool* buffers,
                                                  std::string folder, StoreOptions options) {
    const auto incarnation = ReplicaId::parse(fs::name_of(folder));
    if (!incarnation)
        return ended_with(
            Error{Errc::kInvalidArgument, 0, "a replica's folder is named by its id"});
    return open_in(reactor, buffers, std::make_unique<RealDiskFolder>(*reactor, std::move(folder)),
                   *incarnation, std::move(options));
}

ReplicaStore::ReplicaStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ReplicaStore::~ReplicaStore() = default;

io::Task<ReplicaStore::Opened> ReplicaStore::make_and_take(ReplicaStore* made, Superblock first) {
    std::unique_ptr<ReplicaStore> store(made);
    CO_TRY(co_await store->impl_->make(first));
    co_return Opened(std::move(store));
}

io::Task<ReplicaStore::Opened> ReplicaStore::load_and_take(ReplicaStore* made,
                                                           ReplicaId incarnation) {
    std::unique_ptr<ReplicaStore> store(made);
    CO_TRY(co_await store->impl_->load(incarnation));
    co_return Opened(std::move(store));
}

io::Task<ReplicaStore::Opened> ReplicaStore::create_in(io::Reactor* reactor,
                                                       io::BufferPool* buffers,
                                                       std::unique_ptr<DiskFolder> folder,
                                                       const ReplicaConfig& config,
                                                       StoreOptions options) {
    if (!config.volume || !config.incarnation || config.size_bytes == 0 ||
        !is_aligned(config.size_bytes, kSectorBytes))
        return ended_with(
            Error{Errc::kInvalidArgument, 0, "a replica has a volume, an id and whole sectors"});
    auto impl = std::make_unique<Impl>(reactor, buffers, std::move(folder), std::move(options));
    return make_and_take(new ReplicaStore(std::move(impl)), first_superblock(config));
}

io::Task<ReplicaStore::Opened> ReplicaStore::open_in(io::Reactor* reactor, io::BufferPool* buffers,
                                                     std::unique_ptr<DiskFolder> folder,
                                                     ReplicaId incarnation, StoreOptions options) {
    auto impl = std::make_unique<Impl>(reactor, buffers, std::move(folder), std::move(options));
    return load_and_take(new ReplicaStore(std::move(impl)), incarnation);
}

const block::Geometry& ReplicaStore::geometry() const { return impl_->geometry_; }
const Superblock& ReplicaStore::superblock() const { return impl_->superblock_->current(); }
bool ReplicaStore::both_superblocks_valid() const {
    return impl_->superblock_->both_copies_valid();
}
io::Task<Result<void>> ReplicaStore::update_superblock(SuperblockChange change) {
    return impl_->update_superblock(change);
}
io::Task<Result<void>> ReplicaStore::mark_clean() { return impl_->mark_clean(); }
const Bitmap& ReplicaStore::activity() const { return impl_->activity_->bits(); }
io::Task<Result<void>> ReplicaStore::clear_activity(std::span<const std::uint32_t> regions,
                                                    std::uint64_t through) {
    return impl_->clear_activity(regions, through);
}
const Bitmap* ReplicaStore::dirty(ReplicaId lost) const {
    const LostReplicas& known = superblock().lost;
    for (std::size_t i = 0; i < kDirtyMaps; ++i) {
        if (lost && known[i].replica == lost) return &impl_->dirty_[i]->bits();
    }
    return nullptr;
}
const Bitmap& ReplicaStore::allocated() const { return impl_->allocated_->bits(); }
const std::optional<Error>& ReplicaStore::failed() const { return impl_->failed_; }
io::Task<void> ReplicaStore::close() { return impl_->close(); }
StoreStats ReplicaStore::stats() const { return impl_->stats(); }

io::Task<Result<void>> ReplicaStore::do_read(std::uint64_t offset_bytes,
                                             std::span<std::byte> into) {
    return impl_->read(offset_bytes, into);
}
io::Task<Result<void>> ReplicaStore::do_write(std::uint64_t offset_bytes,
                                              std::span<const std::byte> data,
                                              block::WriteOptions options) {
    return impl_->write(offset_bytes, data, options.fua);
}
io::Task<Result<void>> ReplicaStore::do_flush() { return impl_->flush(); }
io::Task<Result<void>> ReplicaStore::do_discard(Range range, block::WriteOptions options) {
    return impl_->zero(
        {.range = range, .keep_allocated = false, .fast_only = false, .fua = options.fua});
}
io::Task<Result<void>> ReplicaStore::do_write_zeroes(Range range, block::ZeroOptions options) {
    return impl_->zero({.range = range,
                        .keep_allocated = options.keep_allocated,
                        .fast_only = options.fast_only,
                        .fua = options.fua});
}
io::Task<Result<std::vector<block::Extent>>> ReplicaStore::do_block_status(
    Range range, std::size_t max_extents) {
    co_return impl_->block_status(range, max_extents);
}

}  // namespace ublkd::store
