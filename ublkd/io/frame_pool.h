// Memory of coroutine frames: per-thread free lists by size, so that a request allocates nothing once the lists are warm.
// A frame is freed to the list of the thread that frees it. Under the sanitizers each frame is a real allocation, so that
// use after free is seen.
#pragma once

#include <cstddef>

namespace ublkd::io {

void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes) noexcept;

}  // namespace ublkd::io
