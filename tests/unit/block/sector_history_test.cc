// Goal: the judge of the concurrent tests accepts what is possible and names what is not.
#include "tests/suites/sector_history.h"

#include <gtest/gtest.h>

namespace ublkd::suites {
namespace {

SectorEvent write(std::uint64_t value, std::uint64_t start, std::uint64_t end) {
    return {true, value, start, end};
}
SectorEvent read(std::uint64_t value, std::uint64_t start, std::uint64_t end) {
    return {false, value, start, end};
}

TEST(SectorHistory, PossibleHistoriesAreAccepted) {
    EXPECT_EQ(contradiction({}), "");
    EXPECT_EQ(contradiction({read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)}), "");
    EXPECT_EQ(contradiction({write(1, 1, 10), read(0, 2, 3), read(1, 4, 5)}), "");
    EXPECT_EQ(contradiction({write(1, 1, 10), write(2, 2, 9), read(2, 11, 12), read(2, 13, 14)}),
              "");
    EXPECT_EQ(contradiction({write(1, 1, 10), write(2, 2, 9), read(1, 11, 12)}), "");
    EXPECT_EQ(contradiction({write(1, 1, UINT64_MAX), read(0, 5, 6), read(1, 7, 8)}), "");
}

TEST(SectorHistory, LostWriteIsFound) {
    EXPECT_NE(contradiction({write(1, 1, 2), read(0, 3, 4)}), "");
    EXPECT_NE(contradiction({write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)}), "");
}

TEST(SectorHistory, ReadThatGoesBackIsFound) {
    EXPECT_NE(contradiction({write(1, 1, 20), read(1, 2, 3), read(0, 4, 5)}), "");
    EXPECT_NE(contradiction({write(1, 1, 10), write(2, 2, 9), read(1, 11, 12), read(2, 13, 14)}),
              "");
}

TEST(SectorHistory, ValueFromNowhereOrFromTheFutureIsFound) {
    EXPECT_NE(contradiction({read(7, 1, 2)}), "");
    EXPECT_NE(contradiction({read(1, 1, 2), write(1, 3, 4)}), "");
}

}  // namespace
}  // namespace ublkd::suites
