#include "ublkd/store/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace ublkd::store::fs {
namespace {

class OpenFd {
  public:
    explicit OpenFd(int fd) : fd_(fd) {}
    OpenFd(const OpenFd&) = delete;
    OpenFd& operator=(const OpenFd&) = delete;
    ~OpenFd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }

  private:
    int fd_;
};

Result<void> write_all(int fd, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t put = ::write(fd, bytes.data(), bytes.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno(errno, "write file");
        bytes = bytes.subspan(static_cast<std::size_t>(put));
    }
    if (::fsync(fd) != 0) return fail_errno(errno, "fsync file");
    return {};
}

}  // namespace

Result<void> make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, "make folder");
    return {};
}

bool exists(const std::string& path) {
    struct stat info{};
    return ::lstat(path.c_str(), &info) == 0;
}

Result<void> sync_folder(const std::string& path) {
    const OpenFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (folder.get() < 0) return fail_errno(errno, "open folder");
    if (::fsync(folder.get()) != 0) return fail_errno(errno, "fsync folder");
    return {};
}

Result<int> lock_folder(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_errno(errno, "open folder");
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
        const int error = errno;
        ::close(fd);
        if (error == EWOULDBLOCK) return fail(Errc::kBusy, "folder is in use");
        return fail_errno(error, "lock folder");
    }
    return fd;
}

Result<std::vector<std::string>> list(const std::string& path) {
    DIR* const folder = ::opendir(path.c_str());
    if (folder == nullptr) return fail_errno(errno, "list folder");
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* const entry = ::readdir(folder)) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
    }
    const int error = errno;
    ::closedir(folder);
    if (error != 0) return fail_errno(error, "list folder");
    std::sort(names.begin(), names.end());
    return names;
}

Result<void> remove_flat_folder(const std::string& path) {
    if (!exists(path)) return {};
    std::vector<std::string> names;
    TRY_ASSIGN(names, list(path));
    for (const std::string& name : names) {
        if (::unlink((path + "/" + name).c_str()) != 0 && errno != ENOENT)
            return fail_errno(errno, "delete file");
    }
    if (::rmdir(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "delete folder");
    return {};
}

std::string parent_of(const std::string& path) {
    const auto slash = path.find_last_of('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

std::string name_of(const std::string& path) {
    const auto slash = path.find_last_of('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

Result<void> write_file(const std::string& path, std::span<const std::byte> bytes) {
    const std::string temporary = path + kMaking;
    {
        const OpenFd file(
            ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
        if (file.get() < 0) return fail_errno(errno, "make file");
        if (const auto written = write_all(file.get(), bytes); !written) {
            ::unlink(temporary.c_str());
            return written;
        }
    }
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
        const int error = errno;
        ::unlink(temporary.c_str());
        return fail_errno(error, "rename file");
    }
    return sync_folder(parent_of(path));
}

Result<std::vector<std::byte>> read_file(const std::string& path, std::size_t max_bytes) {
    const OpenFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return fail_errno(errno, "open file");
    std::vector<std::byte> bytes(max_bytes + 1);
    std::size_t have = 0;
    while (have < bytes.size()) {
        const ssize_t got = ::read(file.get(), bytes.data() + have, bytes.size() - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(errno, "read file");
        if (got == 0) break;
        have += static_cast<std::size_t>(got);
    }
    if (have > max_bytes) return fail(Errc::kCorrupt, "file is too long");
    bytes.resize(have);
    return bytes;
}

}  // namespace ublkd::store::fs
