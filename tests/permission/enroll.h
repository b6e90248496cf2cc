// Hosts for the askers: one daemon knows its own host alone, so the records of others are written
// into its database while it does not run.
#pragma once

#include "tests/permission/daemon.h"

namespace ublkd::permission_test {

/// host_of(0) to host_of(count - 1) become known hosts. The daemon, initialized and running, is
/// started again. False where that fails.
[[nodiscard]] bool enroll_hosts(Daemon& daemon, unsigned count);

}  // namespace ublkd::permission_test
