// Who is at the other end of a unix socket, and whether they may use the daemon: root, the daemon's
// own user, and the members of one group (SO_PEERCRED, SO_PEERGROUPS). For the API and for NBD.
// Over TLS it is whose certificate it is. No state.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace ublkd::api {

struct Caller {
    uid_t uid = 0;
    gid_t gid = 0;
    pid_t pid = 0;
    bool allowed = false;
    std::vector<std::string> certified{};  // over TLS: the URIs in its certificate
};

/// nullopt where the system has no such group.
std::optional<gid_t> group_id(const std::string& name);
/// `fd`: a connected unix socket. Not allowed where its peer cannot be told.
Caller caller_of(int fd, std::optional<gid_t> group);
/// False only for a unix socket whose peer is not allowed (TCP is loopback, and open to every user
/// of the machine).
bool is_admitted(int fd, std::optional<gid_t> group);

}  // namespace ublkd::api
