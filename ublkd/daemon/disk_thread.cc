#include "ublkd/daemon/disk_thread.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace ublkd::daemon {

struct DiskThread::State {
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<std::function<void()>> jobs;  // the first is under way
    bool late = false;
    bool ending = false;
};

DiskThread::DiskThread(const std::string& name) : state_(std::make_shared<State>()) {
    std::thread([state = state_, name] {
        (void)pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
        serve(state);
    }).detach();
}

DiskThread::~DiskThread() {
    const std::lock_guard lock(state_->mutex);
    state_->ending = true;
    state_->wake.notify_one();
}

void DiskThread::serve(const std::shared_ptr<State>& state) {
    std::unique_lock lock(state->mutex);
    for (;;) {
        state->wake.wait(lock, [&] { return state->ending || !state->jobs.empty(); });
        if (state->jobs.empty()) return;
        std::function<void()> job = std::move(state->jobs.front());
        lock.unlock();
        job();
        job = nullptr;  // what it holds may close files
        lock.lock();
        state->jobs.pop_front();
        if (state->jobs.empty()) state->late = false;
    }
}

bool DiskThread::submit(std::function<void()> job) {
    const std::lock_guard lock(state_->mutex);
    if (state_->late) return false;
    state_->jobs.push_back(std::move(job));
    state_->wake.notify_one();
    return true;
}

void DiskThread::set_late() {
    const std::lock_guard lock(state_->mutex);
    state_->late = !state_->jobs.empty();
}

bool DiskThread::is_late() const {
    const std::lock_guard lock(state_->mutex);
    return state_->late;
}

}  // namespace ublkd::daemon
