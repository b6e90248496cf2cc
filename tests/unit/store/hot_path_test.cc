// Goal: a 4 KiB write or read in an active region costs one disk request, no bounce and no heap at
// all. Method: operator new of this program counts.
#include <cstdlib>
#include <new>

#include "tests/unit/store/replica_fixture.h"

namespace {
std::uint64_t allocations = 0;  // one thread
}

void* operator new(std::size_t bytes) {
    ++allocations;
    void* const memory = std::malloc(bytes);
    if (memory == nullptr) std::abort();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace ublkd::store {
namespace {

class HotPath : public ReplicaTest {
  protected:
    io::Task<int> many(int count) {
        int failed = 0;
        for (int i = 0; i < count; ++i) {
            const std::uint64_t offset = static_cast<std::uint64_t>(i % 64) * kPageBytes;
            const Result<void> written =
                co_await store_->write(offset, page_, block::WriteOptions{});
            const Result<void> got = co_await store_->read(offset, page_);
            failed += written && got ? 0 : 1;
        }
        co_return failed;
    }
    std::span<std::byte> page_;
};

TEST_F(HotPath, WritesAndReadsAllocateNothing) {
    page_ = memory(kPageBytes, 1);
    ASSERT_EQ(run(many(200)), 0);  // the frame lists are warm, the region is active
    const std::uint64_t before = allocations;
    const io::ReactorStats reactor_before = reactor_->stats();
    ASSERT_EQ(run(many(200)), 0);
    EXPECT_LE(allocations - before, 2U) << "of run_until_complete() at most";
    EXPECT_EQ(reactor_->stats().completions - reactor_before.completions, 400U)
        << "one request each";
    EXPECT_EQ(store_->stats().bounced, 0U);
}

}  // namespace
}  // namespace ublkd::store
