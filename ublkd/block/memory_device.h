// A BlockDevice in memory: the reference of the conformance suite (tests/suites), and what the
// benchmark of the front ends serves so that no disk is measured with them. Holes are tracked in 64
// KiB units.
#pragma once

#include <cstddef>
#include <vector>

#include "ublkd/block/block_device.h"

namespace ublkd::block {

class MemoryDevice final : public BlockDevice {
  public:
    explicit MemoryDevice(Geometry geometry);
    const Geometry& geometry() const override { return geometry_; }
    /// Refuses changes from now on.
    void set_read_only() { geometry_.read_only = true; }

  private:
    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override;
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    WriteOptions options) override;
    io::Task<Result<void>> do_flush() override;
    io::Task<Result<void>> do_discard(Range range, WriteOptions options) override;
    io::Task<Result<void>> do_write_zeroes(Range range, ZeroOptions options) override;
    io::Task<Result<std::vector<Extent>>> do_block_status(Range range,
                                                          std::size_t max_extents) override;
    void zero(Range range, bool keep_allocated);

    Geometry geometry_;
    std::vector<std::byte> bytes_;
    std::vector<bool> allocated_;  // per 64 KiB unit
};

}  // namespace ublkd::block
