// The kernel's ublk driver, simulated: control commands, tags, the disk's requests, the death of a
// server and recovery, with faults of every step. One thread: the test's reactor. It follows
// Linux 6.12 to 7.3 where they agree and can be told to be as bad as either. Two uses: the state
// machine of UblkDevice, and a disk() that runs the conformance suite through the front end.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ublkd/block/block_device.h"
#include "ublkd/front/ublk/kernel_driver.h"
#include "ublkd/io/sync.h"

namespace ublkd::front::ublk {

/// What one control command does the next times it comes.
struct CommandFault {
    int fail_errno = 0;  // answer with it, and do nothing
    bool hang = false;   // never answer (the driver's deadline does)
    int times = 1;       // -1: for ever
};

class SimulatedKernel final : public KernelDriver {
  public:
    explicit SimulatedKernel(io::Reactor* reactor) : reactor_(reactor) {}
    ~SimulatedKernel() override;

    io::Task<Result<void>> control(const ControlRequest* request) override;
    Result<std::unique_ptr<DeviceChannel>> open(io::Reactor* reactor,
                                                const uapi::DeviceInfo& info) override;

    // ---- what the tests set
    std::map<uapi::Control, CommandFault> faults;
    std::uint64_t features = kAllFeatures;
    std::uint64_t masked_flags = 0;       // ADD_DEV drops these silently
    std::uint32_t masked_parameters = 0;  // SET_PARAMS drops these types silently
    int open_errno = 0;
    int refuse_fetch_errno = 0;                // of the last tag
    std::chrono::milliseconds death_takes{0};  // until the kernel has noticed a dead server
    bool death_is_lost = false;                // the device stays live (Linux 6.12)
    bool sends_when_fetched = false;           // in a recovery, before its end (Linux 7)
    bool holds_requests = false;               // none comes to the server
    bool scans_partitions = true;              // START_DEV reads the first page

    // ---- what the guest and the world do
    /// One request of the disk, in full: waits for a tag, and as long as there is no server. Gives
    /// its result.
    io::Task<int> request(std::uint32_t device_id, std::uint32_t operation_and_flags,
                          std::uint64_t start_sector, std::uint32_t sectors,
                          std::span<std::byte> data);
    /// SIGKILL and exit of the device's server: its channel goes dead, its requests are requeued.
    void kill_server(std::uint32_t device_id);

    // ---- what the tests look at
    std::size_t device_count() const { return devices_.size(); }
    const uapi::DeviceInfo* info(std::uint32_t device_id) const;
    const uapi::Parameters* parameters(std::uint32_t device_id) const;
    std::uint32_t in_server(
        std::uint32_t device_id) const;   // requests that were sent and not answered
    std::vector<uapi::Control> commands;  // as they came

    static constexpr std::uint64_t kAllFeatures = 0x7fff;

  private:
    friend class SimulatedChannel;
    struct Request {
        uapi::IoDescriptor descriptor{};
        std::span<std::byte> data;
        int result = 0;
        io::Event done;
    };
    struct Tag {
        io::Completion* fetched = nullptr;  // offered by the server
        Request* request = nullptr;  // bound to this tag until it is answered, over a recovery too
        bool sent = false;           // the server has been told of it
    };
    struct Device {
        uapi::DeviceInfo info{};
        uapi::Parameters parameters{};
        std::vector<Tag> tags;
        std::deque<Request*> waiting;
        std::uint64_t generation = 0;  // of the server: a dead one's channel does nothing
        bool channel_open = false;
        bool disk = false;
        bool stopping = false;
        std::size_t fetched_once = 0;
    };

    io::Task<Result<void>> carry_out(const ControlRequest* request);
    Result<void> add(const ControlRequest& request);
    Result<void> set_parameters(Device& device, const ControlRequest& request);
    io::Task<Result<void>> start(std::uint32_t id, io::Clock::time_point until);
    io::Task<Result<void>> stop(std::uint32_t id, io::Clock::time_point until);
    io::Task<Result<void>> remove(std::uint32_t id, bool wait, io::Clock::time_point until);
    Result<void> start_recovery(Device& device);
    io::Task<Result<void>> end_recovery(std::uint32_t id, io::Clock::time_point until);
    /// Gives free, offered tags to waiting requests, and requeued requests to their tags.
    void dispatch(std::uint32_t id);
    void send_early(Device& device);
    void complete(std::uint32_t id, io::Completion* completion, int result);
    Device* find(std::uint32_t id);
    static bool all_fetched(const Device& device) {
        return device.fetched_once == device.tags.size();
    }

    io::Reactor* reactor_;
    std::map<std::uint32_t, std::unique_ptr<Device>> devices_;
    std::uint64_t generations_ = 0;
};

/// The disk that the guest sees, as a BlockDevice.
class SimulatedDisk final : public block::BlockDevice {
  public:
    SimulatedDisk(SimulatedKernel* kernel, std::uint32_t device_id);
    const block::Geometry& geometry() const override { return geometry_; }

  private:
    io::Task<Result<void>> submit(std::uint32_t operation, Range range, std::span<std::byte> data);
    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override;
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    block::WriteOptions options) override;
    io::Task<Result<void>> do_flush() override;
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override;
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override;
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t max_extents) override;

    SimulatedKernel* kernel_;
    std::uint32_t device_id_;
    block::Geometry geometry_;
};

}  // namespace ublkd::front::ublk
