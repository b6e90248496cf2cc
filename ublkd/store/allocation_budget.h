// How much the replicas of one pool may allocate (`--size`). Nothing is preallocated: a replica
// charges what it writes first, in units of 64 KiB, and gets it back by discard. Shared by the
// stores of a pool, which may live on different reactors: thread-safe; charge() and refund() are
// one atomic step.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>

#include "ublkd/base/ids.h"

namespace ublkd::store {

class AllocationBudget {
  public:
    /// `cap_bytes` 0: no cap (the file system is the limit).
    explicit AllocationBudget(std::uint64_t cap_bytes) : cap_bytes_(cap_bytes) {}
    AllocationBudget(const AllocationBudget&) = delete;
    AllocationBudget& operator=(const AllocationBudget&) = delete;

    /// False, and nothing charged, where that would exceed the cap.
    bool charge(std::uint64_t bytes) noexcept;
    void refund(std::uint64_t bytes) noexcept {
        used_bytes_.fetch_sub(bytes, std::memory_order_relaxed);
    }

    /// What `replica` has allocated, known by its folder (pool) or exactly (its store at open). May
    /// exceed the cap.
    void set_share(ReplicaId replica, std::uint64_t bytes);
    /// The store of `replica` closes; what it charged since set_share() becomes its share.
    void settle(ReplicaId replica, std::uint64_t bytes);
    /// `replica` was removed.
    void forget(ReplicaId replica);

    std::uint64_t used_bytes() const noexcept {
        return used_bytes_.load(std::memory_order_relaxed);
    }
    std::uint64_t cap_bytes() const noexcept { return cap_bytes_.load(std::memory_order_relaxed); }
    void set_cap_bytes(std::uint64_t cap_bytes) noexcept {
        cap_bytes_.store(cap_bytes, std::memory_order_relaxed);
    }

  private:
    std::atomic<std::uint64_t> cap_bytes_;
    std::atomic<std::uint64_t> used_bytes_ = 0;
    std::mutex mutex_;
    std::map<ReplicaId, std::uint64_t> shares_;
};

}  // namespace ublkd::store
