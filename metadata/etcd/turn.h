// A mutex that is waited for until a time. Not std::timed_mutex, since g++ 12's thread sanitizer
// does not know the call by which that one waits (pthread_mutex_clocklock), and takes its unlock
// for a fault. For std::unique_lock. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace ublkd::metadata {

class Turn {
  public:
    bool try_lock_until(std::chrono::steady_clock::time_point until) {
        std::unique_lock lock(mutex_);
        if (!free_.wait_until(lock, until, [this] { return !taken_; })) return false;
        taken_ = true;
        return true;
    }
    void unlock() {
        {
            const std::lock_guard lock(mutex_);
            taken_ = false;
        }
        free_.notify_one();
    }

  private:
    std::mutex mutex_;
    std::condition_variable free_;
    bool taken_ = false;
};

}  // namespace ublkd::metadata
