// What the daemon does by itself: what was attached comes back, what was begun is finished,
// degraded volumes get replicas back, pools that were missing or failed are looked at, replicas
// that were lost or deleted are removed from their disks. One thread, woken by changes and every
// few seconds, says what is due; each thing is done by a step on a thread of its own (steps.h),
// since a disk may hang: it holds up no other.
//
// Owner: Daemon; stop() before the volumes shut down.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "ublkd/daemon/core.h"
#include "ublkd/daemon/steps.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

class Repair {
  public:
    Repair() = default;
    Repair(const Repair&) = delete;
    Repair& operator=(const Repair&) = delete;
    ~Repair() { stop(); }

    /// Nothing after stop().
    void start(const Core& core, Volumes* volumes);
    /// Thread-safe: look again soon.
    void wake();
    void stop();

  private:
    void serve();
    void round();
    void look_at_pools();
    bool is_kept(const metadata::ReplicaRecord& replica);
    void remove_lost_replicas();

    Core core_;
    Volumes* volumes_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool woken_ = false;
    std::atomic<bool> stopping_ = false;
    std::thread thread_;
    Steps steps_;
};

}  // namespace ublkd::daemon
