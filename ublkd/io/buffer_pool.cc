#include "ublkd/io/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "ublkd/base/check.h"

namespace ublkd::io {

Buffer::Buffer(Buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      order_(other.order_) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
    if (this != &other) {
        release();
        pool_ = std::exchange(other.pool_, nullptr);
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
        order_ = other.order_;
    }
    return *this;
}

void Buffer::release() noexcept {
    if (data_ == nullptr) return;
    pool_->give_back(data_, order_);
    data_ = nullptr;
    size_ = 0;
}

Result<std::unique_ptr<BufferPool>> BufferPool::create(std::size_t bytes) {
    std::unique_ptr<BufferPool> pool(new BufferPool());
    constexpr std::size_t kHuge = 2 * kMiB;
    pool->capacity_bytes_ = align_up(std::max<std::size_t>(bytes, kMiB), kMaxIoBytes);
    // One huge page more than needed, so that the arena starts at a whole one.
    pool->mapped_bytes_ = align_up(pool->capacity_bytes_, kHuge) + kHuge;
    void* const memory = mmap(nullptr, pool->mapped_bytes_, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return fail_errno(errno, "map buffer arena");
    pool->mapping_ = memory;
    pool->arena_ =
        reinterpret_cast<std::byte*>(align_up(reinterpret_cast<std::uintptr_t>(memory), kHuge));
    (void)madvise(pool->arena_, pool->capacity_bytes_, MADV_HUGEPAGE);  // before the first touch
    const std::size_t pages = pool->capacity_bytes_ / kPageBytes;
    pool->free_order_.assign(pages, 0);
    pool->free_place_.assign(pages, 0);
    // Room for the most that a list can hold, so that giving back never allocates.
    for (unsigned order = 0; order < kOrders; ++order) pool->free_[order].reserve(pages >> order);
    for (std::size_t at = 0; at < pool->capacity_bytes_; at += kMaxIoBytes)
        pool->give_back(pool->arena_ + at, kOrders - 1);
    return pool;
}

BufferPool::~BufferPool() {
    if (mapping_ == nullptr) return;
    CHECK(free_bytes_ == capacity_bytes_,
          "all buffers are given back before their pool is destroyed");
    munmap(mapping_, mapped_bytes_);
}

unsigned BufferPool::order_of(std::size_t bytes) {
    CHECK(bytes > 0 && bytes <= kMaxIoBytes, "a buffer has 1 byte to 512 KiB");
    const std::size_t pages = divide_up(bytes, kPageBytes);
    return static_cast<unsigned>(std::bit_width(pages - 1));
}

bool BufferPool::take(unsigned order, Buffer& buffer, std::size_t bytes) {
    unsigned from = order;
    while (from < kOrders && free_[from].empty()) ++from;
    if (from == kOrders) return false;
    std::uint32_t page = free_[from].back();
    free_[from].pop_back();
    free_order_[page] = 0;
    while (from > order) {  // split, and keep the lower half
        --from;
        const std::uint32_t upper = page + (1U << from);
        free_order_[upper] = static_cast<std::uint8_t>(from + 1);
        free_place_[upper] = static_cast<std::uint32_t>(free_[from].size());
        free_[from].push_back(upper);
    }
    free_bytes_ -= std::size_t{kPageBytes} << order;
    buffer.pool_ = this;
    buffer.data_ = arena_ + std::size_t{page} * kPageBytes;
    buffer.size_ = bytes;
    buffer.order_ = order;
    return true;
}

void BufferPool::give_back(std::byte* data, unsigned order) noexcept {
    free_bytes_ += std::size_t{kPageBytes} << order;
    auto page = static_cast<std::uint32_t>(static_cast<std::size_t>(data - arena_) / kPageBytes);
    while (order + 1 < kOrders) {  // join with the free other half
        const std::uint32_t buddy = page ^ (1U << order);
        if (buddy >= free_order_.size() || free_order_[buddy] != order + 1) break;
        const std::uint32_t place = free_place_[buddy];
        const std::uint32_t last = free_[order].back();
        free_[order][place] = last;
        free_place_[last] = place;
        free_[order].pop_back();
        free_order_[buddy] = 0;
        page &= ~(1U << order);
        ++order;
    }
    free_order_[page] = static_cast<std::uint8_t>(order + 1);
    free_place_[page] = static_cast<std::uint32_t>(free_[order].size());
    free_[order].push_back(page);
    if (waiting_ > 0) returned_.pulse();
}

Buffer BufferPool::try_acquire(std::size_t bytes) {
    Buffer buffer;
    if (waiting_ == 0) take(order_of(bytes), buffer, bytes);
    return buffer;
}

Task<Buffer> BufferPool::acquire(std::size_t bytes) {
    Buffer buffer = try_acquire(bytes);
    if (buffer) co_return buffer;
    ++waiting_;
    co_await turn_.acquire();
    const unsigned order = order_of(bytes);
    while (!take(order, buffer, bytes)) co_await returned_.wait();
    turn_.release();
    --waiting_;
    co_return buffer;
}

}  // namespace ublkd::io
