// The reactor: one thread, one io_uring, coroutines. A volume lives on one reactor: its front end,
// range locks and store are served there without locks, and a request never changes threads.
//
// A turn of the loop: what is ready runs; what it asked of the kernel is submitted; end-of-turn
// hooks run (a front end sends all replies that became ready, after the disk requests are in the
// kernel); then one enter submits and waits. SQEs are never dropped: a full submission queue is
// submitted and used again.
//
// Owner: the thread that made it. All calls are made on that thread, except post() and stop().
// Source: io_uring_setup(2), io_uring_enter(2); liburing 2.3. See docs/io.md.
#pragma once

#include <liburing.h>
#include <sys/socket.h>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/io/ready_queue.h"
#include "ublkd/io/sync.h"
#include "ublkd/io/task.h"
#include "ublkd/io/timer_heap.h"

namespace ublkd::io {

class Reactor;

/// What an SQE's user_data points to. Must stay in place until on_cqe has been called for the last
/// time (once, or until a CQE without IORING_CQE_F_MORE for multishot requests).
struct Completion {
    using Handler = void (*)(Completion* self, int result, std::uint32_t flags) noexcept;
    Handler on_cqe = nullptr;
};

/// A file descriptor, and its place in the ring's table of registered files where it has one.
struct FdRef {
    int fd = -1;
    int registered = -1;
};

/// One request to the kernel as an awaitable; co_await gives the CQE's result: >= 0, or a negative
/// errno. Made by Reactor's functions; trivially destructible, so it may be a temporary in a
/// co_await expression.
class Operation : public Completion {
  public:
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> self) noexcept;
    int await_resume() const noexcept { return result_; }

  private:
    friend class Reactor;
    Operation(Reactor* reactor, const io_uring_sqe& sqe) noexcept;

    Reactor* reactor_;
    io_uring_sqe sqe_;  // copied into the ring when awaited
    std::coroutine_handle<> handle_;
    int result_ = 0;
};

/// Called at the end of a turn, after the turn's requests were submitted; armed anew each time.
struct TurnHook {
    void (*run)(TurnHook* self) noexcept = nullptr;
    bool armed = false;
};

struct ReactorOptions {
    unsigned entries = 1024;  // submission queue; the completion queue has four times as many
    unsigned registered_files = 1024;
};

/// Counted since the reactor was made; what the benchmarks and the metrics divide by requests.
struct ReactorStats {
    std::uint64_t turns = 0;
    std::uint64_t enters = 0;       // io_uring_enter calls
    std::uint64_t waits = 0;        // of them: those that were allowed to sleep
    std::uint64_t submissions = 0;  // SQEs
    std::uint64_t completions = 0;  // CQEs
    std::uint64_t ready_runs = 0;   // coroutines resumed from the ready queue
    std::uint64_t hook_runs = 0;    // end-of-turn hooks
    std::uint64_t timers_fired = 0;
    std::uint64_t posted = 0;      // functions from other threads
    std::uint64_t queue_full = 0;  // SQEs that found the submission queue full
    std::uint64_t in_flight = 0;   // requests in the kernel now, the wake-up read included
};

class Reactor {
  public:
    /// Errors: kUnsupported (no io_uring, or switched off by sysctl), kExhausted.
    static Result<std::unique_ptr<Reactor>> create(const ReactorOptions& options = {});
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;
    /// On its own thread. Requests still in the kernel are cancelled and waited for, so that it
    /// writes into no memory of ours afterwards; the coroutines that wait for them never run again.
    /// No other thread may be in a call by then.
    ~Reactor();

    /// The reactor of this thread, nullptr where there is none.
    static Reactor* current() noexcept;

    /// Serves until stop(); then what is posted and ready by then still runs. Whoever calls stop()
    /// has closed its gates before.
    void run();
    /// Thread-safe; the reactor must outlive the call (ReactorThread sees to that).
    void stop();
    /// Runs `task` to its end on this thread, serving all else meanwhile (tests, start-up,
    /// shutdown).
    template <class T>
    T run_until_complete(Task<T> task);

    /// Runs `function` on the reactor's thread soon, in the order of the calls. Thread-safe; the
    /// reactor must outlive the call. Not for the data path: it locks and allocates.
    void post(std::function<void()> function);

    // Requests. Buffers and addresses must stay valid until the result is there. All give bytes or
    // -errno.
    Operation read(FdRef file, std::span<std::byte> into, std::uint64_t offset_bytes);
    Operation write(FdRef file, std::span<const std::byte> from, std::uint64_t offset_bytes);
    Operation fdatasync(FdRef file);
    Operation fallocate(FdRef file, int mode, std::uint64_t offset_bytes,
                        std::uint64_t length_bytes);
    Operation accept(FdRef listener);
    Operation receive(FdRef socket, std::span<std::byte> into, int flags = 0);
    Operation send(FdRef socket, std::span<const std::byte> from, int flags = 0);
    Operation poll(FdRef file, unsigned events);
    /// Sees to it that the next `count` requests of this turn enter the kernel in one entry, with
    /// no signal in between. False: not so many fit (ReactorOptions::entries).
    bool make_room(unsigned count);
    /// A 64-byte SQE filled by the caller (IORING_OP_URING_CMD of front/ublk); user_data is set
    /// here.
    Operation raw(const io_uring_sqe& sqe);
    /// The same for a completion that is not a coroutine (persistent tags, multishot).
    void submit(const io_uring_sqe& sqe, Completion* completion);
    /// The same for a command that no cancel reaches and that uses no memory of ours (ublk's
    /// fetch): the reactor's end does not wait for it, since the kernel ends it with the ring.
    void submit_until_end(const io_uring_sqe& sqe, Completion* completion);
    /// Asks the kernel to give up `operation`; it still completes, with -ECANCELED or its own
    /// result.
    void cancel(Completion* operation);

    /// Suspends until `when`. Not cancellable.
    struct SleepAwaiter;
    SleepAwaiter sleep_until(Clock::time_point when);
    SleepAwaiter sleep_for(Clock::duration duration);
    /// Lets everything else that is ready run first.
    struct YieldAwaiter {
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> self) const { make_ready(self); }
        void await_resume() const noexcept {}
    };
    YieldAwaiter yield() const { return {}; }

    /// A timer that calls on_cqe with 0 when due, unless it is cancelled first.
    struct Timer : Completion, TimerNode {
        bool armed() const { return place != 0; }
    };
    void start_timer(Timer* timer, Clock::time_point when);
    /// Nothing where it is not armed.
    void cancel_timer(Timer* timer);
    /// Until `event` is set, or `when`. True where it is set.
    Task<bool> wait_until(Event* event, Clock::time_point when);

    void at_turn_end(TurnHook* hook);
    /// Before a TurnHook that may be armed is destroyed.
    void remove_hook(TurnHook* hook);

    /// Puts a descriptor into the ring's table; the request path then saves the kernel a look-up.
    /// Where the table is full the FdRef is returned unregistered, which works as well.
    FdRef register_fd(int fd);
    void unregister_fd(FdRef& file);

    bool on_own_thread() const noexcept { return current() == this; }
    const ReactorStats& stats() const noexcept { return stats_; }
    void add_ready(std::coroutine_handle<> handle) { ready_.push(handle); }

  private:
    struct WakeRead : Completion {
        Reactor* reactor = nullptr;
    };
    friend class Operation;

    Reactor() = default;
    void submit_now();
    Operation prepared(const io_uring_sqe& sqe) { return Operation(this, sqe); }
    io_uring_sqe* next_sqe();
    void submit_waiting();
    void drain_kernel();
    void turn(const bool& may_wait);  // read after what is ready has run
    void run_ready();
    void run_hooks();
    void fire_timers();
    void enter(bool may_wait);
    void reap();
    void arm_wake();
    void enqueue(const io_uring_sqe& sqe, std::uint64_t user_data);
    void ended(std::uint64_t user_data);
    void take_posted();
    void fix_fd(io_uring_sqe& sqe, FdRef file) const;

    io_uring ring_{};
    bool ring_made_ = false;
    int wake_fd_ = -1;
    std::uint64_t wake_value_ = 0;
    WakeRead wake_read_;
    ReadyQueue ready_;
    std::deque<io_uring_sqe>
        waiting_sqes_;  // the kernel took none of a full queue; almost always empty
    std::vector<TurnHook*> hooks_;
    std::vector<TurnHook*> hooks_running_;
    TimerHeap timers_;
    std::vector<int> free_file_slots_;
    std::mutex posted_mutex_;
    std::vector<std::function<void()>> posted_;
    bool wake_pending_ = false;  // with posted_mutex_, as posted_
    std::atomic<bool> stop_requested_ = false;
    bool in_turn_ = false;
    bool work_queued_ =
        false;  // the submission queue holds more than requests to wait for something
    std::uint64_t until_end_ = 0;  // of stats_.in_flight: by submit_until_end()
    ReactorStats stats_;
};

struct Reactor::SleepAwaiter {
    struct SleepTimer : Timer {
        std::coroutine_handle<> handle;
    };
    Reactor* reactor;
    Clock::time_point when;
    SleepTimer timer{};

    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> self) {
        timer.handle = self;
        timer.on_cqe = [](Completion* fired, int, std::uint32_t) noexcept {
            static_cast<SleepTimer*>(fired)->handle.resume();
        };
        reactor->start_timer(&timer, when);
    }
    void await_resume() const noexcept {}
};

namespace detail {
template <class T>
Detached run_to(Task<T> task, std::optional<T>* result, bool* may_wait) {
    result->emplace(co_await task);
    *may_wait = false;  // the turn that ended the task must not go to sleep
}
inline Detached run_to(Task<void> task, bool* done, bool* may_wait) {
    co_await task;
    *done = true;
    *may_wait = false;
}
}  // namespace detail

template <class T>
T Reactor::run_until_complete(Task<T> task) {
    CHECK(!in_turn_,
          "run_until_complete() is not called from a coroutine or handler: await the task");
    bool may_wait = true;
    if constexpr (std::is_void_v<T>) {
        bool done = false;
        detail::run_to(std::move(task), &done, &may_wait);
        while (!done) turn(may_wait);
    } else {
        std::optional<T> result;
        detail::run_to(std::move(task), &result, &may_wait);
        while (!result) turn(may_wait);
        return std::move(*result);
    }
}

}  // namespace ublkd::io
