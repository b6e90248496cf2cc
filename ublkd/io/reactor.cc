#include "ublkd/io/reactor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "ublkd/base/check.h"

namespace ublkd::io {
namespace {

thread_local Reactor* current_reactor = nullptr;

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

Operation::Operation(Reactor* reactor, const io_uring_sqe& sqe) noexcept : reactor_(reactor), sqe_(sqe) {
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
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
                   IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL;
    params.cq_entries = options.entries * 4;
    int error = io_uring_queue_init_params(options.entries, &reactor->ring_, &params);
    if (error == -EINVAL) {    // before Linux 6.1
        params.flags = IORING_SETUP_CQSIZE;
        error = io_uring_queue_init_params(options.entries, &reactor->ring_, &params);
    }
    if (error < 0) return fail_errno(-error, "set up io_uring");
    reactor->ring_made_ = true;
    (void)io_uring_register_ring_fd(&reactor->ring_);    // only saves a look-up per enter
    if (io_uring_register_files_sparse(&reactor->ring_, options.registered_files) == 0) {
        for (unsigned slot = options.registered_files; slot > 0; --slot)
            reactor->free_file_slots_.push_back(static_cast<int>(slot - 1));
    }
    reactor->wake_fd_ = eventfd(0, EFD_CLOEXEC);
    if (reactor->wake_fd_ < 0) return fail_errno(errno, "make eventfd");
    reactor->wake_read_.reactor = reactor.get();
    reactor->wake_read_.on_cqe = [](Completion* self, int, std::uint32_t) noexcept {
        Reactor* const owner = static_cast<WakeRead*>(self)->reactor;
        owner->take_posted();
        owner->arm_wake();
    };
    current_reactor = reactor.get();
    reactor->arm_wake();
    return reactor;
}

Reactor::~Reactor() {
    if (current_reactor == this) current_reactor = nullptr;
    if (ring_made_) io_uring_queue_exit(&ring_);
    if (wake_fd_ >= 0) ::close(wake_fd_);
}

void Reactor::run() {
    CHECK(on_own_thread(), "a reactor runs on the thread that made it");
    while (!stop_requested_.load(std::memory_order_acquire)) turn(true);
    stop_requested_.store(false, std::memory_order_release);
    run_ready();
    run_hooks();
}

void Reactor::stop() {
    stop_requested_.store(true, std::memory_order_release);
    post([] {});
}

void Reactor::post(std::function<void()> function) {
    {
        const std::lock_guard lock(posted_mutex_);
        posted_.push_back(std::move(function));
    }
    if (!wake_pending_.exchange(true, std::memory_order_acq_rel)) {
        const std::uint64_t one = 1;
        const auto written = ::write(wake_fd_, &one, sizeof one);
        CHECK(written == static_cast<ssize_t>(sizeof one), "an eventfd takes 8 bytes");
    }
}

void Reactor::take_posted() {
    wake_pending_.store(false, std::memory_order_release);
    std::vector<std::function<void()>> taken;
    {
        const std::lock_guard lock(posted_mutex_);
        taken.swap(posted_);
    }
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
        if (io_uring_sq_ready(&ring_) > 0) {    // disk requests enter before replies are sent
            ++stats_.enters;
            (void)io_uring_submit(&ring_);
        }
        run_hooks();
    }
    const bool idle = ready_.empty() && hooks_.empty() && !stop_requested_.load(std::memory_order_acquire);
    enter(may_wait && idle);
    reap();
    in_turn_ = false;
}

void Reactor::run_ready() {
    // Only what is ready now: a coroutine that yields in a loop must not starve the ring.
    for (std::size_t left = ready_.size(); left > 0; --left) {
        const auto handle = ready_.front();
        ready_.pop_front();
        handle.resume();
    }
}

void Reactor::run_hooks() {
    hooks_running_.swap(hooks_);
    for (TurnHook* const hook : hooks_running_) {
        if (hook == nullptr) continue;
        hook->armed = false;
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
    while (!timers_.empty() && timers_.begin()->first <= now) {
        Timer* const timer = timers_.begin()->second;
        timers_.erase(timers_.begin());
        timer->armed = false;
        timer->on_cqe(timer, 0, 0);
    }
}

void Reactor::enter(bool may_wait) {
    ++stats_.enters;
    if (!may_wait) {
        (void)io_uring_submit_and_get_events(&ring_);
        return;
    }
    io_uring_cqe* cqe = nullptr;
    if (timers_.empty()) {
        (void)io_uring_submit_and_wait(&ring_, 1);
        return;
    }
    const auto wait = std::max(timers_.begin()->first - Clock::now(), Clock::duration::zero());
    const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(wait).count();
    __kernel_timespec timeout{};
    timeout.tv_sec = nanoseconds / 1'000'000'000;
    timeout.tv_nsec = nanoseconds % 1'000'000'000;
    (void)io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
}

void Reactor::reap() {
    io_uring_cqe* cqes[128];
    for (;;) {
        const unsigned count = io_uring_peek_batch_cqe(&ring_, cqes, 128);
        if (count == 0) return;
        stats_.completions += count;
        for (unsigned i = 0; i < count; ++i) {
            auto* const completion = static_cast<Completion*>(io_uring_cqe_get_data(cqes[i]));
            const int result = cqes[i]->res;
            const std::uint32_t flags = cqes[i]->flags;
            // The entry is handed back first: what runs now may need room in the queue.
            io_uring_cq_advance(&ring_, 1);
            if (completion != nullptr) completion->on_cqe(completion, result, flags);
        }
        if (count < 128) return;
    }
}

io_uring_sqe* Reactor::next_sqe() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
        ++stats_.enters;
        (void)io_uring_submit(&ring_);
        sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
}

void Reactor::submit(const io_uring_sqe& sqe, Completion* completion) {
    DCHECK(on_own_thread(), "requests are made on the reactor's thread");
    io_uring_sqe* const slot = next_sqe();
    *slot = sqe;
    io_uring_sqe_set_data(slot, completion);
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
    io_uring_prep_read(&sqe, file.fd, into.data(), static_cast<unsigned>(into.size()), offset_bytes);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::write(FdRef file, std::span<const std::byte> from, std::uint64_t offset_bytes) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_write(&sqe, file.fd, from.data(), static_cast<unsigned>(from.size()), offset_bytes);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::fdatasync(FdRef file) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_fsync(&sqe, file.fd, IORING_FSYNC_DATASYNC);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::fallocate(FdRef file, int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
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

Operation Reactor::connect(FdRef socket, const sockaddr* address, socklen_t length) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_connect(&sqe, socket.fd, address, length);
    fix_fd(sqe, socket);
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

Operation Reactor::send_message(FdRef socket, const msghdr* message, int flags) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_sendmsg(&sqe, socket.fd, message, static_cast<unsigned>(flags | MSG_NOSIGNAL));
    fix_fd(sqe, socket);
    return prepared(sqe);
}

Operation Reactor::poll(FdRef file, unsigned events) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_poll_add(&sqe, file.fd, events);
    fix_fd(sqe, file);
    return prepared(sqe);
}

Operation Reactor::close(int fd) {
    io_uring_sqe sqe = blank_sqe();
    io_uring_prep_close(&sqe, fd);
    return prepared(sqe);
}

Operation Reactor::raw(const io_uring_sqe& sqe) { return prepared(sqe); }

// ---- timers, files

Reactor::SleepAwaiter Reactor::sleep_until(Clock::time_point when) { return SleepAwaiter{this, when}; }
Reactor::SleepAwaiter Reactor::sleep_for(Clock::duration duration) {
    return SleepAwaiter{this, Clock::now() + duration};
}

void Reactor::start_timer(Timer* timer, Clock::time_point when) {
    CHECK(!timer->armed, "a timer is armed once at a time");
    timer->place = timers_.emplace(when, timer);
    timer->armed = true;
}

void Reactor::cancel_timer(Timer* timer) {
    if (!timer->armed) return;
    timers_.erase(timer->place);
    timer->armed = false;
}

FdRef Reactor::register_fd(int fd) {
    if (free_file_slots_.empty()) return FdRef{fd, -1};
    const int slot = free_file_slots_.back();
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &fd, 1) != 1) return FdRef{fd, -1};
    free_file_slots_.pop_back();
    return FdRef{fd, slot};
}

void Reactor::unregister_fd(FdRef& file) {
    if (file.registered < 0) return;
    const int none = -1;
    (void)io_uring_register_files_update(&ring_, static_cast<unsigned>(file.registered), &none, 1);
    free_file_slots_.push_back(file.registered);
    file.registered = -1;
}

}  // namespace ublkd::io
