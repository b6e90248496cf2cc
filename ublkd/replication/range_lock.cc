#include "ublkd/replication/range_lock.h"

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::replication {

bool RangeLocks::blocked(const RangeLock& lock) const {
    if (faults::rule_off("rule.range_lock")) return false;
    for (const RangeLock* earlier = lock.previous; earlier != nullptr;
         earlier = earlier->previous) {
        if ((earlier->exclusive || lock.exclusive) && earlier->range.overlaps(lock.range))
            return true;
    }
    return false;
}

bool RangeLocks::acquire(RangeLock& lock, Range range, bool exclusive) {
    CHECK(!lock.queued && range.length_bytes > 0, "a lock is taken once, for at least one byte");
    lock.range = align_out(range, unit_bytes_);
    lock.exclusive = exclusive;
    lock.queued = true;
    lock.previous = last_;
    lock.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &lock;
    last_ = &lock;
    lock.held = !blocked(lock);
    if (!lock.held) ++waiting_;
    return lock.held;
}

void RangeLocks::release(RangeLock& lock) {
    CHECK(lock.queued, "a lock is released once");
    (lock.previous == nullptr ? first_ : lock.previous->next) = lock.next;
    (lock.next == nullptr ? last_ : lock.next->previous) = lock.previous;
    lock.queued = false;
    if (lock.granted) forget_grant(lock);
    if (!lock.held) --waiting_;
    lock.held = false;
    if (waiting_ == 0) return;
    for (RangeLock* later = lock.next; later != nullptr; later = later->next) {
        if (later->held || !later->range.overlaps(lock.range) || blocked(*later)) continue;
        later->held = later->granted = true;
        --waiting_;
        later->next_granted = nullptr;
        (granted_last_ == nullptr ? granted_first_ : granted_last_->next_granted) = later;
        granted_last_ = later;
    }
}

RangeLock* RangeLocks::take_granted() {
    RangeLock* const lock = granted_first_;
    if (lock == nullptr) return nullptr;
    granted_first_ = lock->next_granted;
    if (granted_first_ == nullptr) granted_last_ = nullptr;
    lock->granted = false;
    return lock;
}

/// It was granted and is given up before its owner heard of it.
void RangeLocks::forget_grant(const RangeLock& lock) {
    RangeLock* before = nullptr;
    RangeLock* at = granted_first_;
    for (; at != &lock; at = at->next_granted) before = at;
    (before == nullptr ? granted_first_ : before->next_granted) = at->next_granted;
    if (granted_last_ == &lock) granted_last_ = before;
    at->granted = false;
}

}  // namespace ublkd::replication
