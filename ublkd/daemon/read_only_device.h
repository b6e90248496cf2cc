// A BlockDevice that shows another one without letting anybody change it: an attachment made with
// --read-only. Lives on the device's reactor; the device outlives it.
#pragma once

#include "ublkd/block/block_device.h"

namespace ublkd::daemon {

class ReadOnlyDevice final : public block::BlockDevice {
  public:
    explicit ReadOnlyDevice(block::BlockDevice* device)
        : device_(device), geometry_(device->geometry()) {
        geometry_.read_only = true;
    }
    const block::Geometry& geometry() const override { return geometry_; }

  private:
    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override {
        return device_->read(offset_bytes, into);
    }
    io::Task<Result<void>> do_flush() override { return device_->flush(); }
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t max_extents) override {
        return device_->block_status(range, max_extents);
    }
    // The interface refuses changes of a read-only device before these.
    io::Task<Result<void>> do_write(std::uint64_t, std::span<const std::byte>,
                                    block::WriteOptions) override {
        return refused();
    }
    io::Task<Result<void>> do_discard(Range, block::WriteOptions) override { return refused(); }
    io::Task<Result<void>> do_write_zeroes(Range, block::ZeroOptions) override { return refused(); }
    static io::Task<Result<void>> refused() {
        co_return fail(Errc::kReadOnly, "the volume is attached read-only");
    }

    block::BlockDevice* device_;
    block::Geometry geometry_;
};

}  // namespace ublkd::daemon
