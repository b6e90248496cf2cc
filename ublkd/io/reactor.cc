#include "ublkd/io/reactor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <type_traits>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/log.h"
#include "ublkd/io/kernel_probe.h"

namespace ublkd::io {
namespace {

thread_local Reactor* current_reactor = nullptr;

/// In an SQE's user_data, which is a Completion's address otherwise: by submit_until_end().
constexpr std::uint64_t kUntilEnd = 1;
static_assert(alignof(Completion) > kUntilEnd);

/// What only waits gains nothing by entering the kernel before the end of the turn.
bool only_waits(const io_uring_sqe& sqe) {
    return sqe.opcode == IORING_OP_POLL_ADD || sqe.opcode == IORING_OP_ACCEPT ||
           sqe.opcode == IORING_OP_RECV || sqe.opcode == IORING_OP_ASYNC_CANCEL;
}

io_uring_sqe blank_sqe() {
    io_uring_sqe sqe;
    std::memset(&sqe, 0, sizeof sqe);
    return sqe;
}

}  // namespace

void make_ready(std::coroutine_handle<> handle) {
    CHECK(current_reactor != nullptr, "waiters are woken on a reactor thread");
    current_reactor->add_ready(handle);
}

Operation::Operation(Reactor* reactor, const io_uring_sqe& sqe) noexcept
    : reactor_(reactor), sqe_(sqe) {
    on_cqe = [](Completion* self, int result, std::uint32_t) noexcept {
        auto* const operation = static_cast<Operation*>(self);
        operation->result_ = result;
        operation->handle_.resume();
    };
}

void Operation::await_suspend(std::coroutine_handle<> self) noexcept {
    handle_ = self;
    reactor_->submit(sqe_, this);
}

Reactor* Reactor::current() noexcept { return current_reactor; }

Result<std::unique_ptr<Reactor>> Reactor::create(const ReactorOptions& options) {
    CHECK(current_reactor == nullptr, "one reactor per thread");
    std::unique_ptr<Reactor> reactor(new Reactor());
    io_uring_params params;
    std::memset(&params, 0, sizeof params);
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL;
    params.cq_entries = options.entries * 4;
    int error = io_uring_queue_init_params(options.entries, &reactor->ring_, &params);
    if (error == -EINVAL) {  // before Linux 6.1
        std::memset(&params, 0, sizeof params);
        params.flags = IORING_SETUP_CQSIZE;
        params.cq_entries = options.entries * 4;
        error = io_uring_queue_init_params(options.entries, &reactor->ring_, &params);
    }
    if (error == -ENOSYS || error == -EPERM)
        return fail(Errc::kUnsupported, "set up io_uring (sysctl kernel.io_uring_disabled?)",
                    -error);
    if (error < 0) return fail_errno(-error, "set up io_uring");
    reactor->ring_made_ = true;
    // A child's copy of the maps would keep the ring, and the files registered with it, alive after
    // our death.
    (void)io_uring_ring_dontfork(&reactor->ring_);
    constexpr unsigned kNeeded =
        IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE;
    if ((params.features & kNeeded) != kNeeded)
        return fail(Errc::kUnsupported, "io_uring of Linux 5.11 or later");
    (void)io_uring_register_ring_fd(&reactor->ring_);  // only saves a look-up per enter
    if (registered_files_close_at_once() &&
        io_uring_register_files_sparse(&reactor->ring_, options.registered_files) == 0) {
        for (unsigned slot = options.registered_files; slot > 0; --slot)
            reactor->free_file_slots_.push_back(static_cast<int>(slot - 1));
    }
    reactor->wake_fd_ = eventfd(0, EFD_CLOEXEC);
    if (reactor->wake_fd_ < 0) return fail_errno(errno, "make eventfd");
    reactor->wake_read_.reactor = reactor.get();
    reactor->wake_read_.on_cqe = [](Completion* self, int result, std::uint32_t) noexcept {
        CHECK(result == sizeof(std::uint64_t) || result == -EINTR || result == -EAGAIN,
              "an eventfd gives 8 bytes");
        Reactor* const owner = static_cast<WakeRead*>(self)->reactor;
        owner->take_posted();
        owner->arm_wake();
    };
    current_reactor = reactor.get();
    reactor->arm_wake();
    return reactor;
}

Reactor::~Reactor() {
    if (ring_made_) {
        if (current_reactor == this) drain_kernel();
        io_uring_queue_exit(&ring_);
    }
    if (current_reactor == this) current_reactor = nullptr;
    if (wake_fd_ >= 0) ::close(wake_fd_);
}

void Reactor::drain_kernel() {
    for (const io_uring_sqe& sqe : waiting_sqes_) ended(sqe.user_data);
    waiting_sqes_.clear();
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_cancel(&sqe, nullptr, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
    submit(sqe, nullptr);
    submit_now();
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    while (stats_.in_flight > until_end_) {
        io_uring_cqe* cqe = nullptr;
        __kernel_timespec second{.tv_sec = 1, .tv_nsec = 0};
        const int waited = io_uring_wait_cqe_timeout(&ring_, &cqe, &second);
        if (waited == 0) {
            if ((cqe->flags & IORING_CQE_F_MORE) == 0) ended(cqe->user_data);
            io_uring_cqe_seen(&ring_, cqe);
        } else if (Clock::now() > deadline) {
            log::error("reactor: {} requests are still in the kernel after 10 s at shutdown",
                       stats_.in_flight - until_end_);
            return;
        }
    }
}

void Reactor::run() {
    CHECK(on_own_thread(), "a reactor runs on the thread that made it");
    constexpr bool kMayWait = true;
    while (!stop_requested_.load(std::memory_order_acquire)) turn(kMayWait);
    stop_requested_.store(false, std::memory_order_release);
    take_posted();
    run_ready();
    submit_now();
    run_hooks();
}

void Reactor::stop() {
    stop_requested_.store(true, std::memory_order_release);
    post([] {});
}

void Reactor::post(std::function<void()> function) {
    // All under the lock: whoever runs the function may end the reactor, and its eventfd with it.
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(function));
    if (wake_pending_) return;
    wake_pending_ = true;
    const std::uint64_t one = 1;
    const auto written = ::write(wake_fd_, &one, sizeof one);
    CHECK(written == static_cast<ssize_t>(sizeof one), "an eventfd takes 8 bytes");
}

void Reactor::take_posted() {
    std::vector<std::function<void()>> taken;
    {
        const std::lock_guard lock(posted_mutex_);
        wake_pending_ = false;
        taken.swap(posted_);
    }
    stats_.posted += taken.size();
    for (auto& function : taken) function();
}

void Reactor::arm_wake() {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_read(&sqe, wake_fd_, &wake_value_, sizeof wake_value_, 0);
    submit(sqe, &wake_read_);
}

// ---- the loop

void Reactor::turn(const bool& may_wait) {
    in_turn_ = true;
    ++stats_.turns;
    fire_timers();
    run_ready();
    if (!hooks_.empty()) {
        if (work_queued_) submit_now();  // disk requests enter before replies are sent
        run_hooks();
    }
    const bool idle = ready_.empty() && hooks_.empty() && waiting_sqes_.empty() &&
                      !stop_requested_.load(std::memory_order_acquire);
    submit_waiting();
    enter(may_wait && idle);
    reap();
    in_turn_ = false;
}

void Reactor::run_ready() {
    // Only what is ready now: a coroutine that yields in a loop must not starve the ring.
    const std::size_t count = ready_.size();
    stats_.ready_runs += count;
    for (std::size_t left = count; left > 0; --left) ready_.pop().resume();
}

void Reactor::run_hooks() {
    hooks_running_.swap(hooks_);
    for (TurnHook* const hook : hooks_running_) {
        if (hook == nullptr) continue;
        hook->armed = false;
        ++stats_.hook_runs;
        hook->run(hook);
    }
    hooks_running_.clear();
}

void Reactor::at_turn_end(TurnHook* hook) {
    if (hook->armed) return;
    hook->armed = true;
    hooks_.push_back(hook);
}

void Reactor::remove_hook(TurnHook* hook) {
    hook->armed = false;
    for (auto* list : {&hooks_, &hooks_running_}) {
        for (TurnHook*& entry : *list) {
            if (entry == hook) entry = nullptr;
        }
    }
}

void Reactor::fire_timers() {
    if (timers_.empty()) return;
    const auto now = Clock::now();
    // Not more than there are now: one that arms itself for the past must not starve the ring.
    for (std::size_t left = timers_.size(); left > 0 && !timers_.empty(); --left) {
        auto* const timer = static_cast<Timer*>(timers_.first());
        if (timer->when > now) return;
        timers_.remove(timer);
        ++stats_.timers_fired;
        timer->on_cqe(timer, 0, 0);
    }
}

namespace {

/// What io_uring_enter() may answer in a healthy process; the loop goes on with the next turn.
/// EINTR: a signal; ETIME: a timer is due; EBUSY, EAGAIN: completions must be taken, or memory is
/// short.
void check_entered(int result) {
    CHECK(result >= 0 || result == -EINTR || result == -ETIME || result == -EBUSY ||
              result == -EAGAIN,
          "io_uring_enter() takes what is in the ring");
}

}  // namespace

void Reactor::submit_now() {
    ++stats_.enters;
    work_queued_ = false;
    check_entered(io_uring_submit(&ring_));
}

void Reactor::enter(bool may_wait) {
    ++stats_.enters;
    work_queued_ = false;
    if (!may_wait) {
        check_entered(io_uring_submit_and_get_events(&ring_));
        return;
    }
    ++stats_.waits;
    if (timers_.empty()) {
        check_entered(io_uring_submit_and_wait(&ring_, 1));
        return;
    }
    const auto wait = std::max(timers_.first()->when - Clock::now(), Clock::duration::zero());
    const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(wait).count();
    __kernel_timespec timeout{};
    timeout.tv_sec = nanoseconds / 1'000'000'000;
    timeout.tv_nsec = nanoseconds % 1'000'000'000;
    io_uring_cqe* cqe = nullptr;
    check_entered(io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr));
}

void Reactor::reap() {
    constexpr unsigned kBatch = 128;
    io_uring_cqe* cqes[kBatch];
    for (;;) {
        const unsigned count = io_uring_peek_batch_cqe(&ring_, cqes, kBatch);
        stats_.completions += count;
        for (unsigned i = 0; i < count; ++i) {
            const std::uint64_t data = cqes[i]->user_data;
            const int result = cqes[i]->res;
            const std::uint32_t flags = cqes[i]->flags;
            // The entry is handed back first: what runs now may need room in the queue.
            io_uring_cq_advance(&ring_, 1);
            if (data == 0) continue;
            if ((flags & IORING_CQE_F_MORE) == 0) ended(data);
            auto* const completion = reinterpret_cast<Completion*>(data & ~kUntilEnd);
            completion->on_cqe(completion, result, flags);
        }
        if (count < kBatch) return;
    }
}

io_uring_sqe* Reactor::next_sqe() {
    if (!waiting_sqes_.empty()) return nullptr;  // not to be overtaken
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe != nullptr) return sqe;
    ++stats_.queue_full;
    submit_now();
    return io_uring_get_sqe(&ring_);
}

void Reactor::submit_waiting() {
    while (!waiting_sqes_.empty()) {
        io_uring_sqe* const slot = io_uring_get_sqe(&ring_);
        if (slot == nullptr) return;
        *slot = waiting_sqes_.front();
        waiting_sqes_.pop_front();
    }
}

bool Reactor::make_room(unsigned count) {
    if (waiting_sqes_.empty() && io_uring_sq_space_left(&ring_) >= count) return true;
    submit_now();
    submit_waiting();
    return waiting_sqes_.empty() && io_uring_sq_space_left(&ring_) >= count;
}

void Reactor::submit(const io_uring_sqe& sqe, Completion* completion) {
    enqueue(sqe, reinterpret_cast<std::uintptr_t>(completion));
}

void Reactor::submit_until_end(const io_uring_sqe& sqe, Completion* completion) {
    ++until_end_;
    enqueue(sqe, reinterpret_cast<std::uintptr_t>(completion) | kUntilEnd);
}

void Reactor::ended(std::uint64_t user_data) {
    if (user_data == 0) return;
    --stats_.in_flight;
    if ((user_data & kUntilEnd) != 0) --until_end_;
}

void Reactor::enqueue(const io_uring_sqe& sqe, std::uint64_t user_data) {
    DCHECK(on_own_thread(), "requests are made on the reactor's thread");
    ++stats_.submissions;
    if (user_data != 0) ++stats_.in_flight;
    if (!only_waits(sqe)) work_queued_ = true;
    io_uring_sqe* slot = next_sqe();
    if (slot == nullptr) slot = &waiting_sqes_.emplace_back();
    *slot = sqe;
    slot->user_data = user_data;
}

void Reactor::cancel(Completion* operation) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_cancel(&sqe, operation, 0);
    submit(sqe, nullptr);
}

// ---- requests

void Reactor::fix_fd(io_uring_sqe& sqe, FdRef file) const {
    if (file.registered < 0) return;
    sqe.fd = file.registered;
    sqe.flags |= IOSQE_FIXED_FILE;
}

Operation Reactor::read(FdRef file, std::span<std::byte> into, std::uint64_t offset_bytes) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_read(&sqe, file.fd, into.data(), static_cast<unsigned>(into.size()),
                       offset_bytes);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::write(FdRef file, std::span<const std::byte> from, std::uint64_t offset_bytes) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_write(&sqe, file.fd, from.data(), static_cast<unsigned>(from.size()),
                        offset_bytes);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::fdatasync(FdRef file) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_fsync(&sqe, file.fd, IORING_FSYNC_DATASYNC);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::fallocate(FdRef file, int mode, std::uint64_t offset_bytes,
                             std::uint64_t length_bytes) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_fallocate(&sqe, file.fd, mode, static_cast<off_t>(offset_bytes),
                            static_cast<off_t>(length_bytes));
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::accept(FdRef listener) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_accept(&sqe, listener.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    fix_fd(sqe, listener);
    return prepared(sqe);
}

Operation Reactor::receive(FdRef socket, std::span<std::byte> into, int flags) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_recv(&sqe, socket.fd, into.data(), into.size(), flags);
    fix_fd(sqe, socket);
    return prepared(sqe);
}

Operation Reactor::send(FdRef socket, std::span<const std::byte> from, int flags) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_send(&sqe, socket.fd, from.data(), from.size(), flags | MSG_NOSIGNAL);
    fix_fd(sqe, socket);
    return prepared(sqe);
}

Operation Reactor::poll(FdRef file, unsigned events) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_poll_add(&sqe, file.fd, events);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::raw(const io_uring_sqe& sqe) { return prepared(sqe); }

// ---- timers, files

Reactor::SleepAwaiter Reactor::sleep_until(Clock::time_point when) {
    return SleepAwaiter{this, when};
}
Reactor::SleepAwaiter Reactor::sleep_for(Clock::duration duration) {
    return SleepAwaiter{this, Clock::now() + duration};
}

void Reactor::start_timer(Timer* timer, Clock::time_point when) {
    CHECK(!timer->armed(), "a timer is armed once at a time");
    timers_.add(timer, when);
}

void Reactor::cancel_timer(Timer* timer) {
    if (timer->armed()) timers_.remove(timer);
}

namespace {

/// Waits for an event or a time, whichever is first, and is resumed once.
struct TimedWait : detail::Waiter {
    struct OwnTimer : Reactor::Timer {
        TimedWait* wait = nullptr;
    };
    Reactor* reactor;
    Event* event;
    Clock::time_point when;
    OwnTimer timer{};

    TimedWait(Reactor* on, Event* of, Clock::time_point until)
        : reactor(on), event(of), when(until) {}
    bool await_ready() const noexcept { return event->is_set(); }
    void await_suspend(std::coroutine_handle<> self) noexcept {
        handle = self;
        event->add_waiter(this);
        timer.wait = this;
        timer.on_cqe = [](Completion* fired, int, std::uint32_t) noexcept {
            TimedWait* const wait = static_cast<OwnTimer*>(fired)->wait;
            // Woken by the event already, and in the ready queue: that goes first.
            if (wait->event->remove_waiter(wait)) wait->handle.resume();
        };
        reactor->start_timer(&timer, when);
    }
    void await_resume() noexcept { reactor->cancel_timer(&timer); }
};
static_assert(std::is_trivially_destructible_v<TimedWait>);

}  // namespace

Task<bool> Reactor::wait_until(Event* event, Clock::time_point when) {
    TimedWait wait(this, event, when);
    co_await wait;
    co_return event->is_set();
}

FdRef Reactor::register_fd(int fd) {
    CHECK(on_own_thread(), "a descriptor is registered on the reactor's thread");
    if (free_file_slots_.empty()) return FdRef{fd, -1};
    const int slot = free_file_slots_.back();
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &fd, 1) != 1)
        return FdRef{fd, -1};
    free_file_slots_.pop_back();
    return FdRef{fd, slot};
}

void Reactor::unregister_fd(FdRef& file) {
    if (file.registered < 0) return;
    CHECK(on_own_thread(), "a descriptor is given back on the reactor's thread");
    const int none = -1;
    (void)io_uring_register_files_update(&ring_, static_cast<unsigned>(file.registered), &none, 1);
    free_file_slots_.push_back(file.registered);
    file.registered = -1;
}

}  // namespace ublkd::io
