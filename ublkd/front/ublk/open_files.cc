#include "ublkd/front/ublk/open_files.h"

#include <fcntl.h>
#include <fmt/core.h>

#include <filesystem>

namespace ublkd::front::ublk {

namespace fs = std::filesystem;

std::vector<std::string> processes() {
    std::vector<std::string> pids;
    std::error_code error;
    for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
        const std::string name = it->path().filename();
        if (name.find_first_not_of("0123456789") == std::string::npos) pids.push_back(name);
    }
    return pids;
}

std::set<std::string> open_devices(const std::string& pid, mode_t kind) {
    std::set<std::string> found;
    std::error_code error;
    for (fs::directory_iterator it("/proc/" + pid + "/fd", error), end; !error && it != end;
         it.increment(error)) {
        struct statx info{};
        // Without asking the server of a network or FUSE file, which may not answer.
        if (statx(AT_FDCWD, it->path().c_str(), AT_STATX_DONT_SYNC, STATX_TYPE, &info) == 0 &&
            (info.stx_mode & S_IFMT) == kind)
            found.insert(fmt::format("{}:{}", info.stx_rdev_major, info.stx_rdev_minor));
    }
    return found;
}

}  // namespace ublkd::front::ublk
