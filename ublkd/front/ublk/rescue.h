// ublk devices of this machine, found through /sys/class/ublk-char, and what to do with those
// without a server: the daemon's start recovers its own and removes what cannot be recovered;
// `ebs-cli rescue` shows and clears the rest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/front/ublk/ublk_control.h"
#include "ublkd/front/ublk/ublk_device.h"
#include "ublkd/io/task.h"

namespace ublkd::front::ublk {

struct FoundDevice {
    uapi::DeviceInfo info{};
    bool ours = false;          // made by ublkd (any installation): is_our_tag()
    bool server_alive = false;  // a process holds /dev/ublkcN open
    /// "running", "starting", "waiting for recovery", "lost" (live by its state, but nobody serves
    /// it), "never started".
    const char* condition = "";
    /// Requests may wait in it; one that was never started has had none.
    bool was_started() const { return info.state != uapi::kStateDead; }
};

/// All ublk devices, by number. A device that does not answer in time is left out and logged.
io::Task<Result<std::vector<FoundDevice>>> find_devices(const UblkEnvironment* environment);
/// Of `found` those that carry `volume`'s tag and that nobody serves; those that were started come
/// first, then by number.
std::vector<FoundDevice> orphans_of(std::vector<FoundDevice> found, VolumeId volume);
/// The same of all devices that there are.
io::Task<Result<std::vector<FoundDevice>>> find_orphans_of(const UblkEnvironment* environment,
                                                           VolumeId volume);
/// Stops and removes a device, whoever made it: bounded. kBusy where its server lives. Requests
/// that wait fail with EIO.
io::Task<Result<void>> remove_device(const UblkEnvironment* environment, std::uint32_t device_id);

}  // namespace ublkd::front::ublk
