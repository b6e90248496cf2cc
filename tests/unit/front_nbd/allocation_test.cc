// A warm connection allocates nothing: operator new is counted on the server's thread while
// requests of every common kind are served, in batches as a busy client sends them. (Coroutine
// frames do not come from operator new but from io/frame_pool.h, which keeps them.)
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "tests/unit/front_nbd/test_server.h"

namespace {
thread_local bool counted_thread = false;
std::atomic<std::uint64_t> allocations = 0;

void* counted_allocate(std::size_t bytes) {
    if (counted_thread) ++allocations;
    void* const memory = std::malloc(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
}  // namespace

void* operator new(std::size_t bytes) { return counted_allocate(bytes); }
void* operator new[](std::size_t bytes) { return counted_allocate(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace ublkd::front::nbd::test {
namespace {

/// 32 requests in one send, as a client with that depth makes them.
Bytes batch() {
    Bytes requests;
    for (std::uint64_t i = 0; i < 32; ++i) {
        const std::uint64_t offset = i * 65536;
        if (i % 3 == 0) {
            requests = std::move(requests) + request(Command::kWrite, i, offset, 4096, kFua) +
                       pattern(4096, 1);
        } else if (i % 3 == 1) {
            requests =
                std::move(requests) + request(Command::kRead, i, offset, i % 2 == 0 ? 4096 : 65536);
        } else if (i % 4 == 0) {
            requests = std::move(requests) + request(Command::kTrim, i, offset, 65536);
        } else {
            requests = std::move(requests) + request(Command::kFlush, i, 0, 0);
        }
    }
    return requests;
}

void serve_batches(RawClient& client, const Bytes& requests, unsigned count) {
    for (unsigned round = 0; round < count; ++round) {
        ASSERT_TRUE(client.send(requests));
        for (unsigned i = 0; i < 32; ++i) {
            const auto reply = client.reply();
            ASSERT_TRUE(reply);
            ASSERT_EQ(reply->error, NbdError::kNone);
        }
    }
}

TEST(NbdTransmissionMemory, AWarmConnectionAllocatesNothing) {
    TestServer server;
    server.disk().yields = 1;  // so that requests really are in flight together
    server.run_on_server([] { counted_thread = true; });
    RawClient client = server.connect();
    ASSERT_TRUE(client.enter("disk", true));  // structured replies say their length themselves
    const Bytes requests = batch();
    EXPECT_GT(allocations, 0U) << "the handshake does allocate: the counter works";
    serve_batches(client, requests, 20);
    const std::uint64_t before = allocations;
    serve_batches(client, requests, 50);
    EXPECT_EQ(allocations - before, 0U) << "for 1,600 requests";
}

}  // namespace
}  // namespace ublkd::front::nbd::test
