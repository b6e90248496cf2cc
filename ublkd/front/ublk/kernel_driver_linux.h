// The real KernelDriver: /dev/ublk-control through a ring of 128-byte SQEs on a thread of its own.
// A command that the kernel does not answer in time is reported as kTimedOut and left to the kernel
// (cancellation is asked for); its memory stays until the kernel is done with it, so a hanging
// command costs one slot and never a reactor.
#pragma once

#include <memory>
#include <string>

#include "ublkd/base/result.h"
#include "ublkd/front/ublk/kernel_driver.h"

namespace ublkd::front::ublk {

class LinuxDriver final : public KernelDriver {
  public:
    /// `control_path`: DEVICE_FOLDER/ublk-control where empty (tests take /dev/null, which answers
    /// every command with 0). Errors: kUnsupported (no /dev/ublk-control: is ublk_drv loaded?),
    /// kNotPermitted, io_uring's.
    static Result<std::unique_ptr<LinuxDriver>> create(const std::string& device_folder = "/dev",
                                                       const std::string& control_path = "");
    ~LinuxDriver() override;

    io::Task<Result<void>> control(const ControlRequest* request) override;
    Result<std::unique_ptr<DeviceChannel>> open(io::Reactor* reactor,
                                                const uapi::DeviceInfo& info) override;

  private:
    class ControlThread;
    LinuxDriver() = default;
    std::string device_folder_;
    std::shared_ptr<ControlThread> thread_;  // shared with its thread, which may have to outlast us
};

}  // namespace ublkd::front::ublk
