// Goal: with one member a request costs what its store's request costs: nothing is allocated, no
// payload is copied, the kernel is entered no more often. Method: operator new and the reactor's
// entries are counted over warm requests at depth 1, through a volume and through a bare store.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "tests/unit/volume/volume_world.h"
#include "ublkd/store/replica_store.h"

namespace {
std::uint64_t allocations = 0;
}

// NOLINTBEGIN(misc-new-delete-overloads)
void* operator new(std::size_t bytes) {
    ++allocations;
    void* const memory = std::malloc(bytes);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
// NOLINTEND(misc-new-delete-overloads)

namespace ublkd::volume {
namespace {

struct Cost {
    std::uint64_t allocations = 0;
    std::uint64_t enters = 0;
};

io::Task<void> some_requests(block::BlockDevice* device, std::span<std::byte> memory,
                             std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
        const block::WriteOptions options{};
        const auto written = co_await device->write(i % 64 * kPageBytes, memory, options);
        EXPECT_TRUE(written.has_value());
        const auto read = co_await device->read(i % 64 * kPageBytes, memory);
        EXPECT_TRUE(read.has_value());
    }
}

Cost cost_of(test::World& world, block::BlockDevice& device) {
    const auto buffer = world.buffer_of(kPageBytes);
    world.run(some_requests(&device, buffer.span(),
                            200));  // warm: regions active, units allocated, lists filled
    Cost cost{allocations, world.reactor().stats().enters};
    world.run(some_requests(&device, buffer.span(), 500));
    return {allocations - cost.allocations, world.reactor().stats().enters - cost.enters};
}

TEST(VolumeThin, OneMemberCostsNoAllocationAndNoSystemCallMoreThanItsStore) {
    test::World world(1);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    const Cost through_volume = cost_of(world, *world.volume);
    ASSERT_TRUE(world.stop());
    auto opening = store::ReplicaStore::open(&world.reactor(), world.buffers(),
                                             world.config.replicas[0].folder, {});
    auto opened = world.run(std::move(opening));
    ASSERT_TRUE(opened.has_value());
    const Cost through_store = cost_of(world, **opened);
    std::printf("1000 requests: %llu allocations and %llu enters, the store alone %llu and %llu\n",
                static_cast<unsigned long long>(through_volume.allocations),
                static_cast<unsigned long long>(through_volume.enters),
                static_cast<unsigned long long>(through_store.allocations),
                static_cast<unsigned long long>(through_store.enters));
    // The reactor's ready queue (a deque) takes a new block now and then.
    EXPECT_LE(through_volume.allocations, through_store.allocations + 20);
    EXPECT_LE(through_volume.enters, through_store.enters + 10);
}

}  // namespace
}  // namespace ublkd::volume
