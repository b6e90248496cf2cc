// Goal: a warm request allocates nothing: no coroutine frame, no timer, no buffer, no queue.
// Method: operator new is counted, and the frame pool counts its calls of malloc. (Under the
// sanitizers each frame is allocated on purpose, so only the rest is held to zero there.)
#include <sys/socket.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/unit/io/io_fixture.h"
#include "ublkd/block/memory_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/socket.h"

namespace {
std::atomic<std::uint64_t> allocations = 0;
}

// Not inlined: g++ would see a pointer of `new` go to free().
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    void* const memory = std::malloc(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace ublkd::io {
namespace {

using AllocationTest = IoTest;

Task<void> one_request(Reactor* reactor, BufferPool* pool, block::BlockDevice* device, Socket* left,
                       Socket* right) {
    Buffer buffer = co_await pool->acquire(kPageBytes);
    const auto put = co_await left->send_all(buffer.span().first(64));
    EXPECT_TRUE(put);
    const int got = co_await reactor->receive(right->ref(), buffer.span());
    EXPECT_EQ(got, 64);
    const auto written = co_await device->write(0, buffer.span(), block::WriteOptions{});
    EXPECT_TRUE(written);
    const auto read = co_await device->read(0, buffer.span());
    EXPECT_TRUE(read);
    co_await reactor->yield();
}

Task<void> many_requests(Reactor* reactor, BufferPool* pool, block::BlockDevice* device,
                         Socket* left, Socket* right, int times) {
    for (int i = 0; i < times; ++i) {
        TaskGroup group;
        group.start(one_request(reactor, pool, device, left, right));
        co_await group.wait();
    }
}

TEST_F(AllocationTest, WarmRequestAllocatesNothing) {
    const auto pool = std::move(*BufferPool::create(kMiB));
    block::MemoryDevice device(block::Geometry{.size_bytes = kMiB});
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    Socket left(*reactor_, ends[0]);
    Socket right(*reactor_, ends[1]);
    run(many_requests(reactor_.get(), pool.get(), &device, &left, &right, 300));
    const std::uint64_t allocations_before = allocations.load();
    const std::uint64_t frames_before = frames_from_malloc();
    run(many_requests(reactor_.get(), pool.get(), &device, &left, &right, 1000));
    EXPECT_EQ(allocations.load() - allocations_before, 0U);
    if (frames_are_pooled()) {
        EXPECT_EQ(frames_from_malloc() - frames_before, 0U);
    } else {
        EXPECT_GT(frames_from_malloc() - frames_before, 1000U);
    }
}

}  // namespace
}  // namespace ublkd::io
