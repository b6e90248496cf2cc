// Goal: what a power cut leaves of a replica at any moment keeps the store's contract
// (store_history.h), and each rule of the store is needed for that. Method: random work over a disk
// that records what is issued and what is durable (recorded_disk.h); the image of each moment, with
// all, none and random parts of what was not durable, is opened and compared. With a rule switched
// off the same search must find a violation. UBLKD_SEED sets the first seed; each failure names the
// seed and the moment.
#include <fmt/core.h>

#include "tests/crash/store_workload.h"
#include "tests/suites/seed.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::crash {
namespace {

struct Search {
    std::uint64_t first_seed = 0;
    std::uint64_t seeds = 1;
    bool no_seek = false;
    bool no_punch = false;
    bool fail_one_sync = false;
    std::uint64_t images = 0;  // how many were checked
};

class StoreCrash : public ::testing::Test {
  protected:
    void TearDown() override { faults::disarm_all(); }

    /// The first violation, or "" where there is none. A rule that is off is on again while images
    /// are opened.
    std::string search(Search& search, const char* faults = "") {
        for (std::uint64_t seed = search.first_seed; seed < search.first_seed + search.seeds;
             ++seed) {
            RecordedDisk disk(seed);
            if (search.no_punch) disk.set_no_punch();
            StoreWorkload work(reactor_.get(), buffers_.get(), &disk, seed);
            if (search.fail_one_sync) work.fail_one_sync();
            EXPECT_TRUE(faults::arm(faults));
            work.run();
            faults::disarm_all();
            EXPECT_EQ(work.failures() == 0, !search.fail_one_sync || faults[0] != '\0');
            auto wrong = search_moments(search, disk, work.history(), seed);
            if (!wrong.empty()) return wrong;
        }
        return "";
    }

    std::unique_ptr<io::Reactor> reactor_ = std::move(*io::Reactor::create());
    std::unique_ptr<io::BufferPool> buffers_ = std::move(*io::BufferPool::create(4 * kMiB));

  private:
    std::string search_moments(Search& search, RecordedDisk& disk, const StoreHistory& history,
                               std::uint64_t seed) {
        constexpr RecordedDisk::Loss kLosses[] = {
            RecordedDisk::Loss::kAll, RecordedDisk::Loss::kNone, RecordedDisk::Loss::kRandom,
            RecordedDisk::Loss::kRandom};
        for (std::size_t moment = 0; moment <= disk.moment(); ++moment) {
            for (const RecordedDisk::Loss loss : kLosses) {
                ++search.images;
                auto wrong =
                    check_image(reactor_.get(), buffers_.get(), disk.image_at(moment, loss),
                                history, moment, search.no_seek);
                if (!wrong.empty())
                    return fmt::format("seed {}, moment {}: {}", seed, moment, wrong);
            }
        }
        return "";
    }
};

TEST_F(StoreCrash, EachImageOfAPowerCutKeepsTheContract) {
    Search work{.first_seed = suites::test_seed() % 1000000, .seeds = 8};
    EXPECT_EQ(search(work), "");
    EXPECT_GT(work.images, 1000U);
}

TEST_F(StoreCrash, KeepsTheContractWhereTheFileSystemCannotTellHolesFromDataOrMakeThem) {
    Search work{
        .first_seed = suites::test_seed() % 1000000, .seeds = 4, .no_seek = true, .no_punch = true};
    EXPECT_EQ(search(work), "");
}

TEST_F(StoreCrash, AFailedFlushPutsTheReplicaOutAndNothingIsAcknowledgedFromThen) {
    Search work{.first_seed = suites::test_seed() % 1000000, .seeds = 4, .fail_one_sync = true};
    EXPECT_EQ(search(work), "");
}

/// Each rule is needed: without it the search finds a violation.
class StoreRule : public StoreCrash, public ::testing::WithParamInterface<const char*> {};

TEST_P(StoreRule, SwitchedOffIsFoundByTheSearch) {
    Search work{.first_seed = 1, .seeds = 40};
    const auto wrong = search(work, (std::string("rule.") + GetParam() + "=off").c_str());
    EXPECT_NE(wrong, "") << "the search finds nothing in " << work.images
                         << " images without this rule";
    RecordProperty("found", wrong);
}

INSTANTIATE_TEST_SUITE_P(Rules, StoreRule,
                         ::testing::Values("activity_bit_first", "allocated_before_clear",
                                           "clear_after_flush", "clean_mark_first", "page_lock",
                                           "zero_lock", "flush_starts_after", "flush_to_disk",
                                           "superblock_alternate"),
                         [](const auto& rule) { return std::string(rule.param); });

TEST_F(StoreCrash, RuleClearAsOfCallSwitchedOffIsFoundByTheSearch) {
    Search work{.first_seed = 850799, .seeds = 1};  // about one seed of 70 meets it
    EXPECT_NE(search(work, "rule.clear_as_of_call=off"), "");
}

TEST_F(StoreCrash, RuleFsyncOnceSwitchedOffIsFoundByTheSearch) {
    Search work{.first_seed = 1, .seeds = 10, .fail_one_sync = true};
    EXPECT_NE(search(work, "rule.fsync_once=off"), "");
}

}  // namespace
}  // namespace ublkd::crash
