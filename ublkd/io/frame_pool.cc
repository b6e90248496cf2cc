#include "ublkd/io/frame_pool.h"

#include <array>
#include <cstdlib>
#include <new>

namespace ublkd::io {
namespace {

constexpr std::size_t kGrain = 64;
constexpr std::size_t kLargest = 4096;  // larger frames (control plane) go to malloc

#ifdef UBLKD_SANITIZED
constexpr bool kPooled = false;
#else
constexpr bool kPooled = true;
#endif

struct Free {
    Free* next;
};

struct Lists {
    std::array<Free*, kLargest / kGrain + 1> heads{};
    std::uint64_t from_malloc = 0;
    ~Lists() {
        for (Free* head : heads) {
            while (head != nullptr) {
                Free* const next = head->next;
                std::free(head);
                head = next;
            }
        }
        heads.fill(nullptr);
    }
};
thread_local Lists lists;

void* allocate(std::size_t bytes) {
    void* const memory = std::malloc(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    ++lists.from_malloc;
    return memory;
}

}  // namespace

void* allocate_frame(std::size_t bytes) {
    const std::size_t index = (bytes + kGrain - 1) / kGrain;
    if (!kPooled || index >= lists.heads.size()) return allocate(bytes);
    if (Free* const head = lists.heads[index]; head != nullptr) {
        lists.heads[index] = head->next;
        return head;
    }
    return allocate(index * kGrain);
}

void free_frame(void* frame, std::size_t bytes) noexcept {
    const std::size_t index = (bytes + kGrain - 1) / kGrain;
    if (!kPooled || index >= lists.heads.size()) {
        std::free(frame);
        return;
    }
    Free* const free = static_cast<Free*>(frame);
    free->next = lists.heads[index];
    lists.heads[index] = free;
}

bool frames_are_pooled() noexcept { return kPooled; }
std::uint64_t frames_from_malloc() noexcept { return lists.from_malloc; }

}  // namespace ublkd::io
