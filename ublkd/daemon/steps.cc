#include "ublkd/daemon/steps.h"

#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <thread>

#include "ublkd/base/log.h"

namespace ublkd::daemon {

void Steps::run(const std::string& name, std::function<void()> step) {
    {
        std::unique_lock lock(mutex_);
        if (running_.contains(name)) return;
        while (!has_room()) ended_.wait_for(lock, kLong / 20);
        if (!running_.emplace(name, Clock::now()).second) return;
    }
    try {
        std::thread([this, name, step = std::move(step)] {
            (void)pthread_setname_np(pthread_self(), "step");
            step();
            end(name);
        }).detach();
    } catch (const std::system_error& error) {  // no room for a thread now
        log::warn("{} is left for later: {}", name, error.what());
        end(name);
    }
}

bool Steps::has_room() const {
    const auto since = Clock::now() - kLong;
    const auto young = [since](const auto& step) { return step.second > since; };
    return std::ranges::count_if(running_, young) < kAtOnce;
}

void Steps::end(const std::string& name) {
    const std::lock_guard lock(mutex_);
    running_.erase(name);
    ended_.notify_all();  // under the lock: who waits may destroy this object as soon as it has it
}

void Steps::wait() {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return running_.empty(); });
}

}  // namespace ublkd::daemon
