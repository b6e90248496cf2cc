// Page-aligned memory for O_DIRECT that a store owns itself (superblock and map pages, the reserve
// for bounced requests), so that these never wait for a buffer of the reactor's pool that a request
// under way may hold.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <span>

#include "ublkd/base/check.h"

namespace ublkd::store {

class AlignedMemory {
  public:
    /// `bytes`: rounded up to pages by the kernel; zeroes; not resident until used. `sharing`: or
    /// MAP_SHARED with children.
    explicit AlignedMemory(std::size_t bytes, int sharing = MAP_PRIVATE)
        : memory_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0)),
          bytes_(bytes) {
        CHECK(memory_ != MAP_FAILED, "memory for a store's own pages");
    }
    AlignedMemory(const AlignedMemory&) = delete;
    AlignedMemory& operator=(const AlignedMemory&) = delete;
    ~AlignedMemory() { munmap(memory_, bytes_); }

    std::byte* data() const { return static_cast<std::byte*>(memory_); }
    std::span<std::byte> span() const { return {data(), bytes_}; }

  private:
    void* memory_;
    std::size_t bytes_;
};

}  // namespace ublkd::store
