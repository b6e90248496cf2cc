// Goal: what `volume verify --repair` writes over is what differed, never what a guest wrote (R14).
// Method: real stores in temporary folders whose files are changed at rest, a disk that fails in
// the middle of a repair.
#include <gtest/gtest.h>

#include "tests/unit/volume/volume_world.h"

namespace ublkd::volume {
namespace {

using test::World;
using test::operator""_b;

constexpr std::uint64_t kElsewhere = 8 * kMiB;

/// Two members whose first 512 KiB differ: 1 on the primary, 2 on the other one.
void start_with_a_difference(World& world) {
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b, kMaxIoBytes));
    ASSERT_TRUE(world.stop());
    {
        const std::string strays(kMaxIoBytes, '\2');
        std::ofstream data(world.config.replicas[1].folder + "/data",
                           std::ios::binary | std::ios::in | std::ios::out);
        data.write(strays.data(), static_cast<std::streamsize>(strays.size()));
        ASSERT_TRUE(data.good());
    }
    ASSERT_TRUE(world.start());
}

io::Task<void> verify_aside(Volume* volume, std::optional<Result<VerifyReport>>* report) {
    report->emplace(co_await volume->verify(OnDifference::kRepair));
}

TEST(VolumeVerify, RepairMakesAllEqualToThePrimary) {
    World world(2);
    start_with_a_difference(world);
    const auto seen = world.run(world.volume->verify());
    ASSERT_TRUE(seen);
    EXPECT_EQ(seen->differing_bytes, kMaxIoBytes);
    EXPECT_EQ(seen->first_difference_bytes, 0U);
    EXPECT_EQ(seen->repaired_bytes, 0U);
    const auto repaired = world.run(world.volume->verify(OnDifference::kRepair));
    ASSERT_TRUE(repaired);
    EXPECT_EQ(repaired->repaired_bytes, kMaxIoBytes);
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_EQ(world.read(0, kMaxIoBytes), 1_b);
    EXPECT_EQ(world.authority->load()->number, 1U);
}

/// The primary's disk fails in the middle of a repair, the other member takes over, and a guest
/// writes what would have been repaired last.
TEST(VolumeVerify, RepairOverwritesNothingThatWasWrittenAfterAHandover) {
    World world(2);
    start_with_a_difference(world);
    ASSERT_TRUE(world.write(kElsewhere, 1_b));  // so that a flush reaches the disks
    ASSERT_TRUE(faults::arm("volume.before_repair=delay:2"));
    std::optional<Result<VerifyReport>> report;
    io::Gate gate;
    io::spawn(gate, verify_aside(world.volume.get(), &report));
    ASSERT_TRUE(world.wait_until([] { return faults::hits("volume.before_repair") > 0; }));
    ASSERT_TRUE(faults::arm("store.data_sync=fail@1"));  // the primary's
    ASSERT_TRUE(world.run(world.volume->flush()));
    ASSERT_EQ(world.authority->load()->primary, world.config.replicas[1].member.replica);
    ASSERT_TRUE(world.write(kMaxIoBytes - kPageBytes, 9_b, kPageBytes, {.fua = true}));
    ASSERT_TRUE(world.wait_until([&] { return report.has_value(); }));
    EXPECT_TRUE(report->has_value());
    EXPECT_EQ(world.read(kMaxIoBytes - kPageBytes), 9_b);
    world.run(gate.close());
}

}  // namespace
}  // namespace ublkd::volume
