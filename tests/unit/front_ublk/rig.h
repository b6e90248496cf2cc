// What the tests of the front end share: a simulated kernel, folders of their own in place of /run,
// /dev and /sys, short deadlines, and block devices that hold requests back or fail them.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/unit/front_ublk/simulated_kernel.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/block/memory_device.h"
#include "ublkd/front/ublk/rescue.h"
#include "ublkd/front/ublk/ublk_device.h"
#include "ublkd/io/buffer_pool.h"

namespace ublkd::front::ublk {

inline block::Geometry small_geometry() {
    block::Geometry geometry;
    geometry.size_bytes = 4 * kMiB;
    return geometry;
}

/// Applies each change to `inner` at once and answers it when released; keeps the ids; fails what
/// it is told to.
class ProbeDevice final : public block::BlockDevice {
  public:
    explicit ProbeDevice(block::BlockDevice* inner) : inner_(inner), geometry_(inner->geometry()) {}
    const block::Geometry& geometry() const override { return geometry_; }

    block::Geometry& geometry_for_test() { return geometry_; }
    bool hold = false;  // changes are applied, their answers wait for `released`
    io::Event released;
    std::optional<Error> failure;  // of everything
    std::vector<block::RequestId> ids;
    std::vector<Range> ranges;  // of the changes, as they came
    int flushes = 0;
    bool last_fua = false;
    bool last_keep_allocated = false;

  private:
    io::Task<Result<void>> finish() {
        if (hold) co_await released.wait();
        if (failure) co_return fail(*failure);
        co_return Result<void>{};
    }
    void note(Range range, bool fua, block::RequestId id) {
        ids.push_back(id);
        ranges.push_back(range);
        last_fua = fua;
    }
    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override {
        if (failure) co_return fail(*failure);
        co_return co_await inner_->read(offset_bytes, into);
    }
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    block::WriteOptions options) override {
        note(Range{offset_bytes, data.size()}, options.fua, options.id);
        if (!failure) {
            CO_TRY(co_await inner_->write(offset_bytes, data, options));
        }
        co_return co_await finish();
    }
    io::Task<Result<void>> do_flush() override {
        ++flushes;
        co_return co_await finish();
    }
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override {
        note(range, options.fua, options.id);
        if (!failure) {
            CO_TRY(co_await inner_->discard(range, options));
        }
        co_return co_await finish();
    }
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override {
        note(range, options.fua, options.id);
        last_keep_allocated = options.keep_allocated;
        if (!failure) {
            CO_TRY(co_await inner_->write_zeroes(range, options));
        }
        co_return co_await finish();
    }
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t max_extents) override {
        co_return co_await inner_->block_status(range, max_extents);
    }

    block::BlockDevice* inner_;
    block::Geometry geometry_;
};

class Rig {
  public:
    Rig() {
        char name[] = "/tmp/ublk_test.XXXXXX";
        folder = mkdtemp(name);
        auto made = io::Reactor::create(io::ReactorOptions{.entries = 256, .registered_files = 16});
        reactor = std::move(*made);
        buffers = std::move(*io::BufferPool::create(4 * kMiB));
        kernel = std::make_unique<SimulatedKernel>(reactor.get());
        environment.driver = kernel.get();
        environment.worker = &worker;
        environment.run_folder = folder + "/run";
        environment.device_folder = folder + "/dev";
        environment.sys_folder = folder + "/sys";
        environment.names = {folder + "/names", folder + "/no-udev", {folder + "/rules"}};
        using std::chrono::milliseconds;
        environment.deadlines = {milliseconds(60),  milliseconds(60), milliseconds(150),
                                 milliseconds(150), milliseconds(60), milliseconds(120),
                                 milliseconds(80)};
        for (int id = 0; id < 4; ++id) set_scheduler(id, "[none] mq-deadline");
        options.volume = VolumeId(0x1234567890abcdef);
        options.depth = 8;
    }
    ~Rig() {
        faults::disarm_all();
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }

    template <class T>
    T run(io::Task<T> task) {
        return reactor->run_until_complete(std::move(task));
    }
    Result<std::unique_ptr<UblkDevice>> attach(block::BlockDevice* device) {
        return run(
            UblkDevice::attach(reactor.get(), buffers.get(), &environment, device, &options));
    }
    Result<std::unique_ptr<UblkDevice>> recover(block::BlockDevice* device, std::uint32_t id = 0) {
        options.device_id = id;
        return run(
            UblkDevice::recover(reactor.get(), buffers.get(), &environment, device, &options));
    }
    /// SIGKILL: what the process had stays as it was, and nothing of it runs any more.
    void kill(std::unique_ptr<UblkDevice> device, std::uint32_t id = 0) {
        static auto* const corpses = new std::vector<std::unique_ptr<UblkDevice>>();
        corpses->push_back(std::move(device));
        // Its requests never end, so what they hold stays.
        static auto* const pools = new std::vector<std::unique_ptr<io::BufferPool>>();
        pools->push_back(std::exchange(buffers, std::move(*io::BufferPool::create(4 * kMiB))));
        kernel->kill_server(id);
    }
    /// The process ends that gave the device up: its ring gives back what it held.
    void end_process(std::uint32_t id = 0) {
        environment.held = std::make_shared<HeldDevices>();
        kernel->kill_server(id);
    }
    Result<void> detach(std::unique_ptr<UblkDevice>& device, bool force = true) {
        auto detached = run(device->detach(force));
        if (detached) device.reset();
        return detached;
    }
    void settle(int turns = 20) {
        for (int i = 0; i < turns; ++i) run(one_turn());
    }
    int request(std::uint32_t operation, std::uint64_t sector, std::uint32_t sectors,
                std::span<std::byte> data) {
        return run(kernel->request(0, operation, sector, sectors, data));
    }
    void set_scheduler(int id, const std::string& text) {
        const std::string queue = folder + "/sys/block/ublkb" + std::to_string(id) + "/queue";
        std::filesystem::create_directories(queue);
        std::ofstream(queue + "/scheduler") << text << "\n";
    }
    bool has_link() const { return std::filesystem::is_symlink(link()); }
    std::string link() const { return folder + "/dev/ebs/" + options.volume.to_string(); }
    bool has_ids(int id = 0) const {
        return std::filesystem::exists(folder + "/run/ublk/ublkb" + std::to_string(id) + ".ids");
    }
    bool left_nothing() const { return kernel->device_count() == 0 && !has_link() && !has_ids(); }

    std::string folder;
    std::unique_ptr<io::Reactor> reactor;
    std::unique_ptr<io::BufferPool> buffers;
    std::unique_ptr<SimulatedKernel> kernel;
    io::Worker worker{"test-files"};
    UblkEnvironment environment;
    UblkOptions options;

  private:
    io::Task<void> one_turn() { co_await reactor->yield(); }
};

/// A request that goes on by itself; `result` is set at its end.
struct Pending {
    static constexpr int kRunning = 1;
    std::vector<std::byte> data;
    int result = kRunning;

    void start(Rig& rig, std::uint32_t operation, std::uint64_t sector, std::uint32_t sectors,
               std::byte fill) {
        data.assign(std::size_t{sectors} * kSectorBytes, fill);
        io::spawn(gate(), drive(&rig, operation, sector, sectors));
    }
    bool is_done() const { return result != kRunning; }

  private:
    static io::Gate& gate() {
        static auto* const counted = new io::Gate();
        return *counted;
    }
    io::Task<void> drive(Rig* rig, std::uint32_t operation, std::uint64_t sector,
                         std::uint32_t sectors) {
        const std::span<std::byte> moved =
            operation <= uapi::kOperationWrite ? std::span(data) : std::span<std::byte>();
        result = co_await rig->kernel->request(0, operation, sector, sectors, moved);
    }
};

}  // namespace ublkd::front::ublk
