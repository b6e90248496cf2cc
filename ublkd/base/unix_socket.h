// A listening unix socket at a path: who may connect, and what lies there already. Blocking, but
// for no disk; no state.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include <optional>
#include <string>

#include "ublkd/base/fd.h"
#include "ublkd/base/result.h"

namespace ublkd {

struct SocketAccess {
    unsigned mode = 0660;
    std::optional<gid_t> group;  // given to it where that is permitted
};

/// kInvalidArgument: 1 to 107 bytes.
Result<sockaddr_un> unix_address(const std::string& path);

/// A descriptor that listens and does not block. The socket of a dead process is replaced. Errors:
/// kBusy (a process serves it, or may), kExists (`path` is something else, which is left alone).
Result<Fd> listen_unix(const std::string& path, const SocketAccess& access);

}  // namespace ublkd
