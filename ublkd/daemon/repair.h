// What the daemon does by itself: degraded volumes get replicas back, attachments that did not come
// back are tried again, pools that were missing or failed are looked at, replicas that were lost or
// deleted are removed from their disks. One thread, woken by changes and every few seconds; each
// step is small and leaves the rest to the next round.
//
// Owner: Daemon; stop() before the volumes shut down.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "ublkd/daemon/core.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

class Repair {
  public:
    Repair() = default;
    Repair(const Repair&) = delete;
    Repair& operator=(const Repair&) = delete;
    ~Repair() { stop(); }

    void start(const Core& core, Volumes* volumes);
    /// Thread-safe: look again soon.
    void wake();
    void stop();

  private:
    void serve();
    void round();
    void remove_lost_replicas();

    Core core_;
    Volumes* volumes_ = nullptr;
    std::mutex mutex_;
    std::condition_variable wake_;
    bool woken_ = false;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace ublkd::daemon
