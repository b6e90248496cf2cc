// Goal: a sector tells who wrote it and for which place, and nothing else passes for a stamp.
#include "tests/history/stamp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace ublkd::history {
namespace {

using SectorBytes = std::array<std::byte, kSectorBytes>;

SectorBytes stamped(OperationId by, std::uint64_t sector) {
    SectorBytes bytes{};
    write_stamp(bytes, by, sector);
    return bytes;
}

TEST(Stamp, TellsWriterSequenceAndPlace) {
    const Seen seen = read_stamp(stamped({3, 17}, 99), 99);
    EXPECT_EQ(seen.what, Seen::What::kStamp);
    EXPECT_EQ(seen.by, (OperationId{3, 17}));
    EXPECT_EQ(read_stamp(SectorBytes{}, 99).what, Seen::What::kZeroes);
}

TEST(Stamp, SectorForAnotherPlaceIsMisplaced) {
    const Seen seen = read_stamp(stamped({3, 17}, 99), 100);
    EXPECT_EQ(seen.what, Seen::What::kMisplaced);
    EXPECT_EQ(seen.by, (OperationId{3, 17}));
    EXPECT_EQ(seen.address, 99u);
}

TEST(Stamp, EveryMixtureOfTwoSectorsIsTorn) {
    const SectorBytes one = stamped({3, 17}, 99);
    for (const SectorBytes& other : {stamped({4, 1}, 99), stamped({3, 18}, 99), SectorBytes{}}) {
        for (std::size_t cut = 1; cut < kSectorBytes; ++cut) {
            SectorBytes mixed = other;
            std::copy_n(one.begin(), cut, mixed.begin());
            if (mixed == one || mixed == other) continue;  // they agree up to here, or from here on
            EXPECT_EQ(read_stamp(mixed, 99).what, Seen::What::kTorn) << cut;
        }
    }
}

TEST(Stamp, EveryFlippedBitIsTorn) {
    SectorBytes bytes = stamped({3, 17}, 99);
    for (std::byte& byte : bytes) {
        for (int bit = 0; bit < 8; ++bit) {
            byte ^= std::byte{1} << bit;
            EXPECT_EQ(read_stamp(bytes, 99).what, Seen::What::kTorn);
            byte ^= std::byte{1} << bit;
        }
    }
}

TEST(Stamp, NeighboursOfOneWriteAreOneRun) {
    std::vector<std::byte> bytes(4 * kSectorBytes);
    write_stamp(std::span(bytes).subspan(kSectorBytes).first<kSectorBytes>(), {1, 2}, 11);
    write_stamp(std::span(bytes).subspan(2 * kSectorBytes).first<kSectorBytes>(), {1, 2}, 12);
    const auto seen = read_stamps(bytes, 10);
    ASSERT_EQ(seen.size(), 3u);
    EXPECT_EQ(seen[0].what, Seen::What::kZeroes);
    EXPECT_EQ(seen[1].count, 2u);
    EXPECT_EQ(seen[2].what, Seen::What::kZeroes);
}

}  // namespace
}  // namespace ublkd::history
