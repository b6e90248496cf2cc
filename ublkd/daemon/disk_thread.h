// A thread for the blocking calls of one disk, so that a disk that hangs holds up nobody else: who
// asks waits for a while and goes on without an answer; the call goes on without who asked. Calls
// are made in order, one at a time. Thread-safe. No call may refer to what its caller owns alone:
// it can outlive the caller, and this object.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "ublkd/base/result.h"
#include "ublkd/io/worker.h"

namespace ublkd::daemon {

class DiskThread {
  public:
    explicit DiskThread(const std::string& name) : worker_(name, io::Worker::AtEnd::kLeave) {}

    /// What `function` returns; nullopt where it has not ended within `limit`, and at once, without
    /// the call, while an earlier one is that late.
    template <class F>
    std::optional<std::invoke_result_t<F>> call(std::chrono::milliseconds limit, F function) {
        using Value = std::invoke_result_t<F>;
        auto task = std::make_shared<std::packaged_task<Value()>>(std::move(function));
        std::future<Value> answer = task->get_future();
        if (!submit([task] { (*task)(); })) return std::nullopt;
        if (answer.wait_for(limit) != std::future_status::ready) {
            set_late();
            if (answer.wait_for(std::chrono::seconds(0)) != std::future_status::ready)
                return std::nullopt;
        }
        return answer.get();
    }
    /// The same for a Result: kTimedOut.
    template <class F>
    std::invoke_result_t<F> ask(std::chrono::milliseconds limit, F function) {
        auto answer = call(limit, std::move(function));
        if (!answer) return fail(Errc::kTimedOut, "the disk does not answer");
        return std::move(*answer);
    }
    /// Whether somebody waited in vain for a call that is still under way.
    bool is_late() const;

  private:
    struct State {
        std::mutex mutex;
        unsigned open = 0;  // calls that were given and have not ended
        bool late = false;
    };
    bool submit(std::function<void()> job);
    void set_late();

    std::shared_ptr<State> state_ = std::make_shared<State>();
    io::Worker worker_;
};

}  // namespace ublkd::daemon
