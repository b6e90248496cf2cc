// Between reactors and threads that may block. A Worker is one thread with a queue, for calls that block (SQLite, opening
// files); offload() runs a function there and resumes the coroutine on its reactor. ReactorThread is a thread with a
// reactor of its own; run_on() lets a thread that may block (the HTTP API) run a coroutine there and wait for its result.
#pragma once

#include <condition_variable>
#include <coroutine>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "ublkd/base/result.h"
#include "ublkd/io/reactor.h"

namespace ublkd::io {

class Worker {
  public:
    explicit Worker(std::string name);
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    /// Runs what is queued, then ends the thread.
    ~Worker();
    /// Thread-safe.
    void submit(std::function<void()> function);

  private:
    void serve();
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    bool stopping_ = false;
    std::thread thread_;
};

/// co_await Offload<T>(worker, function): T is the function's result. Name the std::function before the co_await
/// expression, and the Offload too (both have destructors).
template <class T>
class Offload {
  public:
    Offload(Worker& worker, std::function<T()> function) : worker_(&worker), function_(std::move(function)) {}
    Offload(const Offload&) = delete;
    Offload& operator=(const Offload&) = delete;

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> self) {
        Reactor* const home = Reactor::current();
        worker_->submit([this, home, self] {
            result_.emplace(function_());
            home->post([self] { self.resume(); });
        });
    }
    T await_resume() { return std::move(*result_); }

  private:
    Worker* worker_;
    std::function<T()> function_;
    std::optional<T> result_;
};

class ReactorThread {
  public:
    /// Starts the thread; returns when its reactor serves. `prepare` runs first on the new thread (names, prctl).
    static Result<std::unique_ptr<ReactorThread>> start(std::string name, const ReactorOptions& options,
                                                        std::function<void()> prepare = {});
    ReactorThread(const ReactorThread&) = delete;
    ReactorThread& operator=(const ReactorThread&) = delete;
    ~ReactorThread();
    Reactor& reactor() { return *reactor_; }

  private:
    ReactorThread() = default;
    Reactor* reactor_ = nullptr;
    std::thread thread_;
};

namespace detail {
template <class T>
Detached run_for(Task<T> task, std::promise<T>* promise) {
    if constexpr (std::is_void_v<T>) {
        co_await task;
        promise->set_value();
    } else {
        promise->set_value(co_await task);
    }
}
}  // namespace detail

/// Runs the coroutine that `make` returns on `reactor` and blocks this thread until it has ended. Not to be called on a
/// reactor's thread. `make` and what it refers to live until then.
template <class Make>
auto run_on(Reactor& reactor, Make make) {
    using TaskType = decltype(make());
    using T = decltype(std::declval<TaskType>().operator co_await().await_resume());
    CHECK(Reactor::current() == nullptr, "run_on() blocks: not for a reactor's thread");
    std::promise<T> promise;
    auto future = promise.get_future();
    reactor.post([&make, &promise] { detail::run_for<T>(make(), &promise); });
    return future.get();
}

}  // namespace ublkd::io
