// A disk that a test fails and puts right again while the daemon runs. Fault point: store.disk,
// passed at each request of a pool's disk; it fails while a file `broken` lies in the pool's
// folder. In a release nothing.
#pragma once

#include <unistd.h>

#include <string>

#include "ublkd/base/fault_injection.h"

namespace ublkd::store {

#ifdef UBLKD_FAULTS

class BrokenDisk {
  public:
    explicit BrokenDisk(const std::string& pool) : mark_(pool + "/broken") {}

    /// 0, or the errno that a request of the disk fails with now.
    int error() const noexcept {
        const int error = faults::hit("store.disk");
        return error != 0 && ::access(mark_.c_str(), F_OK) == 0 ? error : 0;
    }

  private:
    std::string mark_;
};

#else

class BrokenDisk {
  public:
    explicit BrokenDisk(const std::string&) {}
    int error() const noexcept { return 0; }
};

#endif

}  // namespace ublkd::store
