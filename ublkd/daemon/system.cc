#include "ublkd/daemon/system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/fd.h"
#include "ublkd/base/files.h"
#include "ublkd/base/log.h"

namespace ublkd::daemon {

std::string boot_id_text() {
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::string text;
    std::getline(file, text);
    CHECK(text.size() == 36, "/proc/sys/kernel/random/boot_id is a UUID (random(4))");
    if (faults::hit("daemon.another_boot") != 0) text[0] = text[0] == '0' ? '1' : '0';
    return text;
}

std::array<std::byte, 16> boot_id() {
    std::array<std::byte, 16> id{};
    std::size_t digits = 0;
    for (const char c : boot_id_text()) {
        if (c == '-') continue;
        const unsigned digit = static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
        id[digits / 2] =
            static_cast<std::byte>((std::to_integer<unsigned>(id[digits / 2]) << 4) | digit);
        ++digits;
    }
    CHECK(digits == 32, "a UUID has 32 hex digits");
    return id;
}

Result<void> make_folder(const std::string& path, unsigned mode) {
    std::error_code error;
    const std::filesystem::path folder(path);
    if (folder.has_parent_path()) std::filesystem::create_directories(folder.parent_path(), error);
    if (error) return fail_errno(error.value(), "make a folder");
    if (mkdir(path.c_str(), mode) != 0 && errno != EEXIST)
        return fail_errno(errno, "make a folder");
    if (!std::filesystem::is_directory(folder, error)) return fail_errno(ENOTDIR, "make a folder");
    return {};
}

Result<void> renew_run_folder(const std::string& path) {
    TRY(make_folder(path, 0755));
    const std::string mark = path + "/boot_id";
    const std::string boot = boot_id_text();
    const auto last = read_file(mark);
    if (last && *last == boot) return {};
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
        // Sockets stay: their servers replace them.
        if (!entry.is_socket(error)) std::filesystem::remove_all(entry.path(), error);
    }
    if (error) return fail_errno(error.value(), "empty the run folder");
    return write_file_durably(mark, boot, 0644);
}

Result<std::string> domain_of(const std::string& folder) {
    struct stat status{};
    if (stat(folder.c_str(), &status) != 0) return fail_errno(errno, "look at a pool's folder");
    const std::string device = fmt::format("{}:{}", major(status.st_dev), minor(status.st_dev));
    std::error_code error;
    auto place = std::filesystem::canonical("/sys/dev/block/" + device, error);
    if (error) return "fs:" + device;
    if (std::filesystem::exists(place / "partition", error)) place = place.parent_path();
    return "disk:" + place.filename().string();
}

std::string mount_warning(const front::ublk::Mount& mount) {
    if (mount.type != "ext4" || ("," + mount.options + ",").find(",lazytime,") != std::string::npos)
        return "";
    return fmt::format(
        "on ext4 without lazytime: when its disk hangs, volumes that have no replica on it may "
        "wait as well; 'mount -o remount,lazytime {}', and lazytime in /etc/fstab",
        mount.place);
}

std::string mount_warning_of(const std::string& folder) {
    const auto mounts = front::ublk::mounts_of("self");
    const auto* mount = front::ublk::mount_at(mounts, folder);
    return mount == nullptr ? "" : mount_warning(*mount);
}

void raise_limit_of_open_files() {
    rlimit files{};
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        log::warn("the limit of open files stays as it is: {}", std::strerror(errno));
}

void notify_service_manager(std::string_view state) {
    const char* path = std::getenv("NOTIFY_SOCKET");
    if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::size_t length = std::strlen(path);
    if (length >= sizeof address.sun_path) return;
    std::memcpy(address.sun_path, path, length);
    if (path[0] == '@') address.sun_path[0] = '\0';
    const Fd socket_fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket_fd) return;
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
    (void)sendto(socket_fd.get(), state.data(), state.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), size);
}

}  // namespace ublkd::daemon
