// Making and opening a replica: its folder, files and locks. What may block on the disk is done by
// the pool's worker (StoreOptions::worker), so that a disk that hangs holds up no other volume of
// the reactor.
#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/store/replica_impl.h"

namespace ublkd::store {
namespace {

std::uint64_t regions_of(std::uint64_t size_bytes) { return divide_up(size_bytes, kRegionBytes); }
std::uint64_t units_of(std::uint64_t size_bytes) { return divide_up(size_bytes, kDirtyUnitBytes); }
std::uint64_t activity_bytes(std::uint64_t size_bytes) {
    return PersistentMap::bytes_for(regions_of(size_bytes));
}
std::uint64_t maps_bytes(std::uint64_t size_bytes) {
    return activity_bytes(size_bytes) +
           (1 + kDirtyMaps) * PersistentMap::bytes_for(units_of(size_bytes));
}
/// The data file ends with a whole page, so that the last sectors of a volume are written like all
/// others.
std::uint64_t data_bytes(std::uint64_t size_bytes) { return align_up(size_bytes, kPageBytes); }

}  // namespace

ReplicaStore::Impl::Impl(io::Reactor* reactor, io::BufferPool* buffers,
                         std::unique_ptr<DiskFolder> folder, StoreOptions options)
    : reactor_(reactor),
      buffers_(buffers),
      options_(std::move(options)),
      syncing_(&Impl::sync_round, this),
      reserve_(kMaxIoBytes + kPageBytes) {
    CHECK(reserve_, "memory for bounced requests");
    files_.folder = std::move(folder);
}

ReplicaStore::Impl::~Impl() {
    if (options_.budget && allocated_)
        options_.budget->settle(superblock_->current().incarnation,
                                allocated_->bits().count() * kDirtyUnitBytes);
}

/// Nothing else of this object is used meanwhile.
io::Task<Result<void>> ReplicaStore::Impl::blocking(const std::function<Result<void>()>* call) {
    if (!options_.worker) co_return (*call)();
    io::Offload<Result<void>> elsewhere(*options_.worker, *call);
    co_return co_await elsewhere;
}

Result<void> ReplicaStore::Impl::open_superblock(bool create) {
    if (!create) {
        if (const int error = faults::hit("store.open")) return fail_errno(error, "open replica");
    }
    TRY_ASSIGN(auto file, files_.folder->open("superblock", {.create = create, .direct = false}));
    superblock_.emplace(std::move(file));
    return {};
}

/// The superblock, which tells how, is open already; it is used without O_DIRECT itself.
Result<void> ReplicaStore::Impl::open_rest(bool create, bool buffered) {
    TRY_ASSIGN(files_.data, files_.folder->open("data", {.create = create, .direct = !buffered}));
    TRY_ASSIGN(files_.maps, files_.folder->open("maps", {.create = create, .direct = !buffered}));
    return {};
}

Result<void> ReplicaStore::Impl::make_files(const Superblock& first) {
    TRY(files_.folder->begin_making());
    TRY(open_superblock(true));
    if (const int error = faults::hit("store.create")) return fail_errno(error, "make replica");
    return open_rest(true, first.buffered);
}

Result<void> ReplicaStore::Impl::set_sizes(std::uint64_t size_bytes) {
    TRY(superblock_->file()->set_size(kSuperblockFileBytes));
    TRY(files_.data->set_size(data_bytes(size_bytes)));
    return files_.maps->set_size(maps_bytes(size_bytes));
}

Result<void> ReplicaStore::Impl::check_sizes(std::uint64_t size_bytes) const {
    TRY_ASSIGN(const auto data, files_.data->size_bytes());
    if (data < data_bytes(size_bytes)) return fail(Errc::kCorrupt, "data file is cut short");
    TRY_ASSIGN(const auto maps, files_.maps->size_bytes());
    if (maps < maps_bytes(size_bytes)) return fail(Errc::kCorrupt, "map file is cut short");
    return {};
}

void ReplicaStore::Impl::make_parts(const Superblock& superblock) {
    const std::uint64_t size = superblock.size_bytes;
    geometry_.size_bytes = size;
    buffered_ = files_.data->alignment_bytes() == 1;
    activity_.emplace(files_.maps.get(), MapKind::kActivity, superblock.incarnation,
                      regions_of(size), 0);
    allocated_.emplace(files_.maps.get(), MapKind::kAllocated, superblock.incarnation,
                       units_of(size), activity_bytes(size));
    for (std::size_t i = 0; i < kDirtyMaps; ++i)
        dirty_[i].emplace(
            files_.maps.get(), i == 0 ? MapKind::kDirty : MapKind::kDirtyToo,
            superblock.incarnation, units_of(size),
            activity_bytes(size) + (1 + i) * PersistentMap::bytes_for(units_of(size)));
    tracked_ = superblock.lost;
    tracks_ =
        std::ranges::any_of(tracked_, [](const LostReplica& entry) { return bool(entry.replica); });
    changing_.assign(regions_of(size), 0);
    changed_.assign(regions_of(size), 0);
}

io::Task<Result<void>> ReplicaStore::Impl::make(const Superblock& first) {
    const Result<void> made = co_await format(first);
    if (made) co_return made;
    const std::function<Result<void>()> abandon = [this]() -> Result<void> {
        files_.folder->abandon();
        return {};
    };
    (void)co_await blocking(&abandon);
    co_return made;
}

io::Task<Result<void>> ReplicaStore::Impl::format(const Superblock& first) {
    const std::function<Result<void>()> files = [this, &first] { return make_files(first); };
    CO_TRY(co_await blocking(&files));
    superblock_->file()->start();
    files_.data->start();
    files_.maps->start();
    CO_TRY(co_await lock(files_.data.get()));
    CO_TRY(co_await lock(files_.maps.get()));
    const std::function<Result<void>()> sizes = [this, &first] {
        return set_sizes(first.size_bytes);
    };
    CO_TRY(co_await blocking(&sizes));
    CO_TRY(co_await lock(files_.folder.get()));
    CO_TRY(co_await lock(superblock_->file()));
    CO_TRY(co_await superblock_->format(first));
    make_parts(first);
    CO_TRY(co_await activity_->format());
    CO_TRY(co_await allocated_->format());
    for (auto& map : dirty_) {
        CO_TRY(co_await map->format());
    }
    CO_TRY(co_await files_.data->sync());
    const std::function<Result<void>()> publish = [this] { return files_.folder->publish(); };
    CO_TRY(co_await blocking(&publish));
    if (options_.budget) options_.budget->set_share(first.incarnation, 0);
    co_return Result<void>{};
}

template <class Lockable>
io::Task<Result<void>> ReplicaStore::Impl::lock(Lockable* what) {
    constexpr std::uint32_t kStepMs = 20;
    if (faults::rule_off("rule.files_locked")) co_return Result<void>{};
    const std::function<Result<void>()> attempt = [what] { return what->try_lock(); };
    for (std::uint32_t waited_ms = 0;; waited_ms += kStepMs) {
        const Result<void> locked = co_await blocking(&attempt);
        if (locked || locked.error().code != Errc::kBusy || waited_ms >= options_.lock_wait_ms)
            co_return locked;
        co_await io::Reactor::current()->sleep_for(std::chrono::milliseconds(kStepMs));
    }
}

io::Task<Result<void>> ReplicaStore::Impl::load(ReplicaId incarnation) {
    const std::function<Result<void>()> superblock = [this] { return open_superblock(false); };
    CO_TRY(co_await blocking(&superblock));
    superblock_->file()->start();
    CO_TRY(co_await lock(files_.folder.get()));
    CO_TRY(co_await lock(superblock_->file()));
    CO_TRY(co_await superblock_->load(incarnation));
    const Superblock& found = superblock_->current();
    const std::function<Result<void>()> rest = [this, &found] {
        return open_rest(false, found.buffered);
    };
    CO_TRY(co_await blocking(&rest));
    files_.data->start();
    files_.maps->start();
    CO_TRY(co_await lock(files_.data.get()));
    CO_TRY(co_await lock(files_.maps.get()));
    const std::function<Result<void>()> sizes = [this, &found] {
        return check_sizes(found.size_bytes);
    };
    CO_TRY(co_await blocking(&sizes));
    make_parts(found);
    CO_TRY(co_await activity_->load());
    CO_TRY(co_await allocated_->load());
    for (auto& map : dirty_) {
        CO_TRY(co_await map->load());
    }
    if (!found.clean) {
        const std::function<Result<void>()> find = [this] { return find_allocated(); };
        CO_TRY(co_await blocking(&find));
    }
    writable_ = !found.clean;
    if (options_.budget)
        options_.budget->set_share(incarnation, allocated_->bits().count() * kDirtyUnitBytes);
    co_return Result<void>{};
}

/// On disk the allocated map counts for regions that are not active (docs/format-replica.md). After
/// a crash those that are get it from the file itself; where the file system cannot tell, all of
/// their units count as allocated.
Result<void> ReplicaStore::Impl::find_allocated() {
    const Bitmap& active = activity_->bits();
    std::uint64_t region = active.find_set(0);
    while (region < active.size()) {
        const std::uint64_t end_region = active.find_clear(region);
        const std::uint64_t end = std::min(end_region * kRegionBytes, geometry_.size_bytes);
        std::uint64_t at = region * kRegionBytes;
        while (at < end) {
            const Result<Range> data = files_.data->next_data(at);
            if (!data && data.error().code != Errc::kUnsupported) return fail(data.error());
            const Range part = data ? *data : Range{at, end - at};
            if (part.length_bytes == 0 || part.offset_bytes >= end) break;
            const std::uint64_t stop = std::min(part.end_bytes(), end);
            for (std::uint64_t unit = part.offset_bytes / kDirtyUnitBytes;
                 unit * kDirtyUnitBytes < stop; ++unit) {
                if (!allocated_->test(unit)) allocated_->set(unit);
            }
            at = stop;
        }
        region = active.find_set(end_region);
    }
    return {};
}

}  // namespace ublkd::store
