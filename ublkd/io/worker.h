// Between reactors and threads that may block. A Worker is one thread with a queue, for calls that
// block (SQLite, opening files); offload() runs a function there and resumes the coroutine on its
// reactor. ReactorThread is a thread with a reactor of its own; run_on() lets a thread that may
// block (the HTTP API) run a coroutine there and wait for its result.
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
#include <type_traits>
#include <utility>

#include "ublkd/base/result.h"
#include "ublkd/io/reactor.h"

namespace ublkd::io {

class Worker {
  public:
    /// What the destructor does about what is queued or under way: waits until it is done, or
    /// leaves it to the thread, which ends by itself then: for calls that may hang.
    enum class AtEnd { kWait, kLeave };
    explicit Worker(const std::string& name, AtEnd at_end = AtEnd::kWait);
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    ~Worker();
    /// Thread-safe.
    void submit(std::function<void()> function);

  private:
    struct State {
        std::mutex mutex;
        std::condition_variable wake;
        std::deque<std::function<void()>> queue;
        bool ending = false;
    };
    static void serve(State& state);

    std::shared_ptr<State> state_ = std::make_shared<State>();
    AtEnd at_end_;
    std::thread thread_;
};

/// co_await Offload<T>(worker, function): T is the function's result. Name the std::function before
/// the co_await expression, and the Offload too (both have destructors). The function throws
/// nothing. The Worker is destroyed before the reactor that waits for it; one that leaves its calls
/// has ended them by then, or that reactor is never destroyed.
template <class T>
class Offload {
  public:
    Offload(Worker& worker, std::function<T()> function)
        : worker_(&worker), function_(std::move(function)) {}
    Offload(const Offload&) = delete;
    Offload& operator=(const Offload&) = delete;

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> self) {
        Reactor* const home = Reactor::current();
        CHECK(home != nullptr, "a coroutine that offloads runs on a reactor");
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
    /// Starts the thread; returns when its reactor serves. `prepare` runs first on the new thread
    /// (names, prctl).
    static Result<std::unique_ptr<ReactorThread>> start(std::string name,
                                                        const ReactorOptions& options,
                                                        std::function<void()> prepare = {});
    ReactorThread(const ReactorThread&) = delete;
    ReactorThread& operator=(const ReactorThread&) = delete;
    /// Stops and joins. Whatever runs on the reactor has been ended before, and nobody posts to it
    /// any more.
    ~ReactorThread();
    Reactor& reactor() { return *reactor_; }

  private:
    ReactorThread() = default;
    Reactor* reactor_ = nullptr;
    std::promise<void> stop_called_;  // the reactor outlives the call of stop()
    std::thread thread_;
};

namespace detail {

/// Where a thread waits for the result of a coroutine on a reactor.
template <class T>
class Rendezvous {
  public:
    void deliver(T&& value) {
        const std::lock_guard lock(mutex_);
        value_.emplace(std::move(value));
        done_.notify_one();  // under the lock: the waiter destroys this object as soon as it has it
    }
    T wait() {
        std::unique_lock lock(mutex_);
        done_.wait(lock, [this] { return value_.has_value(); });
        return std::move(*value_);
    }

  private:
    std::mutex mutex_;
    std::condition_variable done_;
    std::optional<T> value_;
};

struct Nothing {};

template <class T>
Detached run_for(Task<T> task, Rendezvous<T>* rendezvous) {
    rendezvous->deliver(co_await task);
}
inline Detached run_for(Task<void> task, Rendezvous<Nothing>* rendezvous) {
    co_await task;
    rendezvous->deliver(Nothing{});
}

}  // namespace detail

/// Runs the coroutine that `make` returns on `reactor` and blocks this thread until it has ended.
/// Not to be called on a reactor's thread. `make` and what it refers to live until then, and so
/// does the reactor: a reactor that stops before leaves the caller waiting.
template <class Make>
auto run_on(Reactor& reactor, Make make) {
    using TaskType = decltype(make());
    using T = decltype(std::declval<TaskType>().operator co_await().await_resume());
    using Value = std::conditional_t<std::is_void_v<T>, detail::Nothing, T>;
    CHECK(Reactor::current() == nullptr, "run_on() blocks: not for a reactor's thread");
    detail::Rendezvous<Value> rendezvous;
    reactor.post([&make, &rendezvous] { detail::run_for(make(), &rendezvous); });
    if constexpr (std::is_void_v<T>) {
        (void)rendezvous.wait();
    } else {
        return rendezvous.wait();
    }
}

}  // namespace ublkd::io
