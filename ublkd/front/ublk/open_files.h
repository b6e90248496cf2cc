// Who has a device open, by the device's numbers: a process of another mount namespace (a
// container) may have it under any name. Opens nothing and asks no disk.
#pragma once

#include <sys/stat.h>

#include <set>
#include <string>
#include <vector>

namespace ublkd::front::ublk {

/// Numeric names in /proc.
std::vector<std::string> processes();
/// The numbers ("252:0") of the devices of the kind S_IFBLK or S_IFCHR that the process has open.
/// Needs root to see the files of others.
std::set<std::string> open_devices(const std::string& pid, mode_t kind);

}  // namespace ublkd::front::ublk
