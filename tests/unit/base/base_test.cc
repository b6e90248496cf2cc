// base: ids, checksums, units, results. Checksums against the published check value and the
// portable version.
#include <cerrno>
#include <random>
#include <string_view>
#include <vector>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/base/units.h"

namespace ublkd {
namespace {

TEST(Crc32c, GivesThePublishedCheckValue) {
    const std::string_view text = "123456789";
    EXPECT_EQ(crc32c(std::as_bytes(std::span(text))), 0xe3069283U);
    EXPECT_EQ(crc32c_portable(std::as_bytes(std::span(text))), 0xe3069283U);
}

TEST(Crc32c, AgreesWithThePortableVersionAtEachLengthAndSplit) {
    std::mt19937 random(7);
    std::vector<std::byte> data(300);
    for (auto& b : data) b = static_cast<std::byte>(random());
    const std::span<const std::byte> all(data);
    for (std::size_t length = 0; length <= data.size(); ++length) {
        const auto part = all.first(length);
        EXPECT_EQ(crc32c(part), crc32c_portable(part));
        EXPECT_EQ(crc32c(part.subspan(length / 3), crc32c(part.first(length / 3))), crc32c(part));
    }
}

TEST(Ids, AreWrittenAsEbsWritesThemAndReadBack) {
    const VolumeId id(0xa1b2c3d4e5f60718);
    EXPECT_EQ(id.to_string(), "vol-0a1b2c3d4e5f60718");
    EXPECT_EQ(VolumeId::parse("vol-0a1b2c3d4e5f60718"), id);
    for (const char* bad :
         {"", "vol-", "vol-1a1b2c3d4e5f60718", "vol-0a1b2c3d4e5f6071", "vol-0a1b2c3d4e5f607188",
          "vol-0A1b2c3d4e5f60718", "rep-0a1b2c3d4e5f60718", "vol-00000000000000000"})
        EXPECT_FALSE(VolumeId::parse(bad)) << bad;
    EXPECT_NE(VolumeId::random(), VolumeId::random());
}

TEST(Units, RangesAlignOutwards) {
    EXPECT_EQ(align_out(Range{513, 10}, 512), (Range{512, 512}));
    EXPECT_EQ(align_out(Range{0, 4097}, 4096), (Range{0, 8192}));
    EXPECT_TRUE((Range{0, 512}.overlaps(Range{511, 1})));
    EXPECT_FALSE((Range{0, 512}.overlaps(Range{512, 1})));
    EXPECT_EQ(divide_up(~0ULL, 2), 1ULL << 63);
}

TEST(Bytes, BigAndLittleEndianAreReadBack) {
    std::byte buffer[8];
    store_be<std::uint32_t>(buffer, 0x01020304);
    EXPECT_EQ(buffer[0], std::byte{1});
    EXPECT_EQ(load_be<std::uint32_t>(buffer), 0x01020304U);
    EXPECT_EQ(load_le<std::uint32_t>(buffer), 0x04030201U);
    EXPECT_TRUE(is_all_zero(std::vector<std::byte>(100)));
    EXPECT_TRUE(is_all_zero({}));
    std::vector<std::byte> last(100);
    last.back() = std::byte{1};
    EXPECT_FALSE(is_all_zero(last));
}

Result<int> half(int value) {
    if (value % 2 != 0) return fail(Errc::kInvalidArgument, "half of an odd number");
    return value / 2;
}
Result<int> quarter(int value) {
    int result = 0;
    TRY_ASSIGN(result, half(value));
    TRY(half(result));
    return half(result);
}

TEST(Result, TryPassesTheErrorOn) {
    EXPECT_EQ(*quarter(8), 2);
    const auto odd = quarter(6);
    ASSERT_FALSE(odd);
    EXPECT_EQ(to_string(odd.error()), "half of an odd number: invalid_argument");
    EXPECT_EQ(to_string(error_from_errno(ENOSPC, "write")),
              "write: no_space (No space left on device)");
}

TEST(CheckDeathTest, StopsTheProcessAndSaysWhy) {
    EXPECT_DEATH(CHECK(1 == 2, "sums"), "CHECK failed: 1 == 2: sums");
}

}  // namespace
}  // namespace ublkd
