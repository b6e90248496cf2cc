#include "ublkd/api/handler_threads.h"

#include <pthread.h>

#include <system_error>
#include <thread>

#include "ublkd/base/log.h"

namespace ublkd::api {

void HandlerThreads::submit(std::function<void()> job) {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (jobs_.size() <= idle_) {
        changed_.notify_all();
        return;
    }
    try {
        std::thread([this] {
            (void)pthread_setname_np(pthread_self(), "api-handler");
            serve();
        }).detach();
        ++threads_;
    } catch (const std::system_error& error) {
        // One that is busy takes it later; without any the request stays unanswered.
        log::warn("no thread for a request of the API: {}", error.what());
    }
}

/// The next job; none where this thread is to end.
std::function<void()> HandlerThreads::take() {
    std::unique_lock lock(mutex_);
    ++idle_;
    changed_.wait(lock, [this] { return !jobs_.empty() || ending_ || idle_ > kept_; });
    --idle_;
    if (jobs_.empty()) return nullptr;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    return job;
}

void HandlerThreads::serve() {
    while (auto job = take()) job();
    const std::lock_guard lock(mutex_);
    --threads_;
    changed_
        .notify_all();  // under the lock: who joins may destroy this object as soon as it has it
}

void HandlerThreads::join() {
    std::unique_lock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return threads_ == 0; });
}

}  // namespace ublkd::api
