// Shows a block device as /dev/ublkbN for a benchmark: the ublk front end with the environment that
// the daemon would give.
#pragma once

#include <memory>
#include <string>

#include "ublkd/base/result.h"
#include "ublkd/block/block_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/task.h"

namespace ublkd::bench {

class UblkExport {
  public:
    UblkExport();
    ~UblkExport();
    /// Needs root and ublk_drv.
    io::Task<Result<void>> attach(io::Reactor* reactor, io::BufferPool* buffers,
                                  block::BlockDevice* device);
    /// Nothing where it was not attached.
    io::Task<void> detach();
    std::string path() const;

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};

}  // namespace ublkd::bench
