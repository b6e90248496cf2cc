#include "ublkd/front/ublk/process_guard.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "ublkd/base/fault_injection.h"
#include "ublkd/front/ublk/mount_table.h"

// Linux 5.6; not in every libc's header.
#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

namespace ublkd::front::ublk {
namespace {

constexpr std::string_view kOomScore = "-1000";  // never chosen

std::string reason() {
    char buffer[128];
    return strerror_r(errno, buffer, sizeof buffer);
}

bool write_oom_score() {
    const int fd = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool written =
        ::write(fd, kOomScore.data(), kOomScore.size()) == static_cast<ssize_t>(kOomScore.size());
    ::close(fd);
    return written;
}

/// "ublkb0" for a device number of such a disk or of its partition, else "".
std::string ublk_name(const std::string& numbers, const std::string& sys_folder) {
    std::error_code error;
    const std::string target =
        std::filesystem::read_symlink(sys_folder + "/dev/block/" + numbers, error);
    if (error) return "";
    const auto at = target.rfind("/ublkb");
    return at == std::string::npos ? "" : target.substr(at + 1);
}

/// What this process does not see any more since it has its own mount namespace.
struct Left {
    bool hosts = false;               // pid 1 is still in the namespace that it left
    std::vector<std::string> places;  // of mounts on our own devices that it was born with
};

Left& left() {
    static Left made;
    return made;
}

bool shares_mounts_with_init() {
    struct stat own{}, init{};
    return getpid() != 1 && stat("/proc/self/ns/mnt", &own) == 0 &&
           stat("/proc/1/ns/mnt", &init) == 0 && own.st_dev == init.st_dev &&
           own.st_ino == init.st_ino;
}

/// Dropped here, so that the last user to leave is never us.
void drop_ublk_mounts() {
    for (const Mount& mount : mounts_of("self")) {
        if (!ublk_name(mount.numbers, "/sys").empty()) left().places.push_back(mount.place);
    }
    for (auto place = left().places.rbegin(); place != left().places.rend(); ++place)
        (void)umount2(place->c_str(), MNT_DETACH);
}

bool enter_own_mount_namespace() {
    if (faults::rule_off("rule.own_mounts")) return true;
    const bool hosts = shares_mounts_with_init();
    if (unshare(CLONE_NEWNS) != 0) return false;
    // A slave: later mounts and unmounts of the host (a new pool's disk) arrive here, ours do not
    // go there.
    if (mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return false;
    left().hosts = hosts;
    drop_ublk_mounts();
    return true;
}

}  // namespace

bool is_io_flusher() { return prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1; }

std::vector<std::string> guard_process() {
    std::vector<std::string> missing;
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) {
        missing.push_back(fmt::format(
            "memory reclaim may wait for this daemon: PR_SET_IO_FLUSHER: {}", reason()));
    } else if (!is_io_flusher()) {
        missing.push_back(
            "memory reclaim may wait for this daemon: PR_SET_IO_FLUSHER has no effect");
    }
    if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
        missing.push_back(fmt::format("this daemon may be swapped out: mlockall: {}", reason()));
    if (!write_oom_score())
        missing.push_back(fmt::format(
            "this daemon may be chosen when memory runs out: oom_score_adj: {}", reason()));
    if (!enter_own_mount_namespace())
        missing.push_back(
            fmt::format("file systems on its own devices are mounted for this daemon too: "
                        "own mount namespace: {}",
                        reason()));
    return missing;
}

Result<void> check_not_on_ublk(const std::string& path, const std::string& sys_folder) {
    if (faults::rule_off("rule.not_on_own_device")) return {};
    const auto refused = fail(Errc::kInvalidArgument, "the folder lies on a ublk device");
    // First without asking a file system, which may be our own.
    const auto own = mounts_of("self");
    const Mount* const here = mount_at(own, path);
    if (here != nullptr && !ublk_name(here->numbers, sys_folder).empty()) return refused;
    if (left().hosts) {
        const auto hosts = mounts_of("1");
        const Mount* const there = mount_at(hosts, path);
        if (there != nullptr && !ublk_name(there->numbers, sys_folder).empty()) return refused;
        if (there != nullptr && here != nullptr &&
            (there->numbers != here->numbers || there->root != here->root))
            return fail(Errc::kConflict, "the host has another file system there");
    } else if (std::ranges::any_of(left().places, [&path](const std::string& place) {
                   return path == place || path.starts_with(place + "/");
               })) {
        return refused;
    }
    std::error_code error;
    std::filesystem::path there = path;
    while (there.has_relative_path() && !std::filesystem::exists(there, error))
        there = there.parent_path();
    struct stat info{};
    if (stat(there.c_str(), &info) != 0) return {};  // what cannot be used is told by its user
    const std::string numbers = fmt::format("{}:{}", major(info.st_dev), minor(info.st_dev));
    if (!ublk_name(numbers, sys_folder).empty()) return refused;
    return {};
}

}  // namespace ublkd::front::ublk
