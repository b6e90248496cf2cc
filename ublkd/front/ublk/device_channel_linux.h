// The real DeviceChannel: /dev/ublkcN with its descriptors mapped, FETCH and COMMIT as URING_CMD on
// the volume's reactor, data by USER_COPY (pread and pwrite at a request's position: a copy that
// never waits).
#pragma once

#include <memory>
#include <string>

#include "ublkd/base/result.h"
#include "ublkd/front/ublk/kernel_driver.h"

namespace ublkd::front::ublk {

/// kNotFound, kBusy (another process has it open).
Result<std::unique_ptr<DeviceChannel>> open_device_channel(io::Reactor* reactor,
                                                           const std::string& path, unsigned queues,
                                                           unsigned depth);

}  // namespace ublkd::front::ublk
