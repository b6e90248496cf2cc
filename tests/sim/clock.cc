#include "tests/sim/clock.h"

#include <algorithm>
#include <utility>

namespace ublkd::sim {

void Clock::after(std::uint64_t microseconds, const Running* of, std::function<void()> function) {
    queue_.push_back({.at_us = now_us_ + microseconds,
                      .order = ++order_,
                      .of = of,
                      .life = of == nullptr ? 0 : of->life,
                      .function = std::move(function)});
    std::push_heap(queue_.begin(), queue_.end());
}

bool Clock::step() {
    while (!queue_.empty()) {
        std::pop_heap(queue_.begin(), queue_.end());
        Event event = std::move(queue_.back());
        queue_.pop_back();
        now_us_ = std::max(now_us_, event.at_us);
        if (event.of != nullptr && (!event.of->up || event.of->life != event.life)) continue;
        if (event.of != nullptr && event.of->paused) {
            waiting_.push_back(std::move(event));
            continue;
        }
        event.function();
        return true;
    }
    return false;
}

void Clock::resume(const Running* process) {
    std::vector<Event> others;
    for (Event& event : std::exchange(waiting_, {})) {
        if (event.of != process) {
            others.push_back(std::move(event));
            continue;
        }
        event.at_us = now_us_;
        queue_.push_back(std::move(event));
        std::push_heap(queue_.begin(), queue_.end());
    }
    waiting_ = std::move(others);
}

}  // namespace ublkd::sim
