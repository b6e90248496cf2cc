// Who uses a block device: mounts (of every process's mount namespace), swap, stacked devices, open
// descriptors. May block on the device itself where an exclusive open may be tried: never on a
// reactor. Needs root to see all processes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ublkd::front::ublk {

/// A device that nobody serves is looked at without opening it: an open would wait for its server.
/// What only the open shows (a mount in a namespace without a process) is not found then.
enum class LookBy { kOpening, kNotOpening };

/// One line for each user, such as "mounted on /srv/pg", "held by dm-0", "swap", "open by fio (pid
/// 812)". Empty: nobody. `device_name`: "ublkb0".
std::vector<std::string> device_users(const std::string& device_name,
                                      const std::string& device_folder = "/dev",
                                      const std::string& sys_folder = "/sys",
                                      LookBy look = LookBy::kOpening);

}  // namespace ublkd::front::ublk
