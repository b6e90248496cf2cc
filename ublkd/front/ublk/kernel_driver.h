// The kernel's side of ublk behind a small interface, so that the state machine above it is tested
// natively by a simulated driver with faults (tests/unit/front_ublk). Real implementation:
// kernel_driver_linux.h.
//
// KernelDriver: control commands, asynchronous and each with a deadline; called on any reactor,
// answered there. Some block in the kernel until tags are fetched or requests are answered, so they
// never run on a thread that serves a queue. DeviceChannel: an open /dev/ublkcN on the one reactor
// that serves its queues: every FETCH and COMMIT is issued by that thread (before 6.16 the kernel
// binds a queue to the task that fetched first).
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "ublkd/base/result.h"
#include "ublkd/front/ublk/ublk_uapi.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/task.h"

namespace ublkd::front::ublk {

class DeviceChannel {
  public:
    DeviceChannel() = default;
    DeviceChannel(const DeviceChannel&) = delete;
    DeviceChannel& operator=(const DeviceChannel&) = delete;
    /// Closes: unmaps and gives the descriptor back. Fetches that are still with the kernel keep
    /// the device's file alive.
    virtual ~DeviceChannel() = default;

    /// Maps what descriptor() reads: after all tags were offered, and before the device is started
    /// or its recovery ended.
    virtual Result<void> map_descriptors() = 0;
    /// What the kernel asks of this tag. Valid between a completion with kIoOk and the commit.
    virtual uapi::IoDescriptor descriptor(unsigned queue, unsigned tag) const = 0;
    /// Offers a tag for the first time. `completion` fires once with kIoOk (a request is there),
    /// kIoAbort or -errno.
    virtual void fetch(unsigned queue, unsigned tag, io::Completion* completion) = 0;
    /// Answers the request of a tag and offers the tag again. `result`: bytes, 0 for flush and
    /// ranges, or a negative errno.
    virtual void commit_and_fetch(unsigned queue, unsigned tag, int result,
                                  io::Completion* completion) = 0;
    /// Data of a write request, from the kernel into `into`. Synchronous: a copy.
    virtual Result<void> take_data(unsigned queue, unsigned tag, std::span<std::byte> into,
                                   std::uint64_t offset) = 0;
    /// Data of a read request, from `from` to the kernel.
    virtual Result<void> give_data(unsigned queue, unsigned tag, std::span<const std::byte> from,
                                   std::uint64_t offset) = 0;
};

struct ControlRequest {
    uapi::Control command;
    std::uint32_t device_id = uapi::kAnyDevice;
    std::uint64_t data = 0;
    std::span<std::byte> buffer =
        {};  // in and out; must stay valid until the Task has ended (it is copied)
    std::chrono::milliseconds deadline{10'000};
};

class KernelDriver {
  public:
    KernelDriver() = default;
    KernelDriver(const KernelDriver&) = delete;
    KernelDriver& operator=(const KernelDriver&) = delete;
    virtual ~KernelDriver() = default;

    /// One control command. Errors: the kernel's errno with its Errc and the command's name as
    /// `where`; kTimedOut after request.deadline, the kernel may then still be at it.
    virtual io::Task<Result<void>> control(const ControlRequest* request) = 0;
    /// Opens /dev/ublkcN on the calling reactor. kBusy: another process
    /// has it open.
    virtual Result<std::unique_ptr<DeviceChannel>> open(io::Reactor* reactor,
                                                        const uapi::DeviceInfo& info) = 0;
};

}  // namespace ublkd::front::ublk
