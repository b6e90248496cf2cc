#include "ublkd/store/allocation_budget.h"

#include "ublkd/base/fault_injection.h"

namespace ublkd::store {

bool AllocationBudget::charge(std::uint64_t bytes) noexcept {
    const std::uint64_t cap = faults::rule_off("rule.pool_cap") ? 0 : cap_bytes();
    std::uint64_t used = used_bytes();
    do {
        if (cap != 0 && (used > cap || bytes > cap - used)) return false;
    } while (!used_bytes_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
    return true;
}

void AllocationBudget::set_share(ReplicaId replica, std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    std::uint64_t& share = shares_[replica];
    used_bytes_.fetch_add(bytes - share, std::memory_order_relaxed);  // modulo 2^64: may shrink
    share = bytes;
}

void AllocationBudget::settle(ReplicaId replica, std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    shares_[replica] = bytes;
}

void AllocationBudget::forget(ReplicaId replica) {
    const std::lock_guard lock(mutex_);
    const auto found = shares_.find(replica);
    if (found == shares_.end()) return;
    refund(found->second);
    shares_.erase(found);
}

}  // namespace ublkd::store
