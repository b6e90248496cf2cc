#include "tests/crash/store_workload.h"

#include <algorithm>
#include <array>

#include "ublkd/base/check.h"
#include "ublkd/io/aligned_memory.h"

namespace ublkd::crash {
namespace {

store::ReplicaConfig config_of_test(bool direct) {
    return store::ReplicaConfig{.volume = VolumeId(7),
                                .incarnation = kReplica,
                                .size_bytes = StoreWorkload::kSizeBytes,
                                .direct = direct};
}

}  // namespace

StoreWorkload::StoreWorkload(io::Reactor* reactor, io::BufferPool* buffers, RecordedDisk* disk,
                             std::uint64_t seed)
    : reactor_(reactor),
      buffers_(buffers),
      disk_(disk),
      random_(seed),
      busy_(kSizeBytes / kSectorBytes),
      seed_(seed) {}

void StoreWorkload::run() {
    const bool direct = seed_ % 4 != 3;
    auto made = reactor_->run_until_complete(store::ReplicaStore::create_in(
        reactor_, buffers_, disk_->folder(), config_of_test(direct), {}));
    CHECK(made, "a replica on a disk without faults");
    store_ = std::move(*made);
    disk_->start_recording();
    history_.issue_mark(0);  // a new replica is clean
    for (int i = 0; i < 3; ++i) {
        if (fail_one_sync_ && i == 2) disk_->fail_next_sync();
        reactor_->run_until_complete(phase());
        if (seed_ % 2 == 1) reactor_->run_until_complete(mark());
    }
    reactor_->run_until_complete(flush());
    reactor_->run_until_complete(store_->close());
    store_.reset();
}

io::Task<void> StoreWorkload::phase() {
    io::TaskGroup workers;
    for (int i = 0; i < 4; ++i) workers.start(worker(12));
    co_await workers.wait();
}

io::Task<void> StoreWorkload::worker(std::uint64_t requests) {
    for (; requests > 0; --requests) co_await one_request();
}

io::Task<void> StoreWorkload::one_request() {
    const std::uint64_t what = random_() % 100;
    if (what < 76) {
        Range range = pick();
        while (!take(range)) {
            co_await reactor_->yield();
            range = pick();
        }
        co_await change(range);
        give_back(range);
    } else if (what < 86) {
        co_await flush();
    } else if (what < 91) {
        co_await clear_regions();
    } else if (what < 94) {
        co_await clear_at_random();
    } else {
        co_await update();
    }
}

/// Few places, so that requests meet: the start of the first regions, a unit's border, the ragged
/// end.
Range StoreWorkload::pick() {
    constexpr std::array<std::uint64_t, 4> kPlaces{0, kRegionBytes - 2 * kPageBytes,
                                                   2 * kRegionBytes + kDirtyUnitBytes,
                                                   kSizeBytes - 3 * kPageBytes - 3 * kSectorBytes};
    const std::uint64_t base = kPlaces[random_() % kPlaces.size()];
    const bool pages = random_() % 3 == 0;
    const std::uint64_t unit = pages ? kPageBytes : kSectorBytes;
    const std::uint64_t offset = base + random_() % (4 * kPageBytes / unit) * unit;
    const std::uint64_t length = (1 + random_() % (pages ? 3 : 12)) * unit;
    if (random_() % 12 == 0) {  // sometimes a unit and more, so that holes are made
        const std::uint64_t begin = align_down(base, kDirtyUnitBytes);
        return Range{begin, std::min<std::uint64_t>(2 * kDirtyUnitBytes, kSizeBytes - begin)};
    }
    return Range{std::min(offset, kSizeBytes - kSectorBytes),
                 std::min(length, kSizeBytes - std::min(offset, kSizeBytes - kSectorBytes))};
}

bool StoreWorkload::take(Range range) {
    const std::uint64_t end = range.end_bytes() / kSectorBytes;
    for (std::uint64_t sector = range.offset_bytes / kSectorBytes; sector < end; ++sector) {
        if (busy_[sector]) return false;
    }
    for (std::uint64_t sector = range.offset_bytes / kSectorBytes; sector < end; ++sector)
        busy_[sector] = true;
    return true;
}

void StoreWorkload::give_back(Range range) {
    for (std::uint64_t sector = range.offset_bytes / kSectorBytes;
         sector < range.end_bytes() / kSectorBytes; ++sector)
        busy_[sector] = false;
}

io::Task<void> StoreWorkload::change(Range range) {
    const std::uint64_t what = random_() % 20;
    const bool fua = random_() % 6 == 0;
    const bool zeroes = what < 5 || range.length_bytes > 16 * kPageBytes;
    const auto index = history_.issue_change(range, zeroes, disk_->moment());
    Result<void> done;
    if (!zeroes) {
        // Odd memory now and then: it goes through a buffer of the store's.
        const std::size_t shift = random_() % 4 == 0 ? 8 : 0;
        io::Buffer memory = buffers_->try_acquire(range.length_bytes + kPageBytes);
        const auto data = memory.span().subspan(shift, range.length_bytes);
        history_.fill(index, range.offset_bytes, data);
        done = co_await store_->write(range.offset_bytes, data, block::WriteOptions{.fua = fua});
    } else if (what % 2 == 0) {
        done = co_await store_->discard(range, block::WriteOptions{.fua = fua});
    } else {
        const block::ZeroOptions options{.fua = fua, .keep_allocated = what % 3 == 0};
        done = co_await store_->write_zeroes(range, options);
    }
    if (done) {
        history_.acknowledge(index, fua, disk_->moment());
    } else {
        ++failures_;
    }
}

io::Task<void> StoreWorkload::flush() {
    const auto covered = history_.begin_flush();
    const Result<void> flushed = co_await store_->flush();
    if (flushed) {
        history_.end_flush(covered, disk_->moment());
    } else {
        ++failures_;
    }
}

/// As replication does it: what did not change since before a flush.
io::Task<void> StoreWorkload::clear_regions() {
    std::vector<std::uint32_t> regions;
    const store::Bitmap& active = store_->activity();
    for (std::uint64_t at = active.find_set(0); at < active.size(); at = active.find_set(at + 1))
        regions.push_back(static_cast<std::uint32_t>(at));
    co_await flush();
    history_.allow_clear(regions, disk_->moment());
    const Result<void> cleared = co_await store_->clear_activity(regions, 1);
    if (!cleared) ++failures_;
}

/// A caller that is wrong: the store keeps what is not durable.
io::Task<void> StoreWorkload::clear_at_random() {
    const std::vector<std::uint32_t> regions{0, 1, 2, 3};
    history_.allow_clear(regions, disk_->moment());
    const Result<void> cleared = co_await store_->clear_activity(regions, 1);
    if (!cleared) ++failures_;
}

io::Task<void> StoreWorkload::update() {
    const std::uint64_t value = history_.issue_update(disk_->moment());
    store::SuperblockChange change;
    change.durable_through = value;
    change.number = value;
    change.record = history_.record_of(value);
    const Result<void> updated = co_await store_->update_superblock(change);
    if (updated) {
        history_.acknowledge_update(value, disk_->moment());
    } else {
        ++failures_;
    }
}

io::Task<void> StoreWorkload::mark() {
    history_.issue_mark(disk_->moment());
    const auto covered = history_.begin_flush();
    const Result<void> marked = co_await store_->mark_clean();
    if (marked) {
        history_.end_flush(covered, disk_->moment());
    } else {
        ++failures_;
    }
}

std::string check_image(io::Reactor* reactor, io::BufferPool* buffers, DiskImage image,
                        const StoreHistory& history, std::size_t moment, bool no_seek) {
    RecordedDisk disk(1, std::move(image));
    disk.set_immediate();
    if (no_seek) disk.set_no_seek();
    auto opened = reactor->run_until_complete(
        store::ReplicaStore::open_in(reactor, buffers, disk.folder(), kReplica, {}));
    if (!opened) return "the replica cannot be opened: " + to_string(opened.error());
    static const io::AlignedMemory memory(kMaxIoBytes);
    std::vector<std::byte> data;
    for (const Range range : history.touched()) {
        const auto into = memory.span().first(range.length_bytes);
        const auto got = reactor->run_until_complete((*opened)->read(range.offset_bytes, into));
        if (!got) return "the replica cannot be read: " + to_string(got.error());
        data.insert(data.end(), into.begin(), into.end());
    }
    return history.check(moment, **opened, data);
}

}  // namespace ublkd::crash
