// What `ebs-cli doctor` finds: kernel, ublk, names of devices, io_uring, limits, permissions,
// folders, pools; each finding with its fix. Answers before `init` too. Blocking; no state.
#pragma once

#include <vector>

#include "ublkd/api/views.h"
#include "ublkd/daemon/core.h"

namespace ublkd::daemon {

/// `drains`: of all hosts' pools.
std::vector<api::FindingView> examine(const Core& core, const std::vector<api::DrainView>& drains);

}  // namespace ublkd::daemon
