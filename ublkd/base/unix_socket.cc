#include "ublkd/base/unix_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "ublkd/base/log.h"

namespace ublkd {
namespace {

/// What bind() will meet at `path`: nothing after this where the answer is ok.
Result<void> clear_stale_socket(const std::string& path, const sockaddr_un& address) {
    struct stat info{};
    if (lstat(path.c_str(), &info) != 0) return {};
    if (!S_ISSOCK(info.st_mode))
        return fail(Errc::kExists, "listen: this path is not a socket", EADDRINUSE);
    const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!probe) return fail_errno(errno, "socket");
    const int result =
        connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    // Anything but a refusal (success, a full backlog, no permission) may be a live server.
    if (result == 0 || errno != ECONNREFUSED)
        return fail(Errc::kBusy, "listen: another process serves this socket", EADDRINUSE);
    if (unlink(path.c_str()) != 0 && errno != ENOENT)
        return fail_errno(errno, "remove stale socket");
    return {};
}

Result<void> bind_and_listen(int fd, const std::string& path, const sockaddr_un& address,
                             const SocketAccess& access) {
    (void)fchmod(fd, 0600);  // what bind() creates, so that it is never wider than the mode
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return fail_errno(errno, "bind");
    if (access.group && chown(path.c_str(), static_cast<uid_t>(-1), *access.group) != 0 &&
        geteuid() == 0)
        log::warn("cannot give {} to its group: {}", path, std::strerror(errno));
    if (chmod(path.c_str(), access.mode) != 0) return fail_errno(errno, "chmod socket");
    if (listen(fd, 128) != 0) return fail_errno(errno, "listen");
    return {};
}

}  // namespace

Result<sockaddr_un> unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path)
        return fail(Errc::kInvalidArgument, "unix socket path (1 to 107 bytes)");
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Result<Fd> listen_unix(const std::string& path, const SocketAccess& access) {
    TRY_ASSIGN(const sockaddr_un address, unix_address(path));
    TRY(clear_stale_socket(path, address));
    Fd made(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!made) return fail_errno(errno, "socket");
    TRY(bind_and_listen(made.get(), path, address, access));
    return made;
}

}  // namespace ublkd
