// What a request does, on a thread of its own, so that who asked for it need not wait for ever
// where a disk holds up the volume's reactor in the midst of it (docs/volume.md): the work goes on
// when the reactor does. Time alone ends no wait: what is slow may last. No state.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <optional>
#include <thread>

#include "ublkd/daemon/engine.h"

namespace ublkd::daemon {

/// What `work` gives; nullopt where the volume's reactor (`nbd`: or the one that has the clients)
/// has not answered for 10 s. `work` owns what it uses, or that lives as long as the process.
template <class T>
std::optional<T> while_it_answers(Engine& engine, VolumeId volume, bool nbd,
                                  std::function<T()> work) {
    constexpr auto kLookAgain = std::chrono::seconds(1);
    constexpr unsigned kLooksInVain = 9;  // the first of a row takes 2 s (questions.h)
    std::packaged_task<T()> task(std::move(work));
    auto done = task.get_future();
    std::thread(std::move(task)).detach();
    unsigned in_vain = 0;
    while (done.wait_for(kLookAgain) != std::future_status::ready) {
        in_vain = engine.check_answers(volume, nbd) ? 0 : in_vain + 1;
        if (in_vain == kLooksInVain) return std::nullopt;
    }
    return done.get();
}

}  // namespace ublkd::daemon
