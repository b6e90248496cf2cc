// Who has a device open, by the device's numbers: a process of another mount namespace (a
// container) may have it under any name. Opens nothing and asks no disk.
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

namespace ublkd::front::ublk {

/// Numeric names in /proc.
std::vector<std::string> processes();
/// True where the process has the device `numbers` ("252:0") of the kind S_IFBLK or S_IFCHR open.
/// Needs root to see the files of others.
bool has_open(const std::string& pid, mode_t kind, const std::string& numbers);

}  // namespace ublkd::front::ublk
