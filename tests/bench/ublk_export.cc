#include "tests/bench/ublk_export.h"

#include "ublkd/base/log.h"
#include "ublkd/front/ublk/kernel_driver_linux.h"
#include "ublkd/front/ublk/ublk_device.h"
#include "ublkd/io/worker.h"

namespace ublkd::bench {

struct UblkExport::Parts {
    std::unique_ptr<front::ublk::LinuxDriver> driver;
    io::Worker worker{"ublk"};
    front::ublk::UblkEnvironment environment;
    front::ublk::UblkOptions options;
    std::unique_ptr<front::ublk::UblkDevice> device;
};

UblkExport::UblkExport() = default;
UblkExport::~UblkExport() = default;

io::Task<Result<void>> UblkExport::attach(io::Reactor* reactor, io::BufferPool* buffers,
                                          block::BlockDevice* device) {
    parts_ = std::make_unique<Parts>();
    auto driver = front::ublk::LinuxDriver::create();
    if (!driver) co_return fail(driver.error());
    parts_->driver = std::move(*driver);
    parts_->environment.driver = parts_->driver.get();
    parts_->environment.worker = &parts_->worker;
    parts_->options.volume = VolumeId{1};
    auto attached = co_await front::ublk::UblkDevice::attach(reactor, buffers, &parts_->environment,
                                                             device, &parts_->options);
    if (!attached) co_return fail(attached.error());
    parts_->device = std::move(*attached);
    co_return Result<void>{};
}

io::Task<void> UblkExport::detach() {
    if (parts_ == nullptr || parts_->device == nullptr) co_return;
    const auto detached = co_await parts_->device->detach(true);
    if (!detached) log::error("bench: {}", to_string(detached.error()));
    parts_->device.reset();
}

std::string UblkExport::path() const { return parts_->device->path(); }

}  // namespace ublkd::bench
