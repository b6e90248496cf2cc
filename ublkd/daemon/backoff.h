// When to try again what failed: each time later, from a second to a minute. A plain value.
#pragma once

#include <algorithm>
#include <chrono>

namespace ublkd::daemon {

class Backoff {
  public:
    using Clock = std::chrono::steady_clock;

    bool is_due(Clock::time_point now = Clock::now()) const { return now >= next_; }
    void failed(Clock::time_point now = Clock::now()) {
        next_ = now + wait_;
        wait_ = std::min<Clock::duration>(wait_ * 2, std::chrono::minutes(1));
    }
    void reset() { *this = Backoff(); }

  private:
    Clock::time_point next_{};
    Clock::duration wait_ = std::chrono::seconds(1);
};

}  // namespace ublkd::daemon
