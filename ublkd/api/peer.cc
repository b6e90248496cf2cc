#include "ublkd/api/peer.h"

#include <grp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace ublkd::api {

std::optional<gid_t> group_id(const std::string& name) {
    std::array<char, 16384> memory{};
    group entry{};
    group* found = nullptr;
    if (getgrnam_r(name.c_str(), &entry, memory.data(), memory.size(), &found) != 0 ||
        found == nullptr) {
        return std::nullopt;
    }
    return found->gr_gid;
}

Caller caller_of(int fd, std::optional<gid_t> group) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    Caller caller;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return caller;
    caller.uid = credentials.uid;
    caller.gid = credentials.gid;
    caller.pid = credentials.pid;
    caller.allowed = credentials.uid == 0 || credentials.uid == geteuid();
    if (!caller.allowed && group) {
        std::array<gid_t, 1024> groups{};
        socklen_t bytes = sizeof groups;
        caller.allowed = credentials.gid == *group;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &bytes) == 0) {
            for (std::size_t i = 0; i < bytes / sizeof(gid_t); ++i)
                caller.allowed |= groups[i] == *group;
        }
    }
    return caller;
}

bool is_admitted(int fd, std::optional<gid_t> group) {
    int family = 0;
    socklen_t length = sizeof family;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length) != 0) return false;
    return family != AF_UNIX || caller_of(fd, group).allowed;
}

}  // namespace ublkd::api
