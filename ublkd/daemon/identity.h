// Which host this daemon is, and of which cluster. None until `init` (the daemon is uninitialized
// then); never changes afterwards. A host that does not listen for others is of no cluster.
// Thread-safe.
#pragma once

#include <atomic>

#include "ublkd/base/ids.h"

namespace ublkd::daemon {

class Identity {
  public:
    HostId host() const { return HostId(host_.load(std::memory_order_acquire)); }
    bool initialized() const { return static_cast<bool>(host()); }
    void set(HostId host) { host_.store(host.value(), std::memory_order_release); }
    ClusterId cluster() const { return ClusterId(cluster_.load(std::memory_order_acquire)); }
    void set_cluster(ClusterId id) { cluster_.store(id.value(), std::memory_order_release); }

  private:
    std::atomic<std::uint64_t> host_ = 0;
    std::atomic<std::uint64_t> cluster_ = 0;
};

}  // namespace ublkd::daemon
