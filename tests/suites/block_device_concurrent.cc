// Goal: requests that run side by side keep the contract: each sector behaves like a register that
// applies one request at a time, and is never torn. Method: workers write sectors stamped with ids
// of their own and read them; the history of each sector is then judged by the history checker's
// sector_check.h. Most requests hit a few pages, so that 512-byte writes inside one page,
// whole-page writes and large ones overlap all the time.
#include <algorithm>
#include <cstring>

#include "tests/history/sector_check.h"
#include "tests/suites/block_device_suite.h"

using namespace ublkd;
using history::SectorEvent;

namespace {

constexpr std::uint64_t kWordsPerSector = kSectorBytes / sizeof(std::uint64_t);

void stamp(std::span<std::byte> sector, std::uint64_t value) {
    for (std::uint64_t word = 0; word < kWordsPerSector; ++word)
        std::memcpy(sector.data() + word * sizeof value, &value, sizeof value);
}

/// The id a sector is stamped with, or UINT64_MAX where it is torn.
std::uint64_t stamp_of(std::span<const std::byte> sector) {
    std::uint64_t value = 0;
    std::memcpy(&value, sector.data(), sizeof value);
    for (std::uint64_t word = 1; word < kWordsPerSector; ++word) {
        if (std::memcmp(sector.data(), sector.data() + word * sizeof value, sizeof value) != 0)
            return UINT64_MAX;
    }
    return value;
}

struct Shared {
    io::Reactor* reactor = nullptr;
    block::BlockDevice* device = nullptr;
    std::uint64_t area_bytes = 0;  // requests stay within [0, area_bytes)
    std::uint64_t time = 0;
    std::uint64_t last_value = 0;
    bool with_zeroes = false;
    std::vector<std::vector<SectorEvent>> sectors;
    std::vector<std::string> errors;

    void note_one(std::uint64_t sector, bool write, std::uint64_t value, std::uint64_t start,
                  std::uint64_t end) {
        std::vector<SectorEvent>& events = sectors[sector];
        events.push_back(SectorEvent{.write = write,
                                     .durable = false,
                                     .value = value,
                                     .begin = start,
                                     .end = end,
                                     .operation = static_cast<std::uint32_t>(events.size())});
    }
    void note(Range range, bool write, std::uint64_t value, std::uint64_t start,
              std::uint64_t end) {
        for (std::uint64_t at = range.offset_bytes; at < range.end_bytes(); at += kSectorBytes)
            note_one(at / kSectorBytes, write, value, start, end);
    }
};

std::string text_of(const SectorEvent& event) {
    return std::string(event.write ? "the write of " : "a read of ") + std::to_string(event.value) +
           " from " + std::to_string(event.begin) + " to " + std::to_string(event.end);
}

Range draw(suites::Random& random, std::uint64_t area_bytes) {
    const std::uint64_t sectors_of_area = area_bytes / kSectorBytes;
    std::uint64_t sectors = 1;
    switch (random.between(0, 3)) {
        case 0:
            sectors = 8;
            break;
        case 1:
            sectors = random.between(1, 24);
            break;
        default:
            break;
    }
    sectors = std::min(sectors, sectors_of_area);
    return Range{random.between(0, sectors_of_area - sectors) * kSectorBytes,
                 sectors * kSectorBytes};
}

io::Task<void> read_once(Shared* shared, Range range) {
    std::vector<std::byte> data(range.length_bytes);
    const std::uint64_t start = ++shared->time;
    const auto result = co_await shared->device->read(range.offset_bytes, data);
    const std::uint64_t end = ++shared->time;
    if (!result) {
        shared->errors.push_back(to_string(result.error()));
        co_return;
    }
    for (std::uint64_t at = 0; at < range.length_bytes; at += kSectorBytes) {
        const std::uint64_t value = stamp_of(std::span(data).subspan(at, kSectorBytes));
        if (value == UINT64_MAX) {
            shared->errors.push_back("torn sector " +
                                     std::to_string((range.offset_bytes + at) / kSectorBytes));
            continue;
        }
        shared->note_one((range.offset_bytes + at) / kSectorBytes, false, value, start, end);
    }
}

io::Task<void> write_once(Shared* shared, Range range, bool fua) {
    std::vector<std::byte> data(range.length_bytes);
    const std::uint64_t value = ++shared->last_value;
    for (std::uint64_t at = 0; at < range.length_bytes; at += kSectorBytes)
        stamp(std::span(data).subspan(at, kSectorBytes), value);
    block::WriteOptions options;
    options.fua = fua;
    const std::uint64_t start = ++shared->time;
    const auto result = co_await shared->device->write(range.offset_bytes, data, options);
    const std::uint64_t end = ++shared->time;
    if (!result) shared->errors.push_back(to_string(result.error()));
    shared->note(range, true, value, start, result ? end : UINT64_MAX);
}

io::Task<void> worker(Shared* shared, std::uint64_t number, int requests) {
    suites::Random random(1000 + number);
    for (int i = 0; i < requests; ++i) {
        const Range range = draw(random, shared->area_bytes);
        switch (random.between(0, 9)) {
            case 0:
            case 1:
            case 2: {
                co_await read_once(shared, range);
                break;
            }
            case 3: {
                const auto result = co_await shared->device->flush();
                if (!result) shared->errors.push_back(to_string(result.error()));
                break;
            }
            default: {
                co_await write_once(shared, range, random.one_in(10));
                break;
            }
        }
    }
}

io::Task<void> run_workers(Shared* shared, std::uint64_t workers, int requests) {
    io::TaskGroup group;
    for (std::uint64_t i = 0; i < workers; ++i) group.start(worker(shared, i, requests));
    co_await group.wait();
    for (int again = 0; again < 2; ++again) {  // both reads of what is left must agree
        for (std::uint64_t at = 0; at < shared->area_bytes; at += kPageBytes) {
            co_await read_once(shared, Range{at, kPageBytes});
        }
    }
}

/// Writers of whole pages with zeroing in the same pages: a sector holds what somebody wrote there,
/// or zeroes.
io::Task<void> zero_worker(Shared* shared, std::uint64_t number, int requests) {
    suites::Random random(2000 + number);
    for (int i = 0; i < requests; ++i) {
        const Range range = draw(random, shared->area_bytes);
        const std::uint64_t kind = random.between(0, 3);
        Result<void> result;
        if (kind == 0) {
            result = co_await shared->device->discard(range, block::WriteOptions{});
        } else if (kind == 1) {
            result = co_await shared->device->write_zeroes(range, block::ZeroOptions{});
        } else {
            co_await write_once(shared, range, false);
        }
        if (!result) shared->errors.push_back(to_string(result.error()));
    }
}

io::Task<void> run_zero_workers(Shared* shared, std::uint64_t workers, int requests) {
    io::TaskGroup group;
    for (std::uint64_t i = 0; i < workers; ++i) group.start(zero_worker(shared, i, requests));
    co_await group.wait();
}

}  // namespace

TEST_P(BlockDeviceSuite, OverlappingRequestsBehaveAsOneAtATimePerSector) {
    Shared shared;
    shared.reactor = reactor_.get();
    shared.device = device_;
    shared.area_bytes = 4 * kPageBytes;
    shared.sectors.resize(shared.area_bytes / kSectorBytes);
    run(run_workers(&shared, 16, 60));
    EXPECT_TRUE(shared.errors.empty()) << shared.errors.front() << "; " << suites::seed_text();
    for (std::size_t sector = 0; sector < shared.sectors.size(); ++sector) {
        const std::vector<SectorEvent>& events = shared.sectors[sector];
        const auto found = history::check_sector(events);
        EXPECT_FALSE(found.has_value())
            << "sector " << sector << ": " << text_of(events[found->earlier]) << " contradicts "
            << text_of(events[found->later]) << "; " << suites::seed_text();
    }
}

TEST_P(BlockDeviceSuite, ZeroingBesideWritesLeavesNeighboursWhole) {
    Shared shared;
    shared.reactor = reactor_.get();
    shared.device = device_;
    shared.area_bytes = 3 * kDirtyUnitBytes;
    shared.sectors.resize(shared.area_bytes / kSectorBytes);
    ASSERT_TRUE(write(shared.area_bytes, new_data(kPageBytes)));  // must stay
    run(run_zero_workers(&shared, 12, 60));
    EXPECT_TRUE(shared.errors.empty()) << shared.errors.front() << "; " << suites::seed_text();
    std::vector<std::byte> seen(shared.area_bytes);
    ASSERT_TRUE(read(0, seen));
    for (std::size_t sector = 0; sector < shared.sectors.size(); ++sector) {
        const std::uint64_t value =
            stamp_of(std::span(seen).subspan(sector * kSectorBytes, kSectorBytes));
        const auto& events = shared.sectors[sector];
        EXPECT_TRUE(value == 0 ||
                    std::any_of(events.begin(), events.end(),
                                [&](const SectorEvent& event) { return event.value == value; }))
            << "sector " << sector << " holds " << value << "; " << suites::seed_text();
    }
    expect_range(Range{shared.area_bytes, kPageBytes});
    std::memcpy(model_.data(), seen.data(), seen.size());
    expect_status_honest(9);
    if (HasFatalFailure() || !reopen()) return;
    expect_all();
}

TEST_P(BlockDeviceSuite, ManyLargeRequestsAtOnceWaitForBuffersAndAllComplete) {
    // 40 x 512 KiB is more than twice the buffers there are.
    std::vector<std::vector<std::byte>> data(40);
    struct Local {
        static io::Task<void> one(block::BlockDevice* device, std::uint64_t offset,
                                  const std::vector<std::byte>* bytes, int* failures) {
            const auto result = co_await device->write(offset, *bytes, block::WriteOptions{});
            if (!result) ++*failures;
        }
        static io::Task<void> all(block::BlockDevice* device,
                                  std::vector<std::vector<std::byte>>* data, int* failures) {
            io::TaskGroup group;
            for (std::size_t i = 0; i < data->size(); ++i)
                group.start(one(device, i % 16 * kMaxIoBytes + i % 2 * kSectorBytes, &(*data)[i],
                                failures));
            co_await group.wait();
        }
    };
    for (std::size_t i = 0; i < data.size(); ++i) {
        // The same content for requests that overlap, so that the model knows the end.
        data[i].resize(kMaxIoBytes);
        for (std::uint64_t at = 0; at < kMaxIoBytes; at += 8) {
            const std::uint64_t word = (i % 16 * kMaxIoBytes + i % 2 * kSectorBytes + at) | 1;
            std::memcpy(data[i].data() + at, &word, sizeof word);
        }
        std::memcpy(model_.data() + i % 16 * kMaxIoBytes + i % 2 * kSectorBytes, data[i].data(),
                    kMaxIoBytes);
    }
    int failures = 0;
    run(Local::all(device_, &data, &failures));
    EXPECT_EQ(failures, 0);
    expect_all();
}
