// The mounts that a process sees (/proc/PID/mountinfo), and which of them a path lies on. Read from
// the kernel's memory: no file system is asked, so none can make this wait.
#pragma once

#include <istream>
#include <string>
#include <vector>

namespace ublkd::front::ublk {

struct Mount {
    int id = 0;
    int parent = 0;
    std::string numbers;  // of the device, "252:0"
    std::string root;     // what of its file system is mounted
    std::string place;
    std::string type;     // of the file system, "ext4"
    std::string options;  // of the file system: "rw,lazytime"
};

std::vector<Mount> parse_mounts(std::istream& table);
/// `pid`: "self", or a number. Empty where it may not be seen.
std::vector<Mount> mounts_of(const std::string& pid);
/// The mount that `path` (absolute, without links) leads to; nullptr where the table is empty.
const Mount* mount_at(const std::vector<Mount>& mounts, const std::string& path);

}  // namespace ublkd::front::ublk
