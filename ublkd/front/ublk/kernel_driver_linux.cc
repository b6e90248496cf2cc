#include "ublkd/front/ublk/kernel_driver_linux.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <coroutine>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/front/ublk/device_channel_linux.h"

namespace ublkd::front::ublk {
namespace {

using io::Clock;

const char* name_of(uapi::Control command) {
    switch (command) {
        case uapi::Control::kGetDeviceInfo:
            return "ublk GET_DEV_INFO";
        case uapi::Control::kAddDevice:
            return "ublk ADD_DEV";
        case uapi::Control::kDeleteDevice:
            return "ublk DEL_DEV";
        case uapi::Control::kStartDevice:
            return "ublk START_DEV";
        case uapi::Control::kStopDevice:
            return "ublk STOP_DEV";
        case uapi::Control::kSetParameters:
            return "ublk SET_PARAMS";
        case uapi::Control::kGetParameters:
            return "ublk GET_PARAMS";
        case uapi::Control::kStartRecovery:
            return "ublk START_USER_RECOVERY";
        case uapi::Control::kEndRecovery:
            return "ublk END_USER_RECOVERY";
        case uapi::Control::kGetFeatures:
            return "ublk GET_FEATURES";
        case uapi::Control::kDeleteDeviceAsync:
            return "ublk DEL_DEV_ASYNC";
    }
    return "ublk control command";
}

/// One command on its way. Shared by the waiting coroutine and the control thread; kept until the
/// kernel is done with it.
struct Command {
    uapi::Control operation{};
    uapi::ControlCommand wire{};
    std::vector<std::byte> buffer;
    Clock::time_point deadline;
    io::Reactor* home = nullptr;
    std::coroutine_handle<> waiter;
    int result = 0;
    bool answered = false;  // the waiter has been told
    bool with_kernel = false;
};

void answer(const std::shared_ptr<Command>& command, int result) {
    command->answered = true;
    command->result = result;
    io::Reactor* const home = command->home;
    home->post([command] { command->waiter.resume(); });
}

constexpr std::uint64_t kWakeData = 1;
constexpr unsigned kControlEntries = 64;

}  // namespace

class LinuxDriver::ControlThread {
  public:
    ~ControlThread() {
        if (ring_made_) io_uring_queue_exit(&ring_);
        if (control_fd_ >= 0) ::close(control_fd_);
        if (wake_fd_ >= 0) ::close(wake_fd_);
    }

    static Result<std::shared_ptr<ControlThread>> start(const std::string& path) {
        auto made = std::make_shared<ControlThread>();
        made->control_fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
        if (made->control_fd_ < 0) {
            if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
                return fail(Errc::kUnsupported, "open /dev/ublk-control (is ublk_drv loaded?)",
                            errno);
            return fail_errno(errno, "open /dev/ublk-control");
        }
        made->wake_fd_ = eventfd(0, EFD_CLOEXEC);
        if (made->wake_fd_ < 0) return fail_errno(errno, "make eventfd");
        io_uring_params params{};
        params.flags = IORING_SETUP_SQE128;
        const int error = io_uring_queue_init_params(kControlEntries, &made->ring_, &params);
        if (error < 0) return fail_errno(-error, "set up the control ring");
        made->ring_made_ = true;
        (void)io_uring_ring_dontfork(&made->ring_);
        // The thread keeps the object alive: it may have to outlast the driver (see stop()).
        made->thread_ = std::thread([made] {
            (void)pthread_setname_np(pthread_self(), "ublk-control");
            made->serve();
        });
        return made;
    }

    void submit(std::shared_ptr<Command> command) {
        {
            const std::lock_guard lock(mutex_);
            queue_.push_back(std::move(command));
        }
        wake();
    }

    /// Ends the thread. Commands that the kernel still holds would make the thread's exit wait for
    /// them, perhaps for ever: then it is left behind, with its ring and their memory, for the
    /// process's end.
    void stop() {
        {
            const std::lock_guard lock(mutex_);
            stopping_ = true;
        }
        wake();
        std::unique_lock lock(mutex_);
        ended_.wait(lock, [this] { return has_ended_; });
        const bool stuck = stuck_;
        lock.unlock();
        if (stuck) {
            thread_.detach();
        } else {
            thread_.join();
        }
    }

  private:
    void wake() {
        const std::uint64_t one = 1;
        CHECK(::write(wake_fd_, &one, sizeof one) == static_cast<ssize_t>(sizeof one),
              "an eventfd takes 8 bytes");
    }

    io_uring_sqe* next_sqe() {
        io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
        while (sqe == nullptr) {
            (void)io_uring_submit(&ring_);
            sqe = io_uring_get_sqe(&ring_);
        }
        std::memset(static_cast<void*>(sqe), 0, 128);
        return sqe;
    }

    void arm_wake() {
        io_uring_sqe* const sqe = next_sqe();
        io_uring_prep_read(sqe, wake_fd_, &wake_value_, sizeof wake_value_, 0);
        sqe->user_data = kWakeData;
    }

    void hand_to_kernel(const std::shared_ptr<Command>& command) {
        pending_.emplace(command.get(), command);
        if (faults::hit("ublk.control_lost") != 0) return;  // as a kernel that never answers
        io_uring_sqe* const sqe = next_sqe();
        sqe->opcode = IORING_OP_URING_CMD;
        sqe->fd = control_fd_;
        sqe->cmd_op = static_cast<std::uint32_t>(command->operation);
        std::memcpy(static_cast<void*>(sqe->cmd), &command->wire, sizeof command->wire);
        io_uring_sqe_set_data(sqe, command.get());
        command->with_kernel = true;
    }

    /// Answers what is overdue and asks the kernel to give it up. Returns when the next one is due.
    Clock::time_point expire() {
        auto next = Clock::time_point::max();
        const auto now = Clock::now();
        for (auto it = pending_.begin(); it != pending_.end();) {
            const std::shared_ptr<Command> command = it->second;
            if (!command->answered && command->deadline <= now) {
                log::error("{}, device {}: no answer from the kernel in time",
                           name_of(command->operation), command->wire.device_id);
                if (command->with_kernel) {
                    io_uring_sqe* const sqe = next_sqe();
                    io_uring_prep_cancel(sqe, command.get(), 0);
                }
                answer(command, -ETIMEDOUT);
                if (!command->with_kernel) {
                    it = pending_.erase(it);
                    continue;
                }
            } else if (!command->answered) {
                next = std::min(next, command->deadline);
            }
            ++it;
        }
        return next;
    }

    void take_answers() {
        io_uring_cqe* cqe = nullptr;
        while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
            const std::uint64_t data = cqe->user_data;
            const int result = cqe->res;
            io_uring_cqe_seen(&ring_, cqe);
            if (data == kWakeData) {
                arm_wake();
                continue;
            }
            const auto found = pending_.find(reinterpret_cast<Command*>(data));
            if (found == pending_.end()) continue;  // the answer to a cancellation
            const std::shared_ptr<Command> command = found->second;
            pending_.erase(found);
            if (!command->answered) answer(command, result);
        }
    }

    void serve() {
        arm_wake();
        for (;;) {
            std::vector<std::shared_ptr<Command>> taken;
            bool stopping = false;
            {
                const std::lock_guard lock(mutex_);
                taken.swap(queue_);
                stopping = stopping_;
            }
            for (const auto& command : taken) hand_to_kernel(command);
            const auto next = expire();
            if (stopping) break;
            io_uring_cqe* cqe = nullptr;
            if (next == Clock::time_point::max()) {
                (void)io_uring_submit_and_wait(&ring_, 1);
            } else {
                const auto left = std::max(next - Clock::now(), Clock::duration::zero());
                const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(left).count();
                __kernel_timespec timeout{};
                timeout.tv_sec = ns / 1'000'000'000;
                timeout.tv_nsec = ns % 1'000'000'000;
                (void)io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
            }
            take_answers();
        }
        end();
    }

    void end() {
        for (const auto& [raw, command] : pending_)
            CHECK(command->answered, "devices are gone before their driver");
        const std::lock_guard lock(mutex_);
        stuck_ = !pending_.empty();
        has_ended_ = true;
        if (stuck_) {
            // The kernel may write to the buffers until the process ends.
            static std::vector<std::map<Command*, std::shared_ptr<Command>>> left_with_kernel;
            left_with_kernel.push_back(std::move(pending_));
            ring_made_ = false;  // closing the ring would wait as well
        }
        ended_.notify_all();
    }

    int control_fd_ = -1;
    int wake_fd_ = -1;
    std::uint64_t wake_value_ = 0;
    io_uring ring_{};
    bool ring_made_ = false;
    std::map<Command*, std::shared_ptr<Command>> pending_;  // the thread's own
    std::mutex mutex_;
    std::condition_variable ended_;
    std::vector<std::shared_ptr<Command>> queue_;
    bool stopping_ = false;
    bool has_ended_ = false;
    bool stuck_ = false;
    std::thread thread_;

    friend class LinuxDriver;
};

Result<std::unique_ptr<LinuxDriver>> LinuxDriver::create(const std::string& device_folder,
                                                         const std::string& control_path) {
    std::unique_ptr<LinuxDriver> driver(new LinuxDriver());
    driver->device_folder_ = device_folder;
    const std::string path = control_path.empty() ? device_folder + "/ublk-control" : control_path;
    TRY_ASSIGN(driver->thread_, ControlThread::start(path));
    return driver;
}

LinuxDriver::~LinuxDriver() {
    if (thread_) thread_->stop();
}

namespace {
/// Suspends until the control thread has the answer.
struct AnswerAwaiter {
    std::shared_ptr<Command>* command;
    void (*submit)(void* thread, std::shared_ptr<Command> command);
    void* thread;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> self) const {
        (*command)->waiter = self;
        submit(thread, *command);
    }
    void await_resume() const noexcept {}
};
}  // namespace

io::Task<Result<void>> LinuxDriver::control(const ControlRequest* request) {
    auto command = std::make_shared<Command>();
    command->operation = request->command;
    command->buffer.assign(request->buffer.begin(), request->buffer.end());
    command->wire.device_id = request->device_id;
    command->wire.queue_id = uapi::kNoQueue;
    command->wire.buffer_bytes = static_cast<std::uint16_t>(command->buffer.size());
    command->wire.buffer_address = reinterpret_cast<std::uint64_t>(command->buffer.data());
    command->wire.data = request->data;
    command->deadline = Clock::now() + request->deadline;
    command->home = io::Reactor::current();
    const AnswerAwaiter answered{
        &command,
        [](void* thread, std::shared_ptr<Command> submitted) {
            static_cast<ControlThread*>(thread)->submit(std::move(submitted));
        },
        thread_.get()};
    co_await answered;
    if (command->result < 0) co_return fail_errno(-command->result, name_of(request->command));
    std::copy(command->buffer.begin(), command->buffer.end(), request->buffer.begin());
    co_return Result<void>{};
}

Result<std::unique_ptr<DeviceChannel>> LinuxDriver::open(io::Reactor* reactor,
                                                         const uapi::DeviceInfo& info) {
    const std::string path = device_folder_ + "/ublkc" + std::to_string(info.device_id);
    return open_device_channel(reactor, path, info.queue_count, info.queue_depth);
}

}  // namespace ublkd::front::ublk
