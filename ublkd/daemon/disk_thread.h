// A thread for the blocking calls of one disk, so that a disk that hangs holds up nobody else: who
// asks waits for a while and goes on without an answer; the call goes on without who asked. Calls
// are made in order, one at a time. Thread-safe. No call may refer to what its caller owns alone:
// it can outlive the caller, and this object.
#pragma once

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "ublkd/base/result.h"

namespace ublkd::daemon {

class DiskThread {
  public:
    explicit DiskThread(const std::string& name);
    DiskThread(const DiskThread&) = delete;
    DiskThread& operator=(const DiskThread&) = delete;
    /// Waits for nothing: the thread ends when what it was given is done.
    ~DiskThread();

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
    struct State;
    static void serve(const std::shared_ptr<State>& state);
    bool submit(std::function<void()> job);
    void set_late();

    std::shared_ptr<State> state_;
};

}  // namespace ublkd::daemon
