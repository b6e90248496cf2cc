#include "ublkd/daemon/disk_thread.h"

namespace ublkd::daemon {

bool DiskThread::submit(std::function<void()> job) {
    const std::lock_guard lock(state_->mutex);
    if (state_->late) return false;
    ++state_->open;
    worker_.submit([state = state_, job = std::move(job)]() mutable {
        job();
        job = nullptr;  // what it holds may close files
        const std::lock_guard ended(state->mutex);
        if (--state->open == 0) state->late = false;
    });
    return true;
}

void DiskThread::set_late() {
    const std::lock_guard lock(state_->mutex);
    state_->late = state_->open > 0;
}

bool DiskThread::is_late() const {
    const std::lock_guard lock(state_->mutex);
    return state_->late;
}

}  // namespace ublkd::daemon
