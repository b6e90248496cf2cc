#include "ublkd/front/ublk/device_users.h"

#include <fmt/core.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <set>

#include "ublkd/front/ublk/helper_process.h"
#include "ublkd/front/ublk/mount_table.h"
#include "ublkd/front/ublk/open_files.h"

namespace ublkd::front::ublk {
namespace {

namespace fs = std::filesystem;

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

/// "252:0" of the disk and of each of its partitions, with their names.
struct Part {
    std::string name;
    std::string numbers;
};

std::vector<Part> parts_of(const std::string& device_name, const std::string& sys_folder) {
    const std::string folder = sys_folder + "/block/" + device_name;
    std::vector<Part> parts{{device_name, first_line(folder + "/dev")}};
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
        const std::string name = it->path().filename();
        if (name.rfind(device_name + "p", 0) == 0)
            parts.push_back({name, first_line(it->path().string() + "/dev")});
    }
    return parts;
}

/// Of one process: what it has mounted, and open.
void add_process(const std::vector<Part>& parts, const std::string& pid,
                 std::set<std::string>& users) {
    const auto mounts = mounts_of(pid);
    const auto open = open_devices(pid, S_IFBLK);
    const std::string command = first_line("/proc/" + pid + "/comm");
    const bool looks = command.find("udev") != std::string::npos;  // at each new disk, for a moment
    for (const Part& part : parts) {
        for (const Mount& mount : mounts) {
            if (mount.numbers == part.numbers)
                users.insert(fmt::format("{} mounted on {}", part.name, mount.place));
        }
        if (!looks && open.contains(part.numbers))
            users.insert(fmt::format("{} open by {} (pid {})", part.name, command, pid));
    }
}

void add_holders(const Part& part, const std::string& device_name, const std::string& sys_folder,
                 std::set<std::string>& users) {
    const std::string disk = sys_folder + "/block/" + device_name;
    const std::string folder =
        (part.name == device_name ? disk : disk + "/" + part.name) + "/holders";
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
        users.insert(fmt::format("{} held by {}", part.name, it->path().filename().string()));
}

void add_swap(const Part& part, const std::string& device_folder, std::set<std::string>& users) {
    std::ifstream file("/proc/swaps");
    const std::string path = device_folder + "/" + part.name;
    for (std::string line; std::getline(file, line);) {
        if (line.rfind(path + " ", 0) == 0 || line.rfind(path + "\t", 0) == 0)
            users.insert(fmt::format("{} used as swap", part.name));
    }
}

/// What none of the lists shows (a mount in a namespace without a process, say) still claims the
/// device exclusively.
bool is_claimed(const Part& part, const std::string& device_folder) {
    return try_claim_in_child(device_folder + "/" + part.name) == EBUSY;
}

}  // namespace

std::vector<std::string> device_users(const std::string& device_name,
                                      const std::string& device_folder,
                                      const std::string& sys_folder, LookBy look) {
    std::set<std::string> users;
    const auto parts = parts_of(device_name, sys_folder);
    for (const std::string& pid : processes()) add_process(parts, pid, users);
    bool claimed = false;
    for (const Part& part : parts) {
        add_holders(part, device_name, sys_folder, users);
        add_swap(part, device_folder, users);
        claimed = claimed || (look == LookBy::kOpening && is_claimed(part, device_folder));
    }
    if (users.empty() && claimed)
        users.insert(fmt::format("{} claimed by the kernel or by a hidden mount", device_name));
    return {users.begin(), users.end()};
}

}  // namespace ublkd::front::ublk
