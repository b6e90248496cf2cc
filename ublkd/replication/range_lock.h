// R3: reads share a range, changes have it alone, each until its answer is sent; the unit is the
// physical block (4 KiB), so that two writes of 512 bytes never meet in one read-modify-write.
// First come first served among those that overlap, so nobody starves. Who has to wait is handed
// out by take_granted() later.
//
// Nodes live in the requests; nothing is allocated. Not thread-safe.
#pragma once

#include <cstdint>

#include "ublkd/base/units.h"

namespace ublkd::replication {

struct RangeLock {
    std::uint64_t owner = 0;  // the request's token
    Range range{};            // widened to whole blocks by acquire()
    bool exclusive = false;
    bool held = false;
    bool queued = false;   // in the list: held or waiting
    bool granted = false;  // held, and not yet handed out by take_granted()
    RangeLock* previous = nullptr;
    RangeLock* next = nullptr;
    RangeLock* next_granted = nullptr;
};

class RangeLocks {
  public:
    explicit RangeLocks(std::uint32_t unit_bytes) : unit_bytes_(unit_bytes) {}
    RangeLocks(const RangeLocks&) = delete;
    RangeLocks& operator=(const RangeLocks&) = delete;

    /// True: held now. False: take_granted() gives it later. `range` is in bytes, at least one.
    bool acquire(RangeLock& lock, Range range, bool exclusive);
    /// Gives up a lock, held or waiting.
    void release(RangeLock& lock);
    /// A lock that was granted since, or nullptr.
    RangeLock* take_granted();
    bool empty() const { return first_ == nullptr; }

  private:
    bool blocked(const RangeLock& lock) const;
    void forget_grant(const RangeLock& lock);

    std::uint32_t unit_bytes_;
    RangeLock* first_ = nullptr;  // in order of arrival
    RangeLock* last_ = nullptr;
    RangeLock* granted_first_ = nullptr;
    RangeLock* granted_last_ = nullptr;
    std::uint64_t waiting_ = 0;
};

}  // namespace ublkd::replication
