// While one of them lives on it, a thread has no effective CAP_SYS_ADMIN (its permitted set keeps
// it). A queue whose tags are fetched by such a thread makes the kernel leave out its partition
// scan inside START_DEV. That scan reads from us while the kernel holds the device's mutex, so a
// server that dies in it leaves tasks in D state for ever (Linux before 6.18.4). Source:
// drivers/block/ublk_drv.c, ublk_mark_io_ready() and ublk_ctrl_start_dev(). Partitions are added by
// a child later.
#pragma once

#include <cstdint>

namespace ublkd::front::ublk {

class WithoutAdmin {
  public:
    explicit WithoutAdmin(bool wanted) noexcept;
    WithoutAdmin(const WithoutAdmin&) = delete;
    WithoutAdmin& operator=(const WithoutAdmin&) = delete;
    ~WithoutAdmin();

  private:
    bool wanted_;
};

}  // namespace ublkd::front::ublk
