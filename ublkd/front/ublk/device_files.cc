#include "ublkd/front/ublk/device_files.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "ublkd/front/ublk/helper_process.h"
#include "ublkd/front/ublk/open_files.h"

namespace ublkd::front::ublk {
namespace {

namespace fs = std::filesystem;

std::string scheduler_path(const std::string& sys_folder, const std::string& device_name) {
    return sys_folder + "/block/" + device_name + "/queue/scheduler";
}

}  // namespace

bool has_no_scheduler(const std::string& sys_folder, const std::string& device_name) {
    std::ifstream file(scheduler_path(sys_folder, device_name));
    std::string line;
    std::getline(file, line);
    return line.find("[none]") != std::string::npos;
}

bool remove_scheduler(const std::string& sys_folder, const std::string& device_name) {
    if (has_no_scheduler(sys_folder, device_name)) return true;
    // Waits for requests under way, which wait for us.
    (void)write_file_in_child(scheduler_path(sys_folder, device_name), "none");
    return has_no_scheduler(sys_folder, device_name);
}

std::set<std::uint32_t> served_devices(const std::string& sys_folder,
                                       const std::vector<std::uint32_t>& device_ids) {
    std::set<std::string> open;
    for (const std::string& pid : processes()) open.merge(open_devices(pid, S_IFCHR));
    std::set<std::uint32_t> served;
    for (const std::uint32_t id : device_ids) {
        std::ifstream file(fmt::format("{}/class/ublk-char/ublkc{}/dev", sys_folder, id));
        std::string numbers;  // none: there is no such device
        if (std::getline(file, numbers) && open.contains(numbers)) served.insert(id);
    }
    return served;
}

bool server_is_alive(const std::string& sys_folder, std::uint32_t device_id) {
    return !served_devices(sys_folder, {device_id}).empty();
}

std::vector<std::uint32_t> list_device_ids(const std::string& sys_folder) {
    std::vector<std::uint32_t> ids;
    constexpr std::string_view kPrefix = "ublkc";
    std::error_code error;
    fs::directory_iterator entries(sys_folder + "/class/ublk-char", error);
    if (error) return ids;
    for (; entries != fs::directory_iterator(); entries.increment(error)) {
        if (error) break;
        const std::string name = entries->path().filename();
        if (name.rfind(kPrefix, 0) != 0) continue;
        std::uint32_t id = 0;
        const char* const end = name.data() + name.size();
        const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, id);
        if (parsed.ec == std::errc() && parsed.ptr == end) ids.push_back(id);
    }
    std::sort(ids.begin(), ids.end());
    return ids;
}

}  // namespace ublkd::front::ublk
