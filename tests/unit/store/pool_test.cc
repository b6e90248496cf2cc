// Goal: a pool is made whole or not at all, is had by one daemon, refuses what it cannot read, and
// sweeps what a crash left. Method: real folders; golden bytes; damage by hand; fault points.
#include "ublkd/store/pool.h"

#include <fmt/core.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "tests/unit/store/temporary_folder.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/units.h"
#include "ublkd/store/file_system.h"

namespace ublkd::store {
namespace {

class PoolTest : public ::testing::Test {
  protected:
    void TearDown() override { faults::disarm_all(); }
    std::string path() const { return folder_.path() + "/p"; }
    std::vector<std::byte> file() const {
        const std::string text = *read_file(path() + "/pool");
        const auto bytes = std::as_bytes(std::span(text));
        return {bytes.begin(), bytes.end()};
    }
    void write_file(std::vector<std::byte> bytes, bool sealed) {
        if (sealed) {
            store_le<std::uint32_t>(bytes.data() + 12, 0);
            store_le<std::uint32_t>(bytes.data() + 12, crc32c(bytes));
        }
        ASSERT_TRUE(write_file_durably(
            path() + "/pool", {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, 0600));
    }
    void make() {
        ASSERT_TRUE(
            Pool::create(path(), PoolConfig{.id = PoolId(0x0102030405060708), .domain = "rack-a"}));
    }
    Errc open_error() { return Pool::open(path(), 30).error().code; }
    void make_folder_with_file(const std::string& name) {
        ASSERT_TRUE(fs::make_folder(path() + "/replicas/" + name));
        std::ofstream(path() + "/replicas/" + name + "/data") << std::string(100'000, 'x');
    }

    test::TemporaryFolder folder_;
};

TEST_F(PoolTest, IsOpenedAsItWasMade) {
    {
        const auto made = Pool::create(
            path() + "/", PoolConfig{.id = {}, .domain = "rack-a", .size_cap_bytes = kGiB});
        ASSERT_TRUE(made) << to_string(made.error());
        EXPECT_TRUE((*made)->id());
    }
    const auto pool = Pool::open(path());
    ASSERT_TRUE(pool) << to_string(pool.error());
    EXPECT_EQ((*pool)->domain(), "rack-a");
    EXPECT_FALSE((*pool)->buffered());
    const auto space = (*pool)->space();
    ASSERT_TRUE(space);
    EXPECT_EQ(space->cap_bytes, kGiB);
    EXPECT_EQ(space->allocated_bytes, 0U);
    EXPECT_LE(space->available_bytes(), kGiB);
    EXPECT_TRUE((*pool)->replicas()->empty());
}

TEST_F(PoolTest, FileHasTheBytesOfTheFormatPage) {
    make();
    std::string text;
    for (const std::byte b : file()) text += fmt::format("{:02x}", static_cast<unsigned>(b));
    EXPECT_EQ(text.substr(0, 144),
              "55424c4b44504c0a01000000681db82e"
              "08070605040302010000000000000000"
              "00000000060000000000000000000000"
              "00000000000000000000000000000000"
              "7261636b2d610000");
    EXPECT_EQ(text.size(), 1024U);
}

TEST_F(PoolTest, IsHadByOneAtATime) {
    make();
    {
        const auto pool = Pool::open(path());
        ASSERT_TRUE(pool);
        EXPECT_EQ(open_error(), Errc::kBusy);
    }
    EXPECT_TRUE(Pool::open(path(), 0));
}

TEST_F(PoolTest, WaitsForADaemonThatIsStillDying) {
    make();
    auto dying = Pool::open(path());
    ASSERT_TRUE(dying);
    std::thread death([&dying] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        dying->reset();
    });
    EXPECT_TRUE(Pool::open(path()));
    death.join();
}

TEST_F(PoolTest, IsNotMadeTwiceOrOverOtherFiles) {
    make();
    EXPECT_EQ(Pool::create(path(), {}).error().code, Errc::kExists);
    const std::string other = folder_.path() + "/other";
    ASSERT_TRUE(fs::make_folder(other));
    std::ofstream(other + "/holiday.jpg") << "x";
    EXPECT_EQ(Pool::create(other, {}).error().code, Errc::kBusy);
    EXPECT_EQ(fs::list(other)->size(), 1U) << "nothing was left there";
    EXPECT_EQ(Pool::create(folder_.path() + "/no/parent", {}).error().code, Errc::kNotFound);
    EXPECT_EQ(Pool::create("", {}).error().code, Errc::kInvalidArgument);
    EXPECT_EQ(Pool::create(path() + "2", PoolConfig{.id = {}, .domain = std::string(129, 'x')})
                  .error()
                  .code,
              Errc::kInvalidArgument);
}

TEST_F(PoolTest, WithoutODirectIsRefusedUnlessBufferedAndLeavesNothing) {
    ASSERT_TRUE(faults::arm("store.probe_direct=fail:22"));
    EXPECT_EQ(Pool::create(path(), {}).error().code, Errc::kUnsupported);
    EXPECT_FALSE(fs::exists(path()));
    const auto pool = Pool::create(path(), PoolConfig{.id = {}, .domain = "", .buffered = true});
    ASSERT_TRUE(pool);
    EXPECT_TRUE((*pool)->buffered());
}

TEST_F(PoolTest, DamagedOrOfAnotherVersionIsRefused) {
    EXPECT_EQ(open_error(), Errc::kNotFound);
    make();
    const auto whole = file();
    for (const std::size_t at : {0U, 13U, 16U, 64U, 511U}) {
        auto bytes = whole;
        bytes[at] ^= std::byte{1};
        write_file(bytes, false);
        EXPECT_EQ(open_error(), Errc::kCorrupt) << at;
    }
    auto bytes = whole;
    bytes.resize(300);
    write_file(bytes, false);
    EXPECT_EQ(open_error(), Errc::kCorrupt);
    for (const std::size_t at : {8U, 33U}) {  // version, flags
        bytes = whole;
        bytes[at] = std::byte{9};
        write_file(bytes, true);
        EXPECT_EQ(open_error(), Errc::kUnsupported) << at;
    }
    bytes = whole;
    bytes[36] = std::byte{200};  // length of the domain
    write_file(bytes, true);
    EXPECT_EQ(open_error(), Errc::kCorrupt);
    write_file(whole, false);
    EXPECT_TRUE(Pool::open(path()));
}

TEST_F(PoolTest, SweepsWhatACrashLeftAndCountsWhatIsThere) {
    make();
    const std::string kept = ReplicaId(5).to_string();
    make_folder_with_file(kept);
    make_folder_with_file(ReplicaId(6).to_string() + ".making");
    make_folder_with_file(ReplicaId(7).to_string() + ".removing");
    const auto pool = Pool::open(path());
    ASSERT_TRUE(pool);
    const auto replicas = (*pool)->replicas();
    ASSERT_TRUE(replicas);
    ASSERT_EQ(replicas->size(), 1U);
    EXPECT_EQ(replicas->front().id, ReplicaId(5));
    EXPECT_EQ(replicas->front().folder, path() + "/replicas/" + kept);
    EXPECT_EQ(fs::list(path() + "/replicas")->size(), 1U);
    EXPECT_GE((*pool)->space()->allocated_bytes, 100'000U);
    EXPECT_EQ((*pool)->destroy().error().code, Errc::kBusy);
    EXPECT_TRUE((*pool)->remove_replica(ReplicaId(5)));
    EXPECT_TRUE((*pool)->remove_replica(ReplicaId(5))) << "again, as after a lost answer";
    EXPECT_EQ((*pool)->space()->allocated_bytes, 0U);
    EXPECT_TRUE((*pool)->destroy());
    EXPECT_FALSE(fs::exists(path()));
}

TEST(AllocationBudget, ChargesUpToTheCap) {
    AllocationBudget budget(100);
    EXPECT_TRUE(budget.charge(60));
    EXPECT_FALSE(budget.charge(41));
    EXPECT_TRUE(budget.charge(40));
    budget.refund(10);
    EXPECT_TRUE(budget.charge(10));
    budget.set_cap_bytes(50);
    EXPECT_FALSE(budget.charge(1)) << "above a cap that was lowered nothing more is given";
    budget.set_cap_bytes(0);
    EXPECT_TRUE(budget.charge(kTiB)) << "no cap";
}

TEST(AllocationBudget, ChargedFromSeveralThreadsNeverExceedsTheCap) {
    AllocationBudget budget(1000);
    std::atomic<std::uint64_t> most = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 20'000; ++i) {
                if (!budget.charge(7)) continue;
                const std::uint64_t used = budget.used_bytes();
                if (used > most) most = used;
                if (i % 3 != 0) budget.refund(7);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_LE(most, 1000U);
    EXPECT_EQ(budget.used_bytes(), 994U) << "142 of 7 that were never given back";
}

TEST(AllocationBudget, FollowsSharesOverOpenCloseAndRemoval) {
    AllocationBudget budget(0);
    budget.set_share(ReplicaId(1), 1000);  // by the pool, from the file system
    budget.set_share(ReplicaId(1), 640);   // by the store, exactly
    EXPECT_EQ(budget.used_bytes(), 640U);
    EXPECT_TRUE(budget.charge(64));
    budget.settle(ReplicaId(1), 704);
    EXPECT_EQ(budget.used_bytes(), 704U);
    budget.forget(ReplicaId(1));
    budget.forget(ReplicaId(2));
    EXPECT_EQ(budget.used_bytes(), 0U);
}

}  // namespace
}  // namespace ublkd::store
