// Goal: every promise of BlockDevice that does not need a crash. Method: the same requests on a
// model in memory.
#include "tests/suites/block_device_suite.h"

#include <algorithm>
#include <cstring>

using namespace ublkd;
using block::BlockDevice;
using block::Extent;
using block::WriteOptions;
using block::ZeroOptions;

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BlockDeviceSuite);

// ---- the fixture

void BlockDeviceSuite::SetUp() {
    auto reactor = io::Reactor::create(io::ReactorOptions{.entries = 256, .registered_files = 64});
    ASSERT_TRUE(reactor) << to_string(reactor.error());
    reactor_ = std::move(*reactor);
    auto buffers = io::BufferPool::create(8 * kMiB);
    ASSERT_TRUE(buffers) << to_string(buffers.error());
    buffers_ = std::move(*buffers);
    subject_ = GetParam().make();
    const auto made = run(subject_->make(reactor_.get(), buffers_.get(), kSizeBytes));
    ASSERT_TRUE(made) << to_string(made.error());
    device_ = *made;
    ASSERT_EQ(device_->geometry().size_bytes, kSizeBytes);
    model_.assign(kSizeBytes, std::byte{0});
    memory_.resize(2 * kMaxIoBytes);
    RecordProperty("seed", std::to_string(suites::test_seed()));
}

void BlockDeviceSuite::TearDown() {
    if (subject_) run(subject_->close());
    subject_.reset();
    buffers_.reset();
    reactor_.reset();
}

Result<void> BlockDeviceSuite::read(std::uint64_t offset_bytes, std::span<std::byte> into) {
    return run(device_->read(offset_bytes, into));
}

Result<void> BlockDeviceSuite::write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                     bool fua) {
    auto result = run(device_->write(offset_bytes, data, WriteOptions{.fua = fua, .id = {}}));
    if (result) std::memcpy(model_.data() + offset_bytes, data.data(), data.size());
    return result;
}

Result<void> BlockDeviceSuite::discard(Range range, bool fua) {
    auto result = run(device_->discard(range, WriteOptions{.fua = fua, .id = {}}));
    if (result) std::memset(model_.data() + range.offset_bytes, 0, range.length_bytes);
    return result;
}

Result<void> BlockDeviceSuite::write_zeroes(Range range, ZeroOptions options) {
    auto result = run(device_->write_zeroes(range, options));
    if (result) std::memset(model_.data() + range.offset_bytes, 0, range.length_bytes);
    return result;
}

Result<void> BlockDeviceSuite::flush() { return run(device_->flush()); }

bool BlockDeviceSuite::reopen(bool read_only) {
    const auto opened = run(subject_->reopen(read_only));
    if (!opened && opened.error().code == Errc::kUnsupported) return false;
    EXPECT_TRUE(opened) << to_string(opened.error());
    if (!opened) return false;
    device_ = *opened;
    EXPECT_EQ(device_->geometry().read_only, read_only);
    return true;
}

std::span<const std::byte> BlockDeviceSuite::new_data(std::size_t length_bytes,
                                                      std::size_t memory_offset) {
    ++writes_;
    const std::span<std::byte> data = std::span(memory_).subspan(memory_offset, length_bytes);
    for (std::size_t at = 0; at < length_bytes; at += sizeof(std::uint64_t)) {
        const std::uint64_t word = (writes_ << 32) + at + 1;
        std::memcpy(data.data() + at, &word, sizeof word);
    }
    return data;
}

void BlockDeviceSuite::expect_range(Range range) {
    std::vector<std::byte> seen(kMaxIoBytes);
    const std::uint64_t step =
        std::min<std::uint64_t>(kMaxIoBytes, device_->geometry().max_io_bytes);
    for (std::uint64_t at = range.offset_bytes; at < range.end_bytes(); at += step) {
        const std::span<std::byte> part =
            std::span(seen).first(std::min(step, range.end_bytes() - at));
        const auto result = read(at, part);
        ASSERT_TRUE(result) << to_string(result.error()) << " at " << at;
        if (std::memcmp(part.data(), model_.data() + at, part.size()) == 0) continue;
        const auto differs = std::mismatch(part.begin(), part.end(),
                                           model_.begin() + static_cast<std::ptrdiff_t>(at));
        const auto where = at + static_cast<std::uint64_t>(differs.first - part.begin());
        FAIL() << "byte " << where << " (sector " << where / kSectorBytes << ") is "
               << std::to_integer<int>(*differs.first) << ", should be "
               << std::to_integer<int>(*differs.second) << "; " << suites::seed_text();
    }
}

void BlockDeviceSuite::expect_status_honest(std::size_t max_extents) {
    std::uint64_t at = 0;
    while (at < kSizeBytes) {
        const auto extents = run(device_->block_status(Range{at, kSizeBytes - at}, max_extents));
        ASSERT_TRUE(extents) << to_string(extents.error());
        ASSERT_GE(extents->size(), 1U);
        ASSERT_LE(extents->size(), max_extents);
        for (const Extent& extent : *extents) {
            ASSERT_GT(extent.length_bytes, 0U);
            ASSERT_LE(extent.length_bytes, kSizeBytes - at);
            ASSERT_TRUE(is_aligned(extent.length_bytes, kSectorBytes));
            const auto content = std::span(model_).subspan(at, extent.length_bytes);
            if (!extent.allocated || extent.zero) {
                ASSERT_TRUE(is_all_zero(content))
                    << "data in [" << at << ", +" << extent.length_bytes
                    << ") is called a hole or zero; " << suites::seed_text();
            }
            at += extent.length_bytes;
        }
    }
}

Range BlockDeviceSuite::random_range(std::uint64_t max_bytes) {
    // Sizes by order of magnitude, so that small and large ones both occur; half of the offsets
    // near a boundary.
    const std::uint64_t sectors_max = std::min(max_bytes, kSizeBytes) / kSectorBytes;
    std::uint64_t sectors = std::uint64_t{1} << random_.between(0, 14);
    sectors =
        std::min(random_.between(std::max<std::uint64_t>(1, sectors / 2), sectors), sectors_max);
    std::uint64_t first = random_.between(0, kSizeBytes / kSectorBytes - sectors);
    if (random_.one_in(2)) first = std::min(align_down(first, 8) + random_.between(0, 1), first);
    return Range{first * kSectorBytes, sectors * kSectorBytes};
}

// ---- one request after another

TEST_P(BlockDeviceSuite, NewDeviceReadsAsZeroes) {
    expect_all();
    expect_status_honest(16);
    EXPECT_TRUE(flush());
    EXPECT_TRUE(
        is_aligned(device().geometry().size_bytes, device().geometry().logical_block_bytes));
    EXPECT_GE(device().geometry().max_io_bytes, kPageBytes);
}

TEST_P(BlockDeviceSuite, EachSizeAtEachAlignmentReadsBackAsWritten) {
    const std::uint64_t base =
        kRegionBytes - kDirtyUnitBytes;  // crosses page, unit, block and region boundaries
    for (std::uint64_t length = kSectorBytes; length <= device().geometry().max_io_bytes;
         length *= 2) {
        for (std::uint64_t sector = 0; sector < 9; ++sector) {
            for (const std::uint64_t ragged : {std::uint64_t{0}, std::uint64_t{kSectorBytes}}) {
                if (length + ragged > device().geometry().max_io_bytes) continue;
                const std::uint64_t offset = base + sector * kSectorBytes;
                const auto result = write(offset, new_data(length + ragged));
                ASSERT_TRUE(result)
                    << to_string(result.error()) << " " << length << " at " << offset;
                expect_range(Range{offset - kPageBytes, length + ragged + 2 * kPageBytes});
                if (HasFatalFailure()) return;
            }
        }
    }
    expect_all();
}

TEST_P(BlockDeviceSuite, MemoryOfTheCallerMayHaveAnyAlignment) {
    std::vector<std::byte> into(kMaxIoBytes + 4096);
    for (const std::size_t memory_offset : {0U, 1U, 8U, 28U, 511U, 512U, 4095U}) {
        for (const std::size_t length :
             {std::size_t{512}, std::size_t{4096}, std::size_t{5 * 512}, std::size_t{65536}}) {
            const auto data = new_data(length, memory_offset);
            ASSERT_TRUE(write(kPageBytes, data));
            const auto target = std::span(into).subspan(memory_offset, length);
            ASSERT_TRUE(read(kPageBytes, target));
            ASSERT_EQ(std::memcmp(target.data(), data.data(), length), 0)
                << memory_offset << " " << length;
        }
    }
}

TEST_P(BlockDeviceSuite, FirstAndLastSectorAreUsable) {
    ASSERT_TRUE(write(0, new_data(kSectorBytes)));
    ASSERT_TRUE(write(kSizeBytes - kSectorBytes, new_data(kSectorBytes)));
    ASSERT_TRUE(write(kSizeBytes - kMaxIoBytes, new_data(kMaxIoBytes - kSectorBytes)));
    expect_all();
    ASSERT_TRUE(discard(Range{kSizeBytes - kSectorBytes, kSectorBytes}));
    ASSERT_TRUE(write_zeroes(Range{0, kSectorBytes}, {}));
    expect_all();
    expect_status_honest(16);
}

TEST_P(BlockDeviceSuite, RandomRequestsMatchTheModel) {
    for (int step = 0; step < 400; ++step) {
        const Range range = random_range(device().geometry().max_io_bytes);
        Result<void> result;
        switch (random().between(0, 9)) {
            case 0:
                result = discard(random_range(kSizeBytes), random().one_in(4));
                break;
            case 1:
                result = write_zeroes(random_range(kSizeBytes),
                                      ZeroOptions{.fua = random().one_in(4),
                                                  .keep_allocated = random().one_in(2),
                                                  .fast_only = false,
                                                  .id = {}});
                break;
            case 2:
                result = flush();
                break;
            case 3:
                expect_range(range);
                break;
            default:
                result = write(range.offset_bytes,
                               new_data(range.length_bytes, random().between(0, 4096)),
                               random().one_in(8));
        }
        ASSERT_TRUE(result) << to_string(result.error()) << " step " << step << "; "
                            << suites::seed_text();
        if (HasFatalFailure()) return;
    }
    expect_all();
    expect_status_honest(3);
    if (HasFatalFailure() || !reopen()) return;
    expect_all();
    expect_status_honest(64);
}

TEST_P(BlockDeviceSuite, DiscardedAndZeroedRangesReadAsZeroesWithRaggedEdges) {
    const std::uint64_t edges[] = {0,
                                   512,
                                   4096,
                                   4096 + 512,
                                   65536 - 512,
                                   65536,
                                   65536 + 4096,
                                   2 * 65536 - 4096,
                                   512 * 1024,
                                   kRegionBytes - 512,
                                   kRegionBytes + 512,
                                   kSizeBytes};
    int turn = 0;
    for (const std::uint64_t begin : edges) {
        for (const std::uint64_t end : edges) {
            if (begin >= end) continue;
            // Data around both edges, so that what must stay is seen to stay.
            for (const std::uint64_t edge : {begin, end}) {
                const std::uint64_t from = edge < kPageBytes ? 0 : edge - kPageBytes;
                const std::uint64_t to = std::min(edge + kPageBytes, kSizeBytes);
                ASSERT_TRUE(write(from, new_data(to - from)));
            }
            const Range range{begin, end - begin};
            const auto result =
                ++turn % 2 == 0 ? discard(range)
                                : write_zeroes(range, ZeroOptions{.fua = turn % 3 == 0,
                                                                  .keep_allocated = turn % 5 == 0,
                                                                  .fast_only = false,
                                                                  .id = {}});
            ASSERT_TRUE(result) << to_string(result.error()) << " [" << begin << ", " << end << ")";
            for (const std::uint64_t edge : {begin, end}) {
                const std::uint64_t from = edge < kPageBytes ? 0 : edge - kPageBytes;
                expect_range(Range{from, std::min(edge + kPageBytes, kSizeBytes) - from});
            }
            if (HasFatalFailure()) return;
        }
    }
    expect_all();
    expect_status_honest(16);
    if (HasFatalFailure() || !reopen()) return;
    expect_all();
}

TEST_P(BlockDeviceSuite, FastZeroesEitherWorkOrChangeNothing) {
    ASSERT_TRUE(write(0, new_data(4 * kDirtyUnitBytes)));
    for (const Range range :
         {Range{kDirtyUnitBytes, kDirtyUnitBytes}, Range{512, 1024}, Range{4096, 4096}}) {
        const auto result = write_zeroes(
            range, ZeroOptions{.fua = false, .keep_allocated = false, .fast_only = true, .id = {}});
        EXPECT_TRUE(result || result.error().code == Errc::kUnsupported);
        expect_all();
        if (HasFatalFailure()) return;
    }
}

TEST_P(BlockDeviceSuite, BlockStatusNeverCallsDataAHole) {
    for (int i = 0; i < 24; ++i) {
        const Range range = random_range(kPageBytes * 4);
        ASSERT_TRUE(write(range.offset_bytes, new_data(range.length_bytes)));
        if (i % 3 == 0) {
            ASSERT_TRUE(discard(random_range(kMiB)));
        }
    }
    for (const std::size_t max_extents : {1U, 2U, 7U, 1000U}) {
        expect_status_honest(max_extents);
        if (HasFatalFailure()) return;
    }
    const auto inside = run(device().block_status(Range{kSectorBytes, 3 * kSectorBytes}, 4));
    ASSERT_TRUE(inside);
    std::uint64_t covered = 0;
    for (const Extent& extent : *inside) covered += extent.length_bytes;
    EXPECT_LE(covered, 3 * kSectorBytes);
    if (!reopen()) return;
    expect_status_honest(5);
}

TEST_P(BlockDeviceSuite, FlushAndFuaSucceedAndDataStays) {
    ASSERT_TRUE(write(kPageBytes, new_data(kPageBytes), true));
    ASSERT_TRUE(flush());
    ASSERT_TRUE(write(kPageBytes + 512, new_data(512), true));
    ASSERT_TRUE(discard(Range{kPageBytes + 1024, 512}, true));
    ASSERT_TRUE(flush());
    ASSERT_TRUE(flush());
    expect_all();
    if (HasFatalFailure() || !reopen()) return;
    expect_all();
}

TEST_P(BlockDeviceSuite, BadRequestsAreRefusedAndChangeNothing) {
    ASSERT_TRUE(write(0, new_data(kMaxIoBytes)));
    ASSERT_TRUE(write(kSizeBytes - kMaxIoBytes, new_data(kMaxIoBytes)));
    const std::uint64_t max_io = device().geometry().max_io_bytes;
    const std::uint64_t max_range = device().geometry().max_range_bytes;
    std::vector<std::byte> bytes(max_io + kSectorBytes, std::byte{0xee});
    const Range bad[] = {{0, 0},
                         {kSectorBytes, 0},
                         {1, kSectorBytes},
                         {0, kSectorBytes - 1},
                         {0, kSectorBytes + 1},
                         {511, 512},
                         {kSizeBytes, kSectorBytes},
                         {kSizeBytes - kSectorBytes, 2 * kSectorBytes},
                         {kSizeBytes + kMiB, kSectorBytes},
                         {UINT64_MAX - 511, kSectorBytes},
                         {UINT64_MAX - 511, 1024}};
    const auto refused = [](const Result<void>& result, Range range) {
        EXPECT_FALSE(result) << range.offset_bytes << "+" << range.length_bytes;
        if (!result) {
            EXPECT_EQ(result.error().code, Errc::kInvalidArgument) << to_string(result.error());
        }
    };
    for (const Range range : bad) {
        refused(run(device().read(range.offset_bytes, std::span(bytes).first(range.length_bytes))),
                range);
        refused(
            run(device().write(range.offset_bytes, std::span(bytes).first(range.length_bytes), {})),
            range);
        refused(run(device().discard(range, {})), range);
        refused(run(device().write_zeroes(range, {})), range);
        const auto status = run(device().block_status(range, 4));
        EXPECT_FALSE(status) << range.offset_bytes << "+" << range.length_bytes;
    }
    const Range large{0, max_io + kSectorBytes};
    refused(run(device().read(0, std::span(bytes).first(large.length_bytes))), large);
    refused(run(device().write(0, std::span(bytes).first(large.length_bytes), {})), large);
    const Range too_large{0, max_range + kSectorBytes};
    refused(run(device().discard(too_large, {})), too_large);
    refused(run(device().write_zeroes(too_large, {})), too_large);
    expect_all();
}

TEST_P(BlockDeviceSuite, ReadOnlyDeviceRefusesEachChange) {
    ASSERT_TRUE(write(kPageBytes, new_data(3 * kPageBytes)));
    ASSERT_TRUE(flush());
    if (!reopen(true)) return;  // never read-only
    const auto refused = [](const Result<void>& result) {
        EXPECT_FALSE(result);
        if (!result) {
            EXPECT_EQ(result.error().code, Errc::kReadOnly) << to_string(result.error());
        }
    };
    std::vector<std::byte> bytes(kPageBytes, std::byte{0xee});
    refused(run(device().write(kPageBytes, bytes, {})));
    refused(run(device().discard(Range{kPageBytes, kPageBytes}, {})));
    refused(run(device().write_zeroes(Range{kPageBytes, kPageBytes}, {})));
    EXPECT_TRUE(flush());
    expect_all();
}

TEST_P(BlockDeviceSuite, DataIsIntactAfterEachReopen) {
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 12; ++i) {
            const Range range = random_range(device().geometry().max_io_bytes);
            ASSERT_TRUE(write(range.offset_bytes, new_data(range.length_bytes)));
            if (i % 4 == 0) {
                ASSERT_TRUE(discard(random_range(kMiB)));
            }
        }
        if (!reopen()) return;  // keeps nothing
        expect_all();
        expect_status_honest(32);
        if (HasFatalFailure()) return;
    }
}
