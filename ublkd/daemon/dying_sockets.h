// After a SIGKILL the kernel keeps a daemon's sockets alive a moment longer than its lock on the
// state folder: its ring, with the pending accepts, is taken down in the background. Who listens in
// its place asks again for that long. Blocks. No state.
#pragma once

#include <chrono>
#include <thread>

#include "ublkd/base/result.h"

namespace ublkd::daemon {

/// Calls `listen`, which gives a Result, again while another process has the address.
template <class F>
auto again_while_dying(std::chrono::seconds limit, F listen) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
        auto listening = listen();
        if (listening || listening.error().code != Errc::kBusy ||
            std::chrono::steady_clock::now() >= deadline)
            return listening;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
}

}  // namespace ublkd::daemon
