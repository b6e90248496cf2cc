#include "ublkd/base/files.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "ublkd/base/fd.h"

namespace ublkd {
namespace {

Result<void> write_new(const std::string& path, std::string_view content, unsigned mode) {
    const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (!file) return fail_errno(errno, "make file");
    while (!content.empty()) {
        const ssize_t put = ::write(file.get(), content.data(), content.size());
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_errno(errno, "write file");
        content.remove_prefix(static_cast<std::size_t>(put));
    }
    if (::fsync(file.get()) != 0) return fail_errno(errno, "fsync file");
    return {};
}

}  // namespace

Result<void> sync_folder(const std::string& path) {
    const Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return fail_errno(errno, "open folder");
    if (::fsync(folder.get()) != 0) return fail_errno(errno, "fsync folder");
    return {};
}

std::string parent_of(const std::string& path) {
    const auto slash = path.find_last_of('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

Result<void> write_file_durably(const std::string& path, std::string_view content, unsigned mode) {
    const std::string making = path + kMaking;
    auto written = write_new(making, content, mode);
    if (written && ::rename(making.c_str(), path.c_str()) != 0)
        written = fail_errno(errno, "rename file");
    if (!written) {
        ::unlink(making.c_str());
        return written;
    }
    return sync_folder(parent_of(path));
}

Result<void> remove_file_durably(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "delete file");
    return sync_folder(parent_of(path));
}

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return fail_errno(errno, "open file");
    std::string content;
    char part[4096];
    for (;;) {
        const ssize_t got = ::read(file.get(), part, sizeof part);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(errno, "read file");
        if (got == 0) return content;
        content.append(part, static_cast<std::size_t>(got));
        if (content.size() > max_bytes) return fail(Errc::kCorrupt, "file is too long");
    }
}

}  // namespace ublkd
