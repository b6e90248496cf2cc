// Memory of coroutine frames: per-thread free lists by size, so that a request allocates nothing
// once the lists are warm. A frame is freed to the list of the thread that frees it. Under the
// sanitizers each frame is a real allocation, so that use after free is seen.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ublkd::io {

void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes) noexcept;

/// Whether this build keeps frames in lists at all, and how often this thread had to go to malloc
/// for one.
bool frames_are_pooled() noexcept;
std::uint64_t frames_from_malloc() noexcept;

}  // namespace ublkd::io
