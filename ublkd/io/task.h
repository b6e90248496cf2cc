// Task<T>: a lazy coroutine that yields one T to the one coroutine that awaits it. Frames come from
// frame_pool.h.
//
// Awaiting uses the `bool await_suspend` form: the child is resumed from inside await_suspend, and
// where it ran to its end at once the awaiting coroutine goes on without being suspended. Symmetric
// transfer is not used: g++ makes no tail call of it at -O0 and under the sanitizers, so a loop
// over tasks that complete at once would overflow the stack. Single-threaded: a Task is created,
// run and destroyed on one thread, so no atomics are needed.
//
// Rules for coroutines (g++ 12, docs/hacking.md): no lambda and no temporary with a destructor
// inside a co_await expression; no capturing coroutine lambdas; arguments are handles, values or
// references to what outlives the task. An exception that leaves a coroutine ends the process:
// errors are Result values.
#pragma once

#include <coroutine>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/io/frame_pool.h"

namespace ublkd::io {

template <class T>
class Task;

namespace detail {

class PromiseBase {
  public:
    static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
    static void operator delete(void* frame, std::size_t bytes) noexcept {
        free_frame(frame, bytes);
    }

    std::suspend_always initial_suspend() const noexcept { return {}; }
    [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }

    struct FinalAwaiter {
        bool await_ready() const noexcept { return false; }
        template <class Promise>
        void await_suspend(std::coroutine_handle<Promise> self) const noexcept {
            PromiseBase& promise = self.promise();
            if (promise.starting_) {
                promise.done_at_once_ =
                    true;  // await_suspend() below is still on the stack and sees it
            } else {
                promise.continuation_.resume();  // may destroy this frame: nothing may follow
            }
        }
        void await_resume() const noexcept {}
    };
    FinalAwaiter final_suspend() const noexcept { return {}; }

    /// Runs the coroutine to its first suspension. False: it ran to its end, go on with its result.
    bool start(std::coroutine_handle<> self, std::coroutine_handle<> continuation) noexcept {
        DCHECK(!started_, "a Task is awaited once");
        started_ = true;
        continuation_ = continuation;
        starting_ = true;
        self.resume();
        starting_ = false;
        return !done_at_once_;
    }

    /// Never started, or at its end: nothing of the kernel or of a queue points into the frame.
    bool may_be_destroyed(std::coroutine_handle<> self) const noexcept {
        return !started_ || self.done();
    }

  private:
    std::coroutine_handle<> continuation_;
    bool started_ = false;
    bool starting_ = false;
    bool done_at_once_ = false;
};

template <class T>
class Promise final : public PromiseBase {
  public:
    Task<T> get_return_object() noexcept;
    template <class U>
        requires std::is_convertible_v<U&&, T>
    void return_value(U&& value) noexcept(std::is_nothrow_constructible_v<T, U&&>) {
        value_.emplace(std::forward<U>(value));
    }
    T take() { return std::move(*value_); }

  private:
    std::optional<T> value_;
};

template <>
class Promise<void> final : public PromiseBase {
  public:
    Task<void> get_return_object() noexcept;
    void return_void() const noexcept {}
    void take() const noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
  public:
    using promise_type = detail::Promise<T>;
    using Handle = std::coroutine_handle<promise_type>;

    Task() = default;
    explicit Task(Handle handle) noexcept : handle_(handle) {}
    Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    Task& operator=(Task&& other) noexcept {
        if (this != &other) {
            destroy();
            handle_ = std::exchange(other.handle_, nullptr);
        }
        return *this;
    }
    ~Task() { destroy(); }

    struct Awaiter {
        Handle handle;
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<> continuation) const noexcept {
            return handle.promise().start(handle, continuation);
        }
        T await_resume() const { return handle.promise().take(); }
    };
    /// Awaited at most once; the Task keeps the frame and must live until the result is taken.
    Awaiter operator co_await() const noexcept {
        DCHECK(handle_.operator bool(), "an empty Task is not awaited");
        return Awaiter{handle_};
    }

  private:
    void destroy() noexcept {
        if (!handle_) return;
        DCHECK(handle_.promise().may_be_destroyed(handle_), "a Task under way is not destroyed");
        handle_.destroy();
    }
    Handle handle_ = nullptr;
};

namespace detail {
template <class T>
Task<T> Promise<T>::get_return_object() noexcept {
    return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
    return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}

/// An eager coroutine that owns itself: how a Task is started without being awaited (gate.h,
/// sync.h).
struct Detached {
    struct promise_type {
        static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
        static void operator delete(void* frame, std::size_t bytes) noexcept {
            free_frame(frame, bytes);
        }
        Detached get_return_object() const noexcept { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
    };
};
}  // namespace detail

}  // namespace ublkd::io
