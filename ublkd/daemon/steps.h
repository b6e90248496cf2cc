// Steps that may block on a disk for ever, each by its name on a thread of its own: one that hangs
// holds up no other. Of a name one step runs at a time. Thread-safe. Owner: Repair.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <set>
#include <string>

namespace ublkd::daemon {

class Steps {
  public:
    Steps() = default;
    Steps(const Steps&) = delete;
    Steps& operator=(const Steps&) = delete;
    ~Steps() { wait(); }

    /// Nothing where the last step of this name is still under way.
    void run(const std::string& name, std::function<void()> step);
    /// Until all have ended; nobody calls run() any more.
    void wait();

  private:
    void end(const std::string& name);

    std::mutex mutex_;
    std::condition_variable ended_;
    std::set<std::string> running_;
};

}  // namespace ublkd::daemon
