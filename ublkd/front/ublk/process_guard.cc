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

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

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

/// Mounts on our own devices that this namespace was born with: dropped here, so that the last user
/// to leave is never us.
void drop_ublk_mounts() {
    std::ifstream file("/proc/self/mountinfo");
    std::vector<std::string> places;
    for (std::string line; std::getline(file, line);) {
        std::istringstream fields(line);
        std::string id, parent, numbers, root, place;
        fields >> id >> parent >> numbers >> root >> place;
        if (!ublk_name(numbers, "/sys").empty()) places.push_back(place);
    }
    for (auto place = places.rbegin(); place != places.rend(); ++place)
        (void)umount2(place->c_str(), MNT_DETACH);
}

bool enter_own_mount_namespace() {
    if (unshare(CLONE_NEWNS) != 0) return false;
    // A slave: later mounts and unmounts of the host (a new pool's disk) arrive here, ours do not
    // go there.
    if (mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return false;
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
    struct stat info{};
    if (stat(path.c_str(), &info) != 0) return fail_errno(errno, "look at a folder");
    const dev_t device = S_ISBLK(info.st_mode) ? info.st_rdev : info.st_dev;
    const std::string name =
        ublk_name(fmt::format("{}:{}", major(device), minor(device)), sys_folder);
    if (!name.empty()) return fail(Errc::kInvalidArgument, "the folder lies on a ublk device");
    return {};
}

}  // namespace ublkd::front::ublk
