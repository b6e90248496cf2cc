// Waiting on one reactor thread: Event, Semaphore, TaskGroup and Gate. None locks; none is shared
// between threads. Waiters are resumed through the reactor's ready queue, never from inside the
// call that wakes them, so that a woken coroutine cannot run in the middle of another's step.
#pragma once

#include <coroutine>
#include <cstdint>

#include "ublkd/base/check.h"
#include "ublkd/base/result.h"
#include "ublkd/io/task.h"

namespace ublkd::io {

/// Puts a suspended coroutine into the ready queue of this thread's reactor (reactor.cc).
void make_ready(std::coroutine_handle<> handle);

namespace detail {

/// An intrusive first-in first-out list of suspended coroutines; the nodes live in their frames.
struct Waiter {
    std::coroutine_handle<> handle;
    Waiter* next = nullptr;
    std::uint64_t amount = 0;
};

class WaiterQueue {
  public:
    bool empty() const { return head_ == nullptr; }
    Waiter* front() const { return head_; }
    /// False where it is not in the list.
    bool remove(Waiter* waiter) {
        Waiter* before = nullptr;
        for (Waiter* at = head_; at != nullptr; before = at, at = at->next) {
            if (at != waiter) continue;
            (before == nullptr ? head_ : before->next) = at->next;
            if (tail_ == at) tail_ = before;
            return true;
        }
        return false;
    }
    void push(Waiter* waiter) {
        waiter->next = nullptr;
        if (tail_ == nullptr) {
            head_ = waiter;
        } else {
            tail_->next = waiter;
        }
        tail_ = waiter;
    }
    Waiter* pop() {
        Waiter* const first = head_;
        head_ = first->next;
        if (head_ == nullptr) tail_ = nullptr;
        return first;
    }

  private:
    Waiter* head_ = nullptr;
    Waiter* tail_ = nullptr;
};

}  // namespace detail

/// Set once, stays set until reset(): all who wait go on.
class Event {
  public:
    Event() = default;
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { CHECK(waiters_.empty(), "nobody waits on an Event that is destroyed"); }

    bool is_set() const { return set_; }
    void set() {
        set_ = true;
        wake_all();
    }
    void reset() { set_ = false; }
    /// Wakes those who wait now, without staying set.
    void pulse() { wake_all(); }

    struct Awaiter : detail::Waiter {
        Event* event;
        explicit Awaiter(Event* of) : event(of) {}
        bool await_ready() const noexcept { return event->set_; }
        void await_suspend(std::coroutine_handle<> self) noexcept {
            handle = self;
            event->waiters_.push(this);
        }
        void await_resume() const noexcept {}
    };
    Awaiter wait() { return Awaiter(this); }
    /// For Reactor::wait_until().
    void add_waiter(detail::Waiter* waiter) { waiters_.push(waiter); }
    bool remove_waiter(detail::Waiter* waiter) { return waiters_.remove(waiter); }

  private:
    void wake_all() {
        while (!waiters_.empty()) make_ready(waiters_.pop()->handle);
    }
    detail::WaiterQueue waiters_;
    bool set_ = false;
};

/// Counted units, first come first served: a large request is not overtaken by small ones behind
/// it.
class Semaphore {
  public:
    explicit Semaphore(std::uint64_t units) : units_(units) {}
    Semaphore(const Semaphore&) = delete;
    Semaphore& operator=(const Semaphore&) = delete;
    ~Semaphore() { CHECK(waiters_.empty(), "nobody waits on a Semaphore that is destroyed"); }

    struct Awaiter : detail::Waiter {
        Semaphore* semaphore;
        Awaiter(Semaphore* of, std::uint64_t units) : semaphore(of) { amount = units; }
        bool await_ready() const noexcept { return semaphore->try_acquire(amount); }
        void await_suspend(std::coroutine_handle<> self) noexcept {
            handle = self;
            semaphore->waiters_.push(this);
        }
        void await_resume() const noexcept {}
    };
    Awaiter acquire(std::uint64_t units = 1) { return Awaiter(this, units); }
    bool try_acquire(std::uint64_t units = 1) {
        if (!waiters_.empty() || units_ < units) return false;
        units_ -= units;
        return true;
    }
    void release(std::uint64_t units = 1) {
        units_ += units;
        while (!waiters_.empty() && waiters_.front()->amount <= units_) {
            detail::Waiter* const waiter = waiters_.pop();
            units_ -= waiter->amount;
            make_ready(waiter->handle);
        }
    }
    std::uint64_t available() const { return units_; }
    bool has_waiters() const { return !waiters_.empty(); }

  private:
    std::uint64_t units_;
    detail::WaiterQueue waiters_;
};

/// Counts what is under way on an object, so that it is destroyed only after all of it has ended.
/// close() refuses newcomers and ends when the last one has left. Long-lived coroutines are started
/// through spawn().
class Gate {
  public:
    Gate() = default;
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;
    ~Gate() { CHECK(count_ == 0, "a Gate is closed before it is destroyed"); }

    bool is_closed() const { return closed_; }
    std::uint64_t count() const { return count_; }
    /// False once the gate is closing: do nothing then.
    bool try_enter() {
        if (closed_) return false;
        ++count_;
        return true;
    }
    void leave() {
        CHECK(count_ > 0, "leave() pairs with try_enter()");
        if (--count_ == 0 && closed_) empty_.set();
    }
    /// Refuses newcomers once it is awaited (begin_close(): at once); ends when all have left.
    Task<void> close() {
        begin_close();
        co_await empty_.wait();
    }
    void begin_close() {
        closed_ = true;
        if (count_ == 0) empty_.set();
    }

  private:
    std::uint64_t count_ = 0;
    bool closed_ = false;
    Event empty_;
};

namespace detail {
inline Detached run_in_gate(Gate* gate, Task<void> task) {
    co_await task;
    gate->leave();
}
}  // namespace detail

/// Starts `task` now and lets it run by itself; `gate` counts it. False (and not started) where the
/// gate is closed.
inline bool spawn(Gate& gate, Task<void> task) {
    if (!gate.try_enter()) return false;
    detail::run_in_gate(&gate, std::move(task));
    return true;
}

/// Several tasks side by side: start() each, then wait() once for all of them.
class TaskGroup {
  public:
    TaskGroup() = default;
    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;
    ~TaskGroup() { CHECK(left_ == 0, "wait() comes before a TaskGroup is destroyed"); }

    void start(Task<void> task) {
        ++left_;
        run(this, std::move(task));
    }
    struct Awaiter {
        TaskGroup* group;
        bool await_ready() const noexcept { return group->left_ == 0; }
        void await_suspend(std::coroutine_handle<> self) const noexcept { group->waiting_ = self; }
        void await_resume() const noexcept {}
    };
    Awaiter wait() { return Awaiter{this}; }

  private:
    static detail::Detached run(TaskGroup* group, Task<void> task) {
        co_await task;
        if (--group->left_ == 0 && group->waiting_)
            make_ready(std::exchange(group->waiting_, nullptr));
    }
    std::uint64_t left_ = 0;
    std::coroutine_handle<> waiting_;
};

}  // namespace ublkd::io
