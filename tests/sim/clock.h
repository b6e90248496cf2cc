// The virtual clock: what happens when. Events of a process that died since are dropped; those of
// one that is stopped wait until it goes on.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace ublkd::sim {

/// What a process's events depend on.
struct Running {
    std::uint64_t life = 1;  // how often it was started
    bool up = true;
    bool paused = false;
};

class Clock {
  public:
    std::uint64_t now_us() const { return now_us_; }
    /// `of`: nullptr for what belongs to no process.
    void after(std::uint64_t microseconds, const Running* of, std::function<void()> function);
    /// Runs the next event; false where there is none.
    bool step();
    /// What waited for `process` while it was paused happens now, in its order.
    void resume(const Running* process);
    std::uint64_t events() const { return order_; }

  private:
    struct Event {
        std::uint64_t at_us = 0;
        std::uint64_t order = 0;
        const Running* of = nullptr;
        std::uint64_t life = 0;
        std::function<void()> function{};
        bool operator<(const Event& other) const {
            return at_us != other.at_us ? at_us > other.at_us : order > other.order;
        }
    };
    std::uint64_t now_us_ = 0;
    std::uint64_t order_ = 0;
    std::vector<Event> queue_;    // a heap
    std::vector<Event> waiting_;  // of paused processes, in order
};

}  // namespace ublkd::sim
