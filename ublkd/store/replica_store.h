// One replica on one disk, as a BlockDevice: the last step of the write path (front -> volume ->
// replication -> store).
//   <pool>/replicas/<rep-id>/data        the volume's blocks: sparse, O_DIRECT
//                            superblock  two copies (superblock.h)
//                            maps        activity and allocated map (map_file.h)
// Bytes: docs/format-replica.md.
//
// Invariants
// - A region's activity bit is durable before the first write to it begins (R10), and stays until
//   clear_activity(): steady writes to a region cost one disk request each, no map I/O and no heap.
// - The allocated map never under-reports: in memory it is exact; on disk it counts for regions
//   that are not active, and those of active ones are found again at open (SEEK_DATA) unless the
//   replica was closed in order.
// - Requests of any sector alignment: less than a page is read, changed and written under a lock on
//   the page; writes and zeroing that overlap such a step wait for it, in order of arrival.
// - The first change after a clean close removes the clean mark, durably, before it begins.
// - A failed write or fsync of any of the three files puts the replica out for good (R14): failed()
//   says why, every later request ends at once with that error, nothing is tried again. Before the
//   first request is told, the superblock loses its boot id and its clean mark, where it can still
//   be written; after a second the request is told and the mark goes on by itself. A read error is
//   returned and no more (replication reads the range from a peer and rewrites it). kNoSpace (disk
//   or budget) does not put it out.
//
// Owner: replication, on the volume's reactor; nothing here is thread-safe. Destroyed when no
// request is under way, and after close().
//
// Fault points (`fail` makes the step fail with the errno; `crash` and `delay` work at each):
//   store.data_read, .data_write, .data_sync, .zero, .map_write, .superblock_write: before the step
//   store.after_data_write, .after_data_sync, .after_zero, .after_map_write,
//     .after_superblock_write: after it and before anybody is told
//   store.create, store.publish: before the first file of a new replica is made; before its
//     finished folder gets its name; store.open: before the first file of one is opened
// Rules that tests switch off: rule.activity_bit_first, .allocated_before_clear,
//   .clear_after_flush, .clean_mark_first, .page_lock, .zero_lock, .flush_starts_after,
//   .superblock_alternate, .flush_to_disk, .fsync_once, .own_location, .files_locked,
//   .out_is_marked, .discard_is_zero; .pool_cap (allocation_budget.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ublkd/block/block_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/worker.h"
#include "ublkd/store/allocation_budget.h"
#include "ublkd/store/bitmap.h"
#include "ublkd/store/disk_file.h"
#include "ublkd/store/superblock.h"

namespace ublkd::store {

struct ReplicaConfig {
    VolumeId volume;
    ReplicaId incarnation;
    std::uint64_t size_bytes = 0;  // multiple of 512
    bool direct = true;            // false in a pool of --buffered
    BootId boot_id{};
};

struct StoreOptions {
    /// The pool's (Pool::budget()); none: what is allocated is not limited.
    std::shared_ptr<AllocationBudget> budget{};
    /// Where calls are made that may block on the disk, such as open(2) and fsync(2) of a folder;
    /// none: on the reactor (tests).
    std::shared_ptr<io::Worker> worker{};
    /// How long open() waits for the last writes of a process that died; they may outlive it by
    /// what the disk needs.
    std::uint32_t lock_wait_ms = 15'000;
};

/// Requests made to the disk, since open.
struct StoreStats {
    std::uint64_t data_reads = 0;
    std::uint64_t data_writes = 0;
    std::uint64_t data_syncs = 0;
    std::uint64_t zeroings = 0;
    std::uint64_t map_writes = 0;
    std::uint64_t superblock_writes = 0;
    std::uint64_t bounced = 0;  // requests that went through a buffer of ours
};

class ReplicaStore final : public block::BlockDevice {
  public:
    using Opened = Result<std::unique_ptr<ReplicaStore>>;

    /// Makes the replica in `folder` (which must not exist; its parent must), durably, and opens
    /// it, marked clean. Errors: kExists, kNoSpace, kIo, kUnsupported (no O_DIRECT there),
    /// kInvalidArgument. Leaves nothing behind then.
    static io::Task<Opened> create(io::Reactor* reactor, io::BufferPool* buffers,
                                   std::string folder, const ReplicaConfig& config,
                                   StoreOptions options = {});
    /// Opens the replica in `folder`, whose name is the incarnation's id. Reads superblock and
    /// maps; writes nothing. Errors: kNotFound; kBusy (open already, or still written to by a dead
    /// process after lock_wait_ms); kCorrupt (no valid superblock, a map page, a file cut short);
    /// kUnsupported (another format version); kIo.
    static io::Task<Opened> open(io::Reactor* reactor, io::BufferPool* buffers, std::string folder,
                                 StoreOptions options = {});
    /// The same over another kind of folder (tests/crash).
    static io::Task<Opened> create_in(io::Reactor* reactor, io::BufferPool* buffers,
                                      std::unique_ptr<DiskFolder> folder,
                                      const ReplicaConfig& config, StoreOptions options);
    static io::Task<Opened> open_in(io::Reactor* reactor, io::BufferPool* buffers,
                                    std::unique_ptr<DiskFolder> folder, ReplicaId incarnation,
                                    StoreOptions options);
    ~ReplicaStore() override;

    const block::Geometry& geometry() const override;

    /// The newest durable superblock. After open(): as it was found.
    const Superblock& superblock() const;
    /// False where open() could read one copy alone: as a power cut leaves it during an update, or
    /// a bad disk.
    bool both_superblocks_valid() const;
    /// Durable when it has ended; updates are made one after another. An error other than kNoSpace
    /// puts the replica out; on kNoSpace nothing was changed. Where change.lost names a replica
    /// that it did not, or under another number, that one's dirty map begins at this call, as a
    /// copy of the activity map; each change that begins later is in it before it reaches the data.
    io::Task<Result<void>> update_superblock(SuperblockChange change);
    /// Flushes data, makes the maps exact on disk and sets the clean mark: the last step before an
    /// orderly close. kBusy while changes are under way. A later change removes the mark again.
    io::Task<Result<void>> mark_clean();

    /// Regions (4 MiB; bit r: [r * kRegionBytes, ...)) that may differ from other members (R7,
    /// R10).
    const Bitmap& activity() const;
    /// Clears the bits of `regions` (R10: their writes are durable on all members), on disk too
    /// when it has ended; first the superblock says that it is done for the mark `through`. Skips
    /// those with a change that is under way or not flushed here, or that ends after this call.
    /// `regions` lives until it has ended.
    io::Task<Result<void>> clear_activity(std::span<const std::uint32_t> regions,
                                          std::uint64_t through);
    /// R11: units (64 KiB) that may differ from the replica that was lost; nullptr: no map of it.
    const Bitmap* dirty(ReplicaId lost) const;
    /// Units (64 KiB) that are not holes.
    const Bitmap& allocated() const;

    /// Why the replica is out (R14); nullopt: it is in service.
    const std::optional<Error>& failed() const;
    /// Before it is destroyed where failed(): ends when its mark in the superblock is written.
    io::Task<void> close();

    StoreStats stats() const;

    class Impl;  // replica_impl.h

  private:
    explicit ReplicaStore(std::unique_ptr<Impl> impl);
    static io::Task<Opened> make_and_take(ReplicaStore* made, Superblock first);
    static io::Task<Opened> load_and_take(ReplicaStore* made, ReplicaId incarnation);

    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override;
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    block::WriteOptions options) override;
    io::Task<Result<void>> do_flush() override;
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override;
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override;
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t max_extents) override;

    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::store
