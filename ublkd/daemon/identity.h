// Which host this daemon is. None until `init` (the daemon is uninitialized then); never changes
// afterwards. Thread-safe.
#pragma once

#include <atomic>

#include "ublkd/base/ids.h"

namespace ublkd::daemon {

class Identity {
  public:
    HostId host() const { return HostId(host_.load(std::memory_order_acquire)); }
    bool initialized() const { return static_cast<bool>(host()); }
    void set(HostId host) { host_.store(host.value(), std::memory_order_release); }

  private:
    std::atomic<std::uint64_t> host_ = 0;
};

}  // namespace ublkd::daemon
