#include "ublkd/front/ublk/admin_guard.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ublkd::front::ublk {
namespace {

constexpr std::uint32_t kAdminBit = 1u << CAP_SYS_ADMIN;  // 21: in the first word

/// Capabilities belong to a thread, and the raw calls change this one alone.
bool set_effective_admin(bool wanted) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    if (syscall(SYS_capget, &header, data) != 0) return false;
    const bool has = (data[0].effective & kAdminBit) != 0;
    if (has == wanted) return false;
    data[0].effective ^= kAdminBit;
    return syscall(SYS_capset, &header, data) == 0;
}

/// Of this thread: several devices of one reactor may be in the middle of their start.
thread_local unsigned holders = 0;
thread_local bool dropped = false;

}  // namespace

WithoutAdmin::WithoutAdmin(bool wanted) noexcept : wanted_(wanted) {
    if (wanted_ && holders++ == 0) dropped = set_effective_admin(false);
}

WithoutAdmin::~WithoutAdmin() {
    if (wanted_ && --holders == 0 && dropped) (void)set_effective_admin(true);
}

}  // namespace ublkd::front::ublk
