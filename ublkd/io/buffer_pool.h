// The arena of I/O buffers of one reactor: one mapping made at start (huge pages where the kernel
// gives them), cut into page-aligned buffers of 4 KiB to 512 KiB by a buddy scheme. A request that
// finds none waits, first come first served, so memory is bounded and nothing is allocated on the
// data path.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/base/units.h"
#include "ublkd/io/sync.h"
#include "ublkd/io/task.h"

namespace ublkd::io {

class BufferPool;

/// A buffer, given back when destroyed. Movable; must not outlive its pool.
class Buffer {
  public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;
    ~Buffer() { release(); }

    std::byte* data() const { return data_; }
    /// What was asked for; the memory behind it is rounded up to a power of two.
    std::size_t size() const { return size_; }
    std::span<std::byte> span() const { return {data_, size_}; }
    explicit operator bool() const { return data_ != nullptr; }
    void release() noexcept;

  private:
    friend class BufferPool;
    BufferPool* pool_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    unsigned order_ = 0;
};

class BufferPool {
  public:
    /// `bytes`: size of the arena, rounded up to 512 KiB; at least 1 MiB.
    static Result<std::unique_ptr<BufferPool>> create(std::size_t bytes);
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    ~BufferPool();

    /// A page-aligned buffer of `bytes` (1 to 512 KiB), content undefined; waits until there is
    /// one.
    Task<Buffer> acquire(std::size_t bytes);
    /// An empty Buffer where none is free now, or others wait already.
    Buffer try_acquire(std::size_t bytes);
    std::size_t capacity_bytes() const { return capacity_bytes_; }
    std::size_t free_bytes() const { return free_bytes_; }

  private:
    friend class Buffer;
    static constexpr unsigned kOrders = 8;  // 4 KiB << 0 ... 4 KiB << 7 = 512 KiB
    BufferPool() = default;
    static unsigned order_of(std::size_t bytes);
    bool take(unsigned order, Buffer& buffer, std::size_t bytes);
    void give_back(std::byte* data, unsigned order) noexcept;

    void* mapping_ = nullptr;
    std::byte* arena_ = nullptr;
    std::size_t mapped_bytes_ = 0;
    std::size_t capacity_bytes_ = 0;
    std::size_t free_bytes_ = 0;
    std::array<std::vector<std::uint32_t>, kOrders> free_;  // page index of each free buffer
    std::vector<std::uint8_t> free_order_;   // per page: order + 1 where a free buffer starts
    std::vector<std::uint32_t> free_place_;  // per page: its index in free_[order]
    Event returned_;
    std::uint64_t waiting_ = 0;
    Semaphore turn_{1};  // who waits does so in order
};

}  // namespace ublkd::io
