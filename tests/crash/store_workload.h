// Random work on a store over a RecordedDisk, noted in a StoreHistory: writes of all alignments
// (several in one page at once), FUA, discards, write zeroes, flushes, clearing of the activity
// map, superblock updates, clean marks.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "tests/crash/recorded_disk.h"
#include "tests/crash/store_history.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::crash {

inline constexpr ReplicaId kReplica{0x5eed};

class StoreWorkload {
  public:
    // Ragged: three regions and a part, the last page partial.
    static constexpr std::uint64_t kSizeBytes =
        3 * kRegionBytes + 5 * kPageBytes + 3 * kSectorBytes;

    StoreWorkload(io::Reactor* reactor, io::BufferPool* buffers, RecordedDisk* disk,
                  std::uint64_t seed);

    /// Makes the replica, starts recording, works, flushes, and closes it in order where `seed` is
    /// odd.
    void run();
    const StoreHistory& history() const { return history_; }
    /// Errors other than kNoSpace that requests got.
    std::uint64_t failures() const { return failures_; }
    /// In the last third of the work the disk fails one flush, and forgets what was not durable.
    void fail_one_sync() { fail_one_sync_ = true; }

  private:
    io::Task<void> phase();
    io::Task<void> worker(std::uint64_t requests);
    io::Task<void> one_request();
    io::Task<void> change(Range range);
    io::Task<void> flush();
    io::Task<void> clear_regions();
    io::Task<void> clear_at_random();
    io::Task<void> update();
    io::Task<void> mark();
    bool take(Range range);
    void give_back(Range range);
    Range pick();

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    RecordedDisk* disk_;
    std::mt19937_64 random_;
    StoreHistory history_;
    std::unique_ptr<store::ReplicaStore> store_;
    std::vector<bool> busy_;  // per sector
    std::uint64_t failures_ = 0;
    std::uint64_t seed_;
    bool fail_one_sync_ = false;
};

/// Opens the replica on `image` and checks it against `history`. Empty: the contract is kept.
std::string check_image(io::Reactor* reactor, io::BufferPool* buffers, DiskImage image,
                        const StoreHistory& history, std::size_t moment, bool no_seek);

}  // namespace ublkd::crash
