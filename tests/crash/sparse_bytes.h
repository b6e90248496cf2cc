// A sparse file in memory, in pages: cheap to copy while little of it is written. Pages that are
// not there are holes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "ublkd/base/units.h"

namespace ublkd::crash {

class SparseBytes {
  public:
    void write(std::uint64_t offset_bytes, std::span<const std::byte> data);
    void read(std::uint64_t offset_bytes, std::span<std::byte> into) const;
    /// Zeroes; pages that lie in it whole become holes, unless `keep`.
    void zero(Range range, bool keep);
    /// The first run of pages at or after `from_bytes` that are there; empty: none.
    Range next_data(std::uint64_t from_bytes) const;

  private:
    using Page = std::array<std::byte, kPageBytes>;
    std::map<std::uint64_t, Page> pages_;
};

}  // namespace ublkd::crash
