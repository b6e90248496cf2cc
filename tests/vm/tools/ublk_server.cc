// The ublk front end alone on a real kernel: serves a file on tmpfs as /dev/ublkbN, as the daemon
// would do it, but with nothing below that could be at fault. The file outlives a SIGKILL, and so
// does the list of the request ids that were applied: a request that comes again under its old id
// is counted and not applied a second time, as replication R8 does it.
//
// usage: ublk_server serve BACKING_FILE SIZE_MIB [DEVICE_NUMBER [DELAY_US_MAX]]    recovers the
// device or makes it
//        ublk_server list | users N | remove N
// Signals of `serve`: TERM quiesces and ends, USR1 detaches unless busy, USR2 detaches. Fault
// points: UBLKD_FAULTS.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "ublkd/base/fault_injection.h"
#include "ublkd/block/block_device.h"
#include "ublkd/front/ublk/device_users.h"
#include "ublkd/front/ublk/kernel_driver_linux.h"
#include "ublkd/front/ublk/process_guard.h"
#include "ublkd/front/ublk/rescue.h"
#include "ublkd/front/ublk/ublk_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/worker.h"

using namespace ublkd;

namespace {

constexpr VolumeId kVolume{0x7465737476d};

void* map_file(const std::string& path, std::size_t bytes) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) {
        std::perror(path.c_str());
        std::exit(1);
    }
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) {
        std::perror("mmap");
        std::exit(1);
    }
    return at;
}

/// The ids that were applied, in the order of their application.
struct AppliedLog {
    static constexpr std::size_t kEntries = 1 << 20;
    std::uint64_t count;
    block::RequestId entries[kEntries];
};

class MappedDevice final : public block::BlockDevice {
  public:
    MappedDevice(const std::string& path, std::uint64_t bytes, unsigned delay_us_max)
        : data_(static_cast<std::byte*>(map_file(path, bytes))),
          applied_(static_cast<AppliedLog*>(map_file(path + ".applied", sizeof(AppliedLog)))),
          delay_us_max_(delay_us_max) {
        geometry_.size_bytes = bytes;
        for (std::size_t i = 0; i < applied_->count; ++i) before_.insert(applied_->entries[i]);
    }
    const block::Geometry& geometry() const override { return geometry_; }
    std::uint64_t recognised() const { return recognised_; }

  private:
    io::Task<void> pause() {
        if (delay_us_max_ != 0) {
            const auto us = std::chrono::microseconds(random_() % delay_us_max_);
            co_await io::Reactor::current()->sleep_for(us);
        }
    }
    /// False where this request was applied before.
    bool is_new(block::RequestId id) {
        if (!before_.contains(id)) return true;
        ++recognised_;
        return false;
    }
    void note(block::RequestId id) {
        if (applied_->count == AppliedLog::kEntries) return;
        applied_->entries[applied_->count] = id;
        applied_->count = applied_->count + 1;
    }
    io::Task<Result<void>> do_read(std::uint64_t offset, std::span<std::byte> into) override {
        co_await pause();
        std::memcpy(into.data(), data_ + offset, into.size());
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_write(std::uint64_t offset, std::span<const std::byte> data,
                                    block::WriteOptions options) override {
        co_await pause();
        if (is_new(options.id)) {
            std::memcpy(data_ + offset, data.data(), data.size());
            note(options.id);
        }
        co_await pause();  // so that a kill finds requests that are applied and not answered
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_flush() override {
        co_await pause();
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override {
        const block::ZeroOptions zero{options.fua, false, false, options.id};
        co_return co_await do_write_zeroes(range, zero);
    }
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override {
        co_await pause();
        if (is_new(options.id)) {
            std::memset(data_ + range.offset_bytes, 0, range.length_bytes);
            note(options.id);
        }
        co_return Result<void>{};
    }
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t) override {
        std::vector<block::Extent> extents{block::Extent{range.length_bytes, true, false}};
        co_return extents;
    }

    block::Geometry geometry_;
    std::byte* data_;
    AppliedLog* applied_;
    std::set<block::RequestId> before_;
    unsigned delay_us_max_;
    std::uint64_t recognised_ = 0;
    std::minstd_rand random_{static_cast<unsigned>(getpid())};
};

[[noreturn]] void give_up(const char* what, const Error& error) {
    std::fprintf(stderr, "ublk_server: %s: %s\n", what, to_string(error).c_str());
    std::exit(error.code == Errc::kBusy ? 5 : 1);
}

struct Machine {
    io::Worker worker{"ublk-files"};
    std::unique_ptr<front::ublk::LinuxDriver> driver;
    front::ublk::UblkEnvironment environment;
    std::unique_ptr<io::ReactorThread> thread;

    Machine() {
        auto made = front::ublk::LinuxDriver::create();
        if (!made) give_up("ublk", made.error());
        driver = std::move(*made);
        environment.driver = driver.get();
        environment.worker = &worker;
        auto started = io::ReactorThread::start("volume", {});
        if (!started) give_up("reactor", started.error());
        thread = std::move(*started);
    }
};

void print_status(const front::ublk::UblkDevice& device, const MappedDevice& backing) {
    const auto status = device.status();
    std::printf("requests=%llu errors=%llu reissued=%llu recognised=%llu\n",
                static_cast<unsigned long long>(status.requests),
                static_cast<unsigned long long>(status.errors),
                static_cast<unsigned long long>(status.reissued),
                static_cast<unsigned long long>(backing.recognised()));
    std::fflush(stdout);
}

int serve(const std::string& path, std::uint64_t size_mib, std::uint32_t device_id,
          unsigned delay_us_max) {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    for (const std::string& warning : front::ublk::guard_process())
        std::printf("warning: %s\n", warning.c_str());
    Machine machine;
    io::Reactor& reactor = machine.thread->reactor();
    MappedDevice backing(path, size_mib * kMiB, delay_us_max);
    auto buffers = io::BufferPool::create(16 * kMiB);
    if (!buffers) give_up("buffers", buffers.error());
    front::ublk::UblkOptions options;
    options.volume = kVolume;
    options.device_id = device_id;
    const auto* const environment = &machine.environment;
    io::BufferPool* const pool = buffers->get();
    auto device = io::run_on(reactor, [&] {
        return front::ublk::UblkDevice::recover(&reactor, pool, environment, &backing, &options);
    });
    const char* how = "recovered";
    if (!device &&
        (device.error().code == Errc::kNotFound || device.error().code == Errc::kClosed)) {
        how = device.error().code == Errc::kClosed ? "made anew" : "made";
        device = io::run_on(reactor, [&] {
            return front::ublk::UblkDevice::attach(&reactor, pool, environment, &backing, &options);
        });
    }
    if (!device) give_up("device", device.error());
    std::printf("%s %s\n", how, (*device)->path().c_str());
    std::fflush(stdout);
    for (;;) {
        int signal = 0;
        sigwait(&signals, &signal);
        if (signal == SIGTERM || signal == SIGINT) {
            print_status(**device, backing);
            io::run_on(reactor, [&] { return (*device)->quiesce(); });
            reactor.post([&device] { device->reset(); });
            break;
        }
        const auto detached =
            io::run_on(reactor, [&] { return (*device)->detach(signal == SIGUSR2); });
        if (detached) {
            reactor.post([&device] { device->reset(); });
            std::puts("detached");
            break;
        }
        std::printf("not detached: %s\n", to_string(detached.error()).c_str());
        std::fflush(stdout);
    }
    machine.thread.reset();
    return 0;
}

int list() {
    Machine machine;
    const auto* const environment = &machine.environment;
    const auto found = io::run_on(machine.thread->reactor(),
                                  [&] { return front::ublk::find_devices(environment); });
    if (!found) give_up("list", found.error());
    for (const auto& device : *found)
        std::printf("%u state=%u pid=%d ours=%d %s\n", device.info.device_id, device.info.state,
                    device.info.server_pid, device.ours ? 1 : 0, device.condition);
    return 0;
}

int remove_one(std::uint32_t device_id) {
    Machine machine;
    const auto* const environment = &machine.environment;
    const auto removed = io::run_on(machine.thread->reactor(), [&] {
        return front::ublk::remove_device(environment, device_id);
    });
    if (!removed) give_up("remove", removed.error());
    return 0;
}

/// Stops a device whoever serves it, as another program may.
int stop_one(std::uint32_t device_id) {
    Machine machine;
    front::ublk::UblkControl control(machine.environment.driver, machine.environment.deadlines);
    const auto stopped =
        io::run_on(machine.thread->reactor(), [&] { return control.stop(device_id); });
    if (!stopped) give_up("stop", stopped.error());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> args(argv + 1, argv + argc);
    if (!faults::arm_from_environment()) return 2;
    const auto number = [&args](std::size_t index, unsigned long fallback) {
        return args.size() > index ? std::strtoul(args[index].c_str(), nullptr, 10) : fallback;
    };
    if (args.size() >= 3 && args[0] == "serve")
        return serve(args[1], number(2, 0), static_cast<std::uint32_t>(number(3, 0)),
                     static_cast<unsigned>(number(4, 0)));
    if (args.size() == 1 && args[0] == "list") return list();
    if (args.size() == 2 && args[0] == "users") {
        for (const std::string& user : front::ublk::device_users("ublkb" + args[1]))
            std::puts(user.c_str());
        return 0;
    }
    if (args.size() == 2 && args[0] == "remove")
        return remove_one(static_cast<std::uint32_t>(number(1, 0)));
    if (args.size() == 2 && args[0] == "stop")
        return stop_one(static_cast<std::uint32_t>(number(1, 0)));
    std::fputs(
        "usage: ublk_server serve FILE SIZE_MIB [N [DELAY_US]] | list | users N | remove N | stop "
        "N\n",
        stderr);
    return 2;
}
