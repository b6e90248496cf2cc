// A pool: the folder in which replicas live.
//   <folder>/pool              who it is: PoolId, failure domain, size cap, buffered
//   <folder>/lock              flock(2)ed while a daemon has the pool, so that two never share it
//   <folder>/replicas/<rep-id> one replica each (replica_store.h)
// What a crash left half made (*.making) or half removed (*.removing) is deleted when the pool is
// opened. Bytes: docs/format-replica.md.
// Fault point: store.probe_direct (fail:22: as a file system without O_DIRECT).
// Blocking calls, for the control plane (never on a reactor). What is const, budget() and
// remove_replica() are thread-safe.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ublkd/base/fd.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/store/allocation_budget.h"

namespace ublkd::store {

inline constexpr std::size_t kMaxDomainBytes = 128;

struct PoolConfig {
    PoolId id;           // none: one is drawn
    std::string domain;  // failure domain, <= kMaxDomainBytes; empty: the caller derives one
    std::uint64_t size_cap_bytes = 0;  // what its replicas may allocate; 0: no cap
    bool buffered = false;             // for a file system without O_DIRECT; for trying out
};

struct PoolSpace {
    std::uint64_t file_system_bytes = 0;
    std::uint64_t file_system_free_bytes = 0;  // for an unprivileged user
    std::uint64_t cap_bytes = 0;               // 0: none
    std::uint64_t allocated_bytes = 0;         // by its replicas
    /// What may still be allocated: the smaller of what the cap and the file system leave.
    std::uint64_t available_bytes() const;
};

struct ReplicaEntry {
    ReplicaId id;
    std::string folder;
};

class Pool {
  public:
    /// Whether create() may take `folder`: it does not exist, or is empty. Errors: kExists (there
    /// is a pool already), kBusy (not empty), what listing it gives.
    static Result<void> check_free(const std::string& folder);
    /// Makes a pool in `folder`, which is created where it does not exist (its parent must), and
    /// opens it. Errors: kExists (there is a pool already), kUnsupported (no O_DIRECT, and not
    /// `buffered`), kInvalidArgument (domain), kBusy (folder not empty, or locked), kNoSpace,
    /// kReadOnly, kNotPermitted, kIo. Leaves nothing behind then.
    static Result<std::unique_ptr<Pool>> create(const std::string& folder,
                                                const PoolConfig& config);
    /// Errors: kNotFound, kBusy (another daemon has it), kCorrupt, kUnsupported (another format
    /// version, or no O_DIRECT).
    /// Waits up to `lock_wait_ms` for another daemon to go: one that was killed may still be dying.
    static Result<std::unique_ptr<Pool>> open(const std::string& folder,
                                              std::uint32_t lock_wait_ms = 5'000);
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    /// Gives the lock back. The stores of its replicas may live on (they hold budget()).
    ~Pool() = default;

    PoolId id() const { return config_.id; }
    const std::string& folder() const { return folder_; }
    const std::string& domain() const { return config_.domain; }
    bool buffered() const { return config_.buffered; }
    /// What it was opened on: pools that have the same share its free space.
    dev_t file_system() const { return opened_device_; }
    const std::shared_ptr<AllocationBudget>& budget() const { return budget_; }

    Result<PoolSpace> space() const;
    /// Whether what was opened is still what lies in folder(), and not below or above a mount that
    /// has changed since.
    Result<bool> is_in_place() const;

    /// Where the replica `id` lives or would live; made by ReplicaStore::create().
    std::string replica_folder(ReplicaId id) const;
    Result<std::vector<ReplicaEntry>> replicas() const;
    /// Deletes the replica with its data, durably; ok where there is none. kBusy while a store has
    /// it open.
    Result<void> remove_replica(ReplicaId id);
    /// Deletes the pool itself (file, lock, folder `replicas`; the folder too where it is empty
    /// then). kBusy while it has replicas. Nothing but destruction may follow.
    Result<void> destroy();

  private:
    Pool(std::string folder, PoolConfig config, Fd lock);
    Result<void> sweep();

    std::string folder_;
    PoolConfig config_;
    Fd lock_;
    dev_t opened_device_ = 0;  // of the lock
    ino_t opened_inode_ = 0;
    std::shared_ptr<AllocationBudget> budget_;
};

}  // namespace ublkd::store
