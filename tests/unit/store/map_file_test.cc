// Goal: the maps' bytes are those of docs/format-replica.md; a damaged or misplaced sector is
// refused; a torn page is a mix of valid sectors; those who need bits on disk at the same time
// share a write. Method: golden bytes, damage by hand, a disk in memory.
#include "ublkd/store/map_file.h"

#include <fmt/core.h>

#include <array>

#include "tests/crash/recorded_disk.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/io/reactor.h"

namespace ublkd::store {
namespace {

constexpr ReplicaId kId{0x1122334455667788};
using Sector = std::array<std::byte, kMapSectorBytes>;
constexpr MapSectorPlace kPlace{MapKind::kAllocated, kId, 1};

Sector encoded() {
    Bitmap bits(5000);
    bits.set(3840);  // the first bit of sector 1
    bits.set(3840 + 69);
    Sector sector;
    encode_map_sector(kPlace, bits, sector);
    return sector;
}

void seal(Sector& sector) {
    store_le<std::uint32_t>(sector.data() + 20, 0);
    store_le<std::uint32_t>(sector.data() + 20, crc32c(sector));
}

std::string hex(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte b : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(b));
    return text;
}

TEST(MapSector, HasTheBytesOfTheFormatPage) {
    const Sector sector = encoded();
    EXPECT_EQ(hex(std::span(sector).first(48)),
              "554c4d5001000200887766554433221101000000cc9d6d420000000000000000"
              "01000000000000002000000000000000");
    EXPECT_TRUE(is_all_zero(std::span(sector).subspan(48)));
}

TEST(MapSector, IsReadAsItWasWritten) {
    Bitmap bits(5000);
    ASSERT_TRUE(decode_map_sector(kPlace, encoded(), bits));
    EXPECT_EQ(bits.count(), 2U);
    EXPECT_TRUE(bits.test(3840) && bits.test(3909));
}

TEST(MapSector, IsRefusedWhereDamagedMisplacedOrNotOurs) {
    Bitmap bits(5000);
    for (std::size_t at = 0; at < kMapSectorBytes; ++at) {
        Sector sector = encoded();
        sector[at] ^= std::byte{4};
        EXPECT_EQ(decode_map_sector(kPlace, sector, bits).error().code, Errc::kCorrupt) << at;
    }
    const auto code_at = [&](MapSectorPlace place) {
        return decode_map_sector(place, encoded(), bits).error().code;
    };
    EXPECT_EQ(code_at({MapKind::kActivity, kId, 1}), Errc::kCorrupt);
    EXPECT_EQ(code_at({MapKind::kAllocated, ReplicaId(1), 1}), Errc::kCorrupt);
    EXPECT_EQ(code_at({MapKind::kAllocated, kId, 0}), Errc::kCorrupt);

    Sector sector = encoded();
    store_le<std::uint16_t>(sector.data() + 4, 2);
    seal(sector);
    EXPECT_EQ(decode_map_sector(kPlace, sector, bits).error().code, Errc::kUnsupported);
    Bitmap small(3850);  // bit 3909 lies past its end
    EXPECT_EQ(decode_map_sector(kPlace, encoded(), small).error().code, Errc::kCorrupt);
}

class PersistentMapTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t kBits = 3 * kMapPageBits + 100;
    void SetUp() override {
        ASSERT_TRUE(file_->set_size(PersistentMap::bytes_for(kBits)));
        ASSERT_TRUE(run(map_.format()));
        disk_.start_recording();
    }
    void TearDown() override { faults::disarm_all(); }
    template <class T>
    T run(io::Task<T> task) {
        return reactor_->run_until_complete(std::move(task));
    }
    io::Task<void> set_durably(std::uint64_t bit) {
        map_.set(bit);
        const Result<void> durable = co_await map_.make_durable();
        EXPECT_TRUE(durable);
        EXPECT_TRUE(map_.on_disk(bit));
    }
    io::Task<void> set_many() {
        io::TaskGroup group;
        for (std::uint64_t bit = 0; bit < 100; ++bit) group.start(set_durably(bit * 2));
        co_await group.wait();
    }

    std::unique_ptr<io::Reactor> reactor_ = std::move(*io::Reactor::create());
    crash::RecordedDisk disk_{1};
    std::unique_ptr<DiskFolder> folder_ = disk_.folder();
    std::unique_ptr<DiskFile> file_ = std::move(*folder_->open("maps", {true, true}));
    PersistentMap map_{file_.get(), MapKind::kActivity, kId, kBits, 0};
};

TEST_F(PersistentMapTest, KeepsItsBitsOverReopening) {
    for (const std::uint64_t bit : {std::uint64_t{0}, kMapPageBits, kBits - 1}) map_.set(bit);
    ASSERT_TRUE(run(map_.make_durable()));
    PersistentMap again(file_.get(), MapKind::kActivity, kId, kBits, 0);
    ASSERT_TRUE(run(again.load()));
    EXPECT_EQ(again.bits(), map_.bits());
    EXPECT_EQ(again.bits().count(), 3U);
    EXPECT_TRUE(again.on_disk(kBits - 1));
}

TEST_F(PersistentMapTest, ThoseWhoNeedBitsAtTheSameTimeShareAWrite) {
    const std::uint64_t before = map_.writes();
    run(set_many());
    EXPECT_LE(map_.writes() - before, 2U)
        << "the first one's, and one for the 99 that came meanwhile";
}

TEST_F(PersistentMapTest, ATornPageIsAMixOfValidSectors) {
    map_.set(0);
    map_.set(kMapSectorWords * 64 * 5);
    ASSERT_TRUE(run(map_.make_durable()));
    for (std::size_t moment = 0; moment <= disk_.moment(); ++moment) {
        for (int i = 0; i < 20; ++i) {
            crash::RecordedDisk cut(1, disk_.image_at(moment, crash::RecordedDisk::Loss::kRandom));
            const auto folder = cut.folder();
            const auto file = std::move(*folder->open("maps", {false, true}));
            PersistentMap again(file.get(), MapKind::kActivity, kId, kBits, 0);
            EXPECT_TRUE(run(again.load()));
        }
    }
}

TEST_F(PersistentMapTest, WithoutSpaceTheBitIsNotOnDiskAndTheNextTryBringsItThere) {
    ASSERT_TRUE(faults::arm("store.map_write=fail:28@1"));
    map_.set(3);
    EXPECT_EQ(run(map_.make_durable()).error().code, Errc::kNoSpace);
    EXPECT_FALSE(map_.on_disk(3));
    EXPECT_TRUE(run(map_.make_durable()));
    EXPECT_TRUE(map_.on_disk(3));
}

TEST_F(PersistentMapTest, ABitClearedDuringAWriteIsNotTakenForWritten) {
    map_.set(9);
    io::Task<Result<void>> writing = map_.make_durable();
    io::TaskGroup group;
    group.start(
        [](io::Task<Result<void>>* task) -> io::Task<void> { (void)co_await *task; }(&writing));
    map_.clear(9);
    run([](io::TaskGroup* all) -> io::Task<void> { co_await all->wait(); }(&group));
    EXPECT_FALSE(map_.on_disk(9));
}

}  // namespace
}  // namespace ublkd::store
