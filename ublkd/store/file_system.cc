#include "ublkd/store/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace ublkd::store::fs {

Result<void> make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0) return fail_errno(errno, "make folder");
    return {};
}

bool exists(const std::string& path) {
    struct stat info{};
    return ::lstat(path.c_str(), &info) == 0;
}

Result<Fd> lock_folder(const std::string& path) {
    Fd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) return fail_errno(errno, "open folder");
    if (::flock(folder.get(), LOCK_EX | LOCK_NB) == 0) return folder;
    if (errno == EWOULDBLOCK) return fail(Errc::kBusy, "folder is in use");
    return fail_errno(errno, "lock folder");
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

std::string name_of(const std::string& path) {
    const auto slash = path.find_last_of('/');
    return slash == std::string::npos ? path : path.substr(slash + 1);
}

}  // namespace ublkd::store::fs
