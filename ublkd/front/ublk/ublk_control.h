// Typed control commands over a KernelDriver: what each means, its deadline and its checks
// (read-back after ADD_DEV and SET_PARAMS, because the kernel clears flags and parameter types it
// does not know without saying so).
#pragma once

#include <cstdint>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/front/ublk/kernel_driver.h"
#include "ublkd/io/task.h"

namespace ublkd::front::ublk {

/// Deadlines of control commands. A start or stop moves data (partition scan, page cache), so it
/// has long.
struct ControlDeadlines {
    std::chrono::milliseconds quick{10'000};  // info, parameters, features
    std::chrono::milliseconds add{30'000};
    std::chrono::milliseconds start{60'000};  // START_DEV, END_USER_RECOVERY
    std::chrono::milliseconds stop{60'000};
    std::chrono::milliseconds remove{10'000};    // DEL_DEV; then DEL_DEV_ASYNC
    std::chrono::milliseconds recovery{10'000};  // how long a dead server's device may stay busy
    std::chrono::milliseconds lost{15'000};      // how long it may stay live before it is given up
};

/// What every device of ours is made with.
inline constexpr std::uint64_t kRequiredFeatures =
    uapi::kUserRecovery | uapi::kUserRecoveryReissue | uapi::kEncodedCommands | uapi::kUserCopy;

/// The mark that we leave in a device (DeviceInfo::server_flags): a magic number and 48 bits of the
/// volume's id.
std::uint64_t device_tag(VolumeId volume);
/// True where a tag was made by device_tag(), for whichever volume.
bool is_our_tag(std::uint64_t tag);

class UblkControl {
  public:
    explicit UblkControl(KernelDriver* driver, const ControlDeadlines& deadlines = {})
        : driver_(driver), deadlines_(deadlines) {}

    /// The kernel's feature bits. kUnsupported where it is older than 6.5 or lacks one of
    /// kRequiredFeatures.
    io::Task<Result<std::uint64_t>> features();
    /// Adds a device; gives what the kernel made of it. kUnsupported (and nothing left) where it
    /// dropped a required flag.
    io::Task<Result<uapi::DeviceInfo>> add(uapi::DeviceInfo wanted);
    io::Task<Result<uapi::DeviceInfo>> info(std::uint32_t device_id);
    /// Sets, reads back and compares. kUnsupported where the kernel dropped or changed something.
    io::Task<Result<void>> set_parameters(std::uint32_t device_id, uapi::Parameters wanted);
    io::Task<Result<uapi::Parameters>> parameters(std::uint32_t device_id);
    /// Ends when the disk is there and its partitions are scanned, which needs the queues served.
    io::Task<Result<void>> start(std::uint32_t device_id);
    /// Ends when all requests are answered and the disk is gone; the tags then complete with
    /// kIoAbort.
    io::Task<Result<void>> stop(std::uint32_t device_id);
    /// DEL_DEV, and DEL_DEV_ASYNC where that does not end in time. kNotFound counts as done.
    io::Task<Result<void>> remove(std::uint32_t device_id);
    /// START_USER_RECOVERY, tried again while the dead server's device is busy, until
    /// `deadlines.recovery`. A server that died after its own START_USER_RECOVERY and before its
    /// first FETCH has left a device that is ready for FETCH: Linux 6.12 refuses a second start
    /// then (EINVAL), and needs none.
    io::Task<Result<void>> start_recovery(std::uint32_t device_id);
    io::Task<Result<void>> end_recovery(std::uint32_t device_id);

    const ControlDeadlines& deadlines() const { return deadlines_; }

  private:
    io::Task<Result<void>> plain(uapi::Control command, std::uint32_t device_id, std::uint64_t data,
                                 std::chrono::milliseconds deadline);
    KernelDriver* driver_;
    ControlDeadlines deadlines_;
};

}  // namespace ublkd::front::ublk
