// Goal: buffers never overlap, all memory comes back, who waits is served in order. Method: random
// use against a map of who owns each page.
#include "ublkd/io/buffer_pool.h"

#include <cstring>

#include "tests/suites/seed.h"
#include "tests/unit/io/io_fixture.h"

namespace ublkd::io {
namespace {

class BufferPoolTest : public IoTest {
  protected:
    std::unique_ptr<BufferPool> pool_ = std::move(*BufferPool::create(4 * kMiB));
};

TEST_F(BufferPoolTest, RandomUseNeverOverlapsAndAllComesBack) {
    suites::Random random(2);
    struct Held {
        Buffer buffer;
        std::uint8_t mark;
    };
    std::vector<Held> held;
    std::uint8_t mark = 0;
    int refused = 0;
    for (int step = 0; step < 20'000; ++step) {
        if (random.between(0, 99) < 52) {
            const std::size_t bytes =
                random.one_in(3) ? random.between(1, kMaxIoBytes) : random.between(1, 16 * kKiB);
            Buffer buffer = pool_->try_acquire(bytes);
            if (!buffer) {
                ++refused;
                ASSERT_LT(pool_->free_bytes(), pool_->capacity_bytes());
                continue;
            }
            ASSERT_EQ(buffer.size(), bytes);
            ASSERT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % kPageBytes, 0U);
            ++mark;
            std::memset(buffer.data(), mark, bytes);
            held.push_back(Held{std::move(buffer), mark});
        } else if (!held.empty()) {
            const std::size_t at = random.between(0, held.size() - 1);
            const std::span<std::byte> bytes = held[at].buffer.span();
            ASSERT_EQ(bytes[0], std::byte{held[at].mark});
            ASSERT_EQ(std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1), 0)
                << suites::seed_text();
            std::swap(held[at], held.back());
            held.pop_back();
        }
    }
    EXPECT_GT(refused, 0) << "the pool was never empty, so the test shows little";
    held.clear();
    EXPECT_EQ(pool_->free_bytes(), pool_->capacity_bytes());
    // Whole again: all of it can be had in the largest pieces.
    std::vector<Buffer> largest;
    for (std::size_t i = 0; i < pool_->capacity_bytes() / kMaxIoBytes; ++i) {
        largest.push_back(pool_->try_acquire(kMaxIoBytes));
        ASSERT_TRUE(largest.back());
    }
    EXPECT_FALSE(pool_->try_acquire(1));
}

Task<void> want(BufferPool* pool, std::size_t bytes, std::string* log, char name,
                Reactor* reactor) {
    const Buffer buffer = co_await pool->acquire(bytes);
    log->push_back(name);
    for (int i = 0; i < 3; ++i) co_await reactor->yield();
}

Task<void> queue_up(BufferPool* pool, std::string* log, Reactor* reactor) {
    std::vector<Buffer> all;
    while (Buffer buffer = pool->try_acquire(kMaxIoBytes)) all.push_back(std::move(buffer));
    TaskGroup group;
    group.start(want(pool, kMaxIoBytes, log, 'L', reactor));
    group.start(want(pool, 512, log, 's', reactor));
    group.start(want(pool, 512, log, 't', reactor));
    EXPECT_EQ(*log, "");
    all.pop_back();
    EXPECT_FALSE(pool->try_acquire(512)) << "who comes later does not overtake who waits";
    for (int i = 0; i < 3; ++i) co_await reactor->yield();
    EXPECT_EQ(*log, "L");
    all.clear();
    co_await group.wait();
}

TEST_F(BufferPoolTest, WhoWaitsIsServedInOrder) {
    std::string log;
    run(queue_up(pool_.get(), &log, reactor_.get()));
    EXPECT_EQ(log, "Lst");
    EXPECT_EQ(pool_->free_bytes(), pool_->capacity_bytes());
}

Task<void> churn(BufferPool* pool, Reactor* reactor, std::uint64_t number, int times) {
    suites::Random random(100 + number);
    for (int i = 0; i < times; ++i) {
        const std::size_t bytes = random.between(1, kMaxIoBytes);
        const Buffer buffer = co_await pool->acquire(bytes);
        std::memset(buffer.data(), static_cast<int>(number), bytes);
        for (std::uint64_t turn = random.between(0, 2); turn > 0; --turn) co_await reactor->yield();
        EXPECT_EQ(buffer.data()[0], std::byte{static_cast<unsigned char>(number)});
        EXPECT_EQ(buffer.data()[bytes - 1], std::byte{static_cast<unsigned char>(number)});
    }
}

Task<void> churn_all(BufferPool* pool, Reactor* reactor) {
    TaskGroup group;
    for (std::uint64_t i = 0; i < 64; ++i) group.start(churn(pool, reactor, i, 20));
    co_await group.wait();
}

TEST_F(BufferPoolTest, ManyMoreRequestsThanMemoryAllEnd) {
    run(churn_all(pool_.get(), reactor_.get()));
    EXPECT_EQ(pool_->free_bytes(), pool_->capacity_bytes());
}

TEST_F(BufferPoolTest, MovedBufferIsGivenBackOnce) {
    Buffer first = pool_->try_acquire(kPageBytes);
    Buffer second = std::move(first);
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): that is the question
    second = pool_->try_acquire(2 * kPageBytes);
    EXPECT_EQ(pool_->free_bytes(), pool_->capacity_bytes() - 2 * kPageBytes);
    second.release();
    second.release();
    EXPECT_EQ(pool_->free_bytes(), pool_->capacity_bytes());
}

TEST_F(BufferPoolTest, PoolWithBuffersOutIsNotDestroyed) {
    EXPECT_DEATH(
        {
            const Buffer held = pool_->try_acquire(1);
            pool_.reset();
        },
        "all buffers are given back");
}

}  // namespace
}  // namespace ublkd::io
