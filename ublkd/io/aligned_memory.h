// Page-aligned memory from the heap, for O_DIRECT, where the reactor's buffer pool does not fit: a
// store's own pages and its reserve, which must not wait for a buffer that a request under way may
// hold; one read of more than 512 KiB; the block of a read-modify-write. Not zeroed. Never on the
// path of ordinary requests.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <span>

#include "ublkd/base/units.h"

namespace ublkd::io {

class AlignedMemory {
  public:
    AlignedMemory() = default;
    /// Empty where there is no memory.
    explicit AlignedMemory(std::size_t bytes)
        : memory_(
              static_cast<std::byte*>(std::aligned_alloc(kPageBytes, align_up(bytes, kPageBytes)))),
          bytes_(memory_ == nullptr ? 0 : bytes) {}
    explicit operator bool() const { return memory_ != nullptr; }
    std::byte* data() const { return memory_.get(); }
    std::span<std::byte> span() const { return {memory_.get(), bytes_}; }
    void release() { *this = AlignedMemory(); }

  private:
    struct Free {
        void operator()(std::byte* memory) const noexcept { std::free(memory); }
    };
    std::unique_ptr<std::byte, Free> memory_;
    std::size_t bytes_ = 0;
};

}  // namespace ublkd::io
