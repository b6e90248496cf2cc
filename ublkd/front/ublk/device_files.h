// The files of the kernel that tell of a ublk device and of its server. They may wait for the
// device: on a Worker only.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace ublkd::front::ublk {

/// Takes the I/O scheduler off `device_name` ("ublkb0"). True where it has none now: requests then
/// keep their tags.
bool remove_scheduler(const std::string& sys_folder, const std::string& device_name);
/// True where the device has no I/O scheduler.
bool has_no_scheduler(const std::string& sys_folder, const std::string& device_name);
/// Those of `device_ids` whose /dev/ublkcN a process has open, under whatever name: the device's
/// server, also one that has not started it yet. (The pid that the kernel keeps may be of a dead
/// process, or of another one by now.) Needs root to see the processes of others.
std::set<std::uint32_t> served_devices(const std::string& sys_folder,
                                       const std::vector<std::uint32_t>& device_ids);
bool server_is_alive(const std::string& sys_folder, std::uint32_t device_id);
/// Numbers of all ublk devices of the machine, ascending.
std::vector<std::uint32_t> list_device_ids(const std::string& sys_folder);

}  // namespace ublkd::front::ublk
