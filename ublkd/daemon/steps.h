// Steps that may block on a disk for ever, each by its name on a thread of its own: one that hangs
// holds up no other. Of a name one step runs at a time, and few at once: what has not ended after
// kLong may hang and counts no more. Thread-safe. Owners: Repair, and Volumes::recover().
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>

namespace ublkd::daemon {

class Steps {
  public:
    Steps() = default;
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;
    ~Steps() { wait(); }

    static constexpr unsigned kAtOnce = 8;
    static constexpr auto kLong = std::chrono::seconds(1);

    /// Waits until fewer than kAtOnce run. Nothing where the last step of this name is still under
    /// way.
    void run(const std::string& name, std::function<void()> step);
    /// Until all have ended; nobody calls run() any more.
    void wait();

  private:
    using Clock = std::chrono::steady_clock;
    bool has_room() const;
    void end(const std::string& name);

    std::mutex mutex_;
    std::condition_variable ended_;
    std::map<std::string, Clock::time_point> running_;  // since when
};

}  // namespace ublkd::daemon
