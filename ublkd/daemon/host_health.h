// Whether this host can do what it is asked for: the checks of its state folder, which status,
// `host list` and doctor show. Blocking; no state.
#pragma once

#include <string>

#include "ublkd/daemon/core.h"

namespace ublkd::daemon {

/// Why changes cannot be stored now; "": they can.
std::string state_trouble(const Core& core);

}  // namespace ublkd::daemon
