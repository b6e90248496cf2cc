#include "tests/unit/front_ublk/simulated_kernel.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ublkd/base/check.h"

namespace ublkd::front::ublk {

using io::Clock;

namespace {

constexpr std::chrono::milliseconds kStep{1};

template <class T>
void copy_out(const T& value, std::span<std::byte> buffer) {
    std::memcpy(buffer.data(), &value, std::min(sizeof value, buffer.size()));
}

}  // namespace

/// The open /dev/ublkcN of one server.
class SimulatedChannel final : public DeviceChannel {
  public:
    SimulatedChannel(SimulatedKernel* kernel, std::uint32_t id, std::uint64_t generation,
                     unsigned depth)
        : kernel_(kernel), id_(id), generation_(generation), depth_(depth) {}
    ~SimulatedChannel() override {
        if (auto* const device = alive()) device->channel_open = false;
    }
    Result<void> map_descriptors() override {
        auto* const device = alive();
        mapped_ = true;
        if (device == nullptr) return {};
        for (const auto& slot : device->tags)
            CHECK(slot.fetched != nullptr || slot.sent,
                  "descriptors are mapped after all tags were offered");
        return {};
    }
    uapi::IoDescriptor descriptor(unsigned queue, unsigned tag) const override {
        CHECK(mapped_, "descriptors are mapped before they are read");
        auto* const device = alive();
        CHECK(device != nullptr, "a live server reads descriptors");
        return device->tags[queue * depth_ + tag].request->descriptor;
    }
    void fetch(unsigned queue, unsigned tag, io::Completion* completion) override {
        auto* const device = alive();
        if (device == nullptr) return;
        auto& slot = device->tags[queue * depth_ + tag];
        if (kernel_->refuse_fetch_errno != 0 && queue * depth_ + tag + 1 == device->tags.size()) {
            completion->on_cqe(completion, -kernel_->refuse_fetch_errno, 0);
            return;
        }
        CHECK(slot.fetched == nullptr, "a tag is fetched once");
        slot.fetched = completion;
        ++device->fetched_once;
        kernel_->dispatch(id_);
        kernel_->send_early(*device);
    }
    void commit_and_fetch(unsigned queue, unsigned tag, int result,
                          io::Completion* completion) override {
        auto* const device = alive();
        if (device == nullptr) return;
        auto& slot = device->tags[queue * depth_ + tag];
        CHECK(slot.request != nullptr && slot.sent && slot.fetched == nullptr,
              "an answer to a request that was sent");
        slot.request->result = result;
        slot.request->done.set();
        slot.request = nullptr;
        slot.sent = false;
        slot.fetched = completion;
        kernel_->dispatch(id_);
    }
    Result<void> take_data(unsigned queue, unsigned tag, std::span<std::byte> into,
                           std::uint64_t offset) override {
        const auto data = data_of(queue, tag, into.size(), offset);
        if (!data) return fail(data.error());
        std::memcpy(into.data(), data->data(), into.size());
        return {};
    }
    Result<void> give_data(unsigned queue, unsigned tag, std::span<const std::byte> from,
                           std::uint64_t offset) override {
        const auto data = data_of(queue, tag, from.size(), offset);
        if (!data) return fail(data.error());
        std::memcpy(data->data(), from.data(), from.size());
        return {};
    }

  private:
    SimulatedKernel::Device* alive() const {
        auto* const device = kernel_->find(id_);
        return device != nullptr && device->generation == generation_ ? device : nullptr;
    }
    Result<std::span<std::byte>> data_of(unsigned queue, unsigned tag, std::size_t bytes,
                                         std::uint64_t offset) const {
        auto* const device = alive();
        if (device == nullptr) return fail_errno(EINVAL, "the server is dead");
        const auto& slot = device->tags[queue * depth_ + tag];
        if (slot.request == nullptr || offset + bytes > slot.request->data.size())
            return fail_errno(EINVAL, "copy beyond the request");
        return slot.request->data.subspan(offset, bytes);
    }
    SimulatedKernel* kernel_;
    std::uint32_t id_;
    std::uint64_t generation_;
    unsigned depth_;
    bool mapped_ = false;
};

SimulatedKernel::~SimulatedKernel() = default;

SimulatedKernel::Device* SimulatedKernel::find(std::uint32_t id) {
    const auto found = devices_.find(id);
    return found == devices_.end() ? nullptr : found->second.get();
}

const uapi::DeviceInfo* SimulatedKernel::info(std::uint32_t id) const {
    const auto found = devices_.find(id);
    return found == devices_.end() ? nullptr : &found->second->info;
}

const uapi::Parameters* SimulatedKernel::parameters(std::uint32_t id) const {
    const auto found = devices_.find(id);
    return found == devices_.end() ? nullptr : &found->second->parameters;
}

std::uint32_t SimulatedKernel::in_server(std::uint32_t id) const {
    const auto found = devices_.find(id);
    if (found == devices_.end()) return 0;
    return static_cast<std::uint32_t>(std::count_if(found->second->tags.begin(),
                                                    found->second->tags.end(),
                                                    [](const Tag& tag) { return tag.sent; }));
}

// ---- requests

void SimulatedKernel::complete(std::uint32_t id, io::Completion* completion, int result) {
    const std::uint64_t generation = find(id)->generation;
    reactor_->post([this, id, generation, completion, result] {
        const Device* const device = find(id);
        // A dead server gets nothing; a removed device's tags have had their abort.
        if (result == uapi::kIoOk && (device == nullptr || device->generation != generation))
            return;
        completion->on_cqe(completion, result, 0);
    });
}

void SimulatedKernel::dispatch(std::uint32_t id) {
    Device* const device = find(id);
    if (device == nullptr || device->info.state != uapi::kStateLive || holds_requests) return;
    for (Tag& tag : device->tags) {
        if (tag.fetched == nullptr || tag.sent) continue;
        if (tag.request == nullptr) {
            if (device->waiting.empty()) continue;
            tag.request = device->waiting.front();
            device->waiting.pop_front();
        }
        tag.sent = true;
        complete(id, std::exchange(tag.fetched, nullptr), uapi::kIoOk);
    }
}

void SimulatedKernel::send_early(Device& device) {
    if (!sends_when_fetched || device.info.state != uapi::kStateQuiesced || !all_fetched(device))
        return;
    for (Tag& tag : device.tags) {
        if (tag.request == nullptr || tag.sent) continue;
        tag.sent = true;
        io::Completion* const fetched = std::exchange(tag.fetched, nullptr);
        fetched->on_cqe(fetched, uapi::kIoOk, 0);
    }
}

io::Task<int> SimulatedKernel::request(std::uint32_t id, std::uint32_t operation_and_flags,
                                       std::uint64_t start_sector, std::uint32_t sectors,
                                       std::span<std::byte> data) {
    Device* const device = find(id);
    if (device == nullptr || device->stopping) co_return -EIO;
    Request request;
    request.descriptor.operation_and_flags = operation_and_flags;
    request.descriptor.start_sector = start_sector;
    request.descriptor.sectors = sectors;
    request.data = data;
    device->waiting.push_back(&request);
    dispatch(id);
    co_await request.done.wait();
    co_return request.result;
}

void SimulatedKernel::kill_server(std::uint32_t id) {
    Device* const device = find(id);
    device->generation = ++generations_;
    for (Tag& tag : device->tags) {
        tag.fetched = nullptr;
        tag.sent = false;  // its request stays bound to it
    }
    device->fetched_once = 0;
    const auto noticed = [this, id] {
        Device* const dead = find(id);
        if (dead == nullptr) return;
        dead->channel_open = false;
        if (dead->info.state == uapi::kStateLive && !death_is_lost)
            dead->info.state = uapi::kStateQuiesced;
    };
    if (death_takes.count() == 0) {
        noticed();
        return;
    }
    struct Later : io::Reactor::Timer {
        std::function<void()> then;
    };
    Later* const later = new Later();
    later->then = noticed;
    later->on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        const std::unique_ptr<Later> mine(static_cast<Later*>(fired));
        mine->then();
    };
    reactor_->start_timer(later, Clock::now() + death_takes);
}

// ---- control

io::Task<Result<void>> SimulatedKernel::control(const ControlRequest* request) {
    commands.push_back(request->command);
    co_await reactor_->yield();
    const auto fault = faults.find(request->command);
    if (fault != faults.end() && fault->second.times != 0) {
        const CommandFault what = fault->second;
        if (fault->second.times > 0) --fault->second.times;
        if (what.hang) {
            co_await reactor_->sleep_for(request->deadline);
            co_return fail_errno(ETIMEDOUT, "simulated hang");
        }
        co_return fail_errno(what.fail_errno, "simulated failure");
    }
    co_return co_await carry_out(request);
}

io::Task<Result<void>> SimulatedKernel::carry_out(const ControlRequest* request) {
    const auto until = Clock::now() + request->deadline;
    const std::uint32_t id = request->device_id;
    switch (request->command) {
        case uapi::Control::kGetFeatures:
            copy_out(features, request->buffer);
            co_return Result<void>{};
        case uapi::Control::kAddDevice:
            co_return add(*request);
        default:
            break;
    }
    Device* const device = find(id);
    if (device == nullptr) co_return fail_errno(ENODEV, "simulated kernel");
    switch (request->command) {
        case uapi::Control::kGetDeviceInfo:
            copy_out(device->info, request->buffer);
            co_return Result<void>{};
        case uapi::Control::kSetParameters:
            co_return set_parameters(*device, *request);
        case uapi::Control::kGetParameters:
            copy_out(device->parameters, request->buffer);
            co_return Result<void>{};
        case uapi::Control::kStartDevice:
            co_return co_await start(id, until);
        case uapi::Control::kStopDevice:
            co_return co_await stop(id, until);
        case uapi::Control::kDeleteDevice:
            co_return co_await remove(id, true, until);
        case uapi::Control::kDeleteDeviceAsync:
            co_return co_await remove(id, false, until);
        case uapi::Control::kStartRecovery:
            co_return start_recovery(*device);
        case uapi::Control::kEndRecovery:
            co_return co_await end_recovery(id, until);
        default:
            co_return fail_errno(EOPNOTSUPP, "simulated kernel");
    }
}

Result<void> SimulatedKernel::add(const ControlRequest& request) {
    auto device = std::make_unique<Device>();
    std::memcpy(&device->info, request.buffer.data(), sizeof device->info);
    std::uint32_t id = request.device_id;
    if (id == uapi::kAnyDevice) {
        for (id = 0; devices_.contains(id);) ++id;
    }
    if (devices_.contains(id)) return fail_errno(EEXIST, "simulated kernel");
    device->info.device_id = id;
    device->info.flags = (device->info.flags | uapi::kEncodedCommands) & ~masked_flags;
    device->info.state = uapi::kStateDead;
    device->info.max_io_bytes = device->info.max_io_bytes / kPageBytes * kPageBytes;
    device->tags.resize(std::size_t{device->info.queue_count} * device->info.queue_depth);
    device->generation = ++generations_;
    copy_out(device->info, request.buffer);
    devices_.emplace(id, std::move(device));
    return {};
}

Result<void> SimulatedKernel::set_parameters(Device& device, const ControlRequest& request) {
    if (device.disk) return fail_errno(EACCES, "simulated kernel");
    std::memcpy(&device.parameters, request.buffer.data(), sizeof device.parameters);
    device.parameters.types &= ~masked_parameters;
    if (device.parameters.discard.max_discard_segments != 1 ||
        device.parameters.discard.granularity == 0)
        return fail_errno(EINVAL, "simulated kernel");
    return {};
}

Result<std::unique_ptr<DeviceChannel>> SimulatedKernel::open(io::Reactor*,
                                                             const uapi::DeviceInfo& info) {
    if (open_errno != 0) return fail_errno(open_errno, "open /dev/ublkcN");
    Device* const device = find(info.device_id);
    if (device == nullptr) return fail_errno(ENOENT, "open /dev/ublkcN");
    if (device->channel_open) return fail_errno(EBUSY, "open /dev/ublkcN");
    device->channel_open = true;
    return std::unique_ptr<DeviceChannel>(
        new SimulatedChannel(this, info.device_id, device->generation, device->info.queue_depth));
}

io::Task<Result<void>> SimulatedKernel::start(std::uint32_t id, Clock::time_point until) {
    while (find(id) != nullptr && !all_fetched(*find(id))) {
        if (Clock::now() >= until) co_return fail_errno(ETIMEDOUT, "not all tags are fetched");
        co_await reactor_->sleep_for(kStep);
    }
    Device* const device = find(id);
    if (device == nullptr) co_return fail_errno(ENODEV, "simulated kernel");
    if (device->disk) co_return fail_errno(EEXIST, "simulated kernel");
    device->disk = true;
    device->info.state = uapi::kStateLive;
    if (scans_partitions) {
        std::vector<std::byte> page(kPageBytes);
        (void)co_await request(id, uapi::kOperationRead, 0, kPageBytes / kSectorBytes, page);
    }
    co_return Result<void>{};
}

io::Task<Result<void>> SimulatedKernel::stop(std::uint32_t id, Clock::time_point until) {
    Device* device = find(id);
    const bool without_server =
        device->info.state != uapi::kStateLive || (death_is_lost && !device->channel_open);
    if (!without_server) {
        while (in_server(id) != 0 ||
               !device->waiting.empty()) {  // the page cache is written back through the server
            if (Clock::now() >= until) co_return fail_errno(ETIMEDOUT, "requests are under way");
            co_await reactor_->sleep_for(kStep);
            device = find(id);
            if (device == nullptr) co_return fail_errno(ENODEV, "simulated kernel");
        }
    }
    device->stopping = true;
    device->disk = false;
    device->info.state = uapi::kStateDead;
    const auto give_up = [](Request* request) {
        request->result = -EIO;
        request->done.set();
    };
    for (Request* const request : device->waiting) give_up(request);
    device->waiting.clear();
    for (Tag& tag : device->tags) {
        if (tag.request != nullptr) give_up(std::exchange(tag.request, nullptr));
        if (tag.fetched != nullptr)
            complete(id, std::exchange(tag.fetched, nullptr), uapi::kIoAbort);
    }
    co_return Result<void>{};
}

io::Task<Result<void>> SimulatedKernel::remove(std::uint32_t id, bool wait,
                                               Clock::time_point until) {
    if (!find(id)->stopping) (void)co_await stop(id, until);
    while (wait && find(id) != nullptr && find(id)->channel_open) {
        if (Clock::now() >= until) co_return fail_errno(ETIMEDOUT, "somebody has /dev/ublkcN open");
        co_await reactor_->sleep_for(kStep);
    }
    devices_.erase(id);
    co_return Result<void>{};
}

Result<void> SimulatedKernel::start_recovery(Device& device) {
    if (device.channel_open || device.info.state != uapi::kStateQuiesced)
        return fail_errno(EBUSY, "simulated kernel");
    device.fetched_once = 0;
    device.generation = ++generations_;
    return {};
}

io::Task<Result<void>> SimulatedKernel::end_recovery(std::uint32_t id, Clock::time_point until) {
    while (find(id) != nullptr && !all_fetched(*find(id))) {
        if (Clock::now() >= until) co_return fail_errno(ETIMEDOUT, "not all tags are fetched");
        co_await reactor_->sleep_for(kStep);
    }
    Device* const device = find(id);
    if (device == nullptr) co_return fail_errno(ENODEV, "simulated kernel");
    device->info.state = uapi::kStateLive;
    dispatch(id);
    co_return Result<void>{};
}

// ---- the disk

SimulatedDisk::SimulatedDisk(SimulatedKernel* kernel, std::uint32_t device_id)
    : kernel_(kernel), device_id_(device_id) {
    const uapi::Parameters& p = *kernel->parameters(device_id);
    geometry_.size_bytes = p.basic.device_sectors * kSectorBytes;
    geometry_.logical_block_bytes = 1u << p.basic.logical_block_shift;
    geometry_.physical_block_bytes = 1u << p.basic.physical_block_shift;
    geometry_.max_io_bytes = p.basic.max_sectors * kSectorBytes;
    geometry_.max_range_bytes = std::uint64_t{p.discard.max_write_zeroes_sectors} * kSectorBytes;
    geometry_.volatile_write_cache = (p.basic.attributes & uapi::kAttributeVolatileCache) != 0;
    geometry_.read_only = (p.basic.attributes & uapi::kAttributeReadOnly) != 0;
}

io::Task<Result<void>> SimulatedDisk::submit(std::uint32_t operation, Range range,
                                             std::span<std::byte> data) {
    const int result = co_await kernel_->request(
        device_id_, operation, range.offset_bytes / kSectorBytes,
        static_cast<std::uint32_t>(range.length_bytes / kSectorBytes), data);
    if (result < 0) co_return fail_errno(-result, "simulated disk");
    CHECK(static_cast<std::size_t>(result) == data.size(), "the full length or an errno");
    co_return Result<void>{};
}

io::Task<Result<void>> SimulatedDisk::do_read(std::uint64_t offset_bytes,
                                              std::span<std::byte> into) {
    co_return co_await submit(uapi::kOperationRead, Range{offset_bytes, into.size()}, into);
}

io::Task<Result<void>> SimulatedDisk::do_write(std::uint64_t offset_bytes,
                                               std::span<const std::byte> data,
                                               block::WriteOptions options) {
    const std::span<std::byte> writable(const_cast<std::byte*>(data.data()), data.size());
    co_return co_await submit(uapi::kOperationWrite | (options.fua ? uapi::kFlagFua : 0),
                              Range{offset_bytes, data.size()}, writable);
}

io::Task<Result<void>> SimulatedDisk::do_flush() {
    co_return co_await submit(uapi::kOperationFlush, Range{}, std::span<std::byte>());
}

io::Task<Result<void>> SimulatedDisk::do_discard(Range range, block::WriteOptions) {
    co_return co_await submit(uapi::kOperationDiscard, range, std::span<std::byte>());
}

io::Task<Result<void>> SimulatedDisk::do_write_zeroes(Range range, block::ZeroOptions options) {
    co_return co_await submit(
        uapi::kOperationWriteZeroes | (options.keep_allocated ? uapi::kFlagNoUnmap : 0), range,
        std::span<std::byte>());
}

io::Task<Result<std::vector<block::Extent>>> SimulatedDisk::do_block_status(Range range,
                                                                            std::size_t) {
    std::vector<block::Extent> all{block::Extent{range.length_bytes, true, false}};
    co_return all;
}

}  // namespace ublkd::front::ublk
