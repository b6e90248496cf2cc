// In a new boot a disk may be mounted later than the daemon starts. A volume that is started
// without a member proposes it out, and all of it is copied anew; so volumes wait for the pools of
// their members, once in a boot and for a bounded time (pools.boot_wait_s). A mark in the run
// folder says that this is over. Thread-safe. Owner: Volumes.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "ublkd/daemon/core.h"
#include "ublkd/replication/membership.h"

namespace ublkd::daemon {

class BootWait {
  public:
    explicit BootWait(const Core& core);

    bool is_over() const { return over_; }
    /// What a volume of these members waits for; "": nothing.
    std::string reason(const replication::Membership& record) const;
    /// Looks for the pools until no volume waits for one, the time has passed, or `stopping`. Then
    /// it is over, unless it was stopped.
    void serve(const std::atomic<bool>& stopping);

  private:
    bool any_waits() const;

    const Core& core_;
    std::chrono::steady_clock::time_point until_;
    std::atomic<bool> over_ = false;
};

}  // namespace ublkd::daemon
