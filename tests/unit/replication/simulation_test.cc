// Goal: the core keeps its promises in any order of events. Method: seeded runs of simulation.h,
// with each kind of fault and with all of them; a failing run prints its seed, and --gtest_filter
// with SEED in the environment runs that one alone.
#include "tests/unit/replication/simulation.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "ublkd/base/fault_injection.h"

namespace ublkd::test {
namespace {

void expect_clean(const SimulationOptions& options, std::uint64_t seeds) {
    std::uint64_t first = 1;
    if (const char* const seed = std::getenv("SEED"); seed != nullptr) {
        first = std::strtoull(seed, nullptr, 10);
        seeds = 1;
    }
#ifdef __SANITIZE_ADDRESS__
    seeds = seeds / 4;  // slower there, and the same runs
#endif
    // SEEDS=20: twenty times as many, for a long look.
    if (const char* const factor = std::getenv("SEEDS"); factor != nullptr)
        seeds *= std::strtoull(factor, nullptr, 10);
    Simulation::Counts sum;
    for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
        Simulation simulation(options, seed);
        const std::string wrong = simulation.run();
        ASSERT_EQ(wrong, "") << "SEED=" << seed;
        sum.answered += simulation.counts().answered;
        sum.deaths += simulation.counts().deaths;
        sum.power_cuts += simulation.counts().power_cuts;
        sum.joins += simulation.counts().joins;
        sum.losses += simulation.counts().losses;
    }
    std::printf(
        "%llu runs: %llu answers, %llu deaths (%llu power cuts), %llu members lost, %llu joined\n",
        static_cast<unsigned long long>(seeds), static_cast<unsigned long long>(sum.answered),
        static_cast<unsigned long long>(sum.deaths),
        static_cast<unsigned long long>(sum.power_cuts),
        static_cast<unsigned long long>(sum.losses), static_cast<unsigned long long>(sum.joins));
    EXPECT_GT(sum.answered, seeds);
    // A run without the fault that it is for shows nothing.
    if (seeds > 20) {
        EXPECT_EQ(sum.deaths > 0, options.kill + options.power_cut + options.stop_halfway > 0);
        EXPECT_EQ(sum.joins > 0, options.add > 0);
        if (options.fail_disk == 0 && options.stop_halfway == 0) {
            EXPECT_EQ(sum.losses,
                      0U);  // nobody leaves for a full disk, a death or a power cut of all
        }
    }
}

/// The seeds it takes until a run with `rule` switched off goes wrong; 0: none did.
/// `first`: where to begin, for rules whose violations are rare (it keeps this test short, and is
/// no more than that).
std::uint64_t seeds_until_caught(const SimulationOptions& options, const std::string& rule,
                                 std::uint64_t seeds, std::uint64_t first = 1) {
    EXPECT_TRUE(faults::arm(rule + "=off"));
    std::uint64_t caught = 0;
    for (std::uint64_t seed = first; seed < first + seeds && caught == 0; ++seed) {
        Simulation simulation(options, seed);
        if (const std::string wrong = simulation.run(); !wrong.empty()) {
            std::printf("%s: caught by seed %llu: %s\n", rule.c_str(),
                        static_cast<unsigned long long>(seed), wrong.c_str());
            caught = seed;
        }
    }
    faults::disarm_all();
    return caught;
}

TEST(ReplicationSimulation, ShuffledMessagesAndDisks) { expect_clean({.spares = 0}, 100); }
TEST(ReplicationSimulation, ThreeMembers) { expect_clean({.members = 3, .spares = 0}, 80); }
TEST(ReplicationSimulation, ProcessDeaths) { expect_clean({.spares = 0, .kill = 400}, 200); }
TEST(ReplicationSimulation, PowerCuts) { expect_clean({.spares = 0, .power_cut = 700}, 200); }
TEST(ReplicationSimulation, StopsThatThePowerCutsShort) {
    expect_clean({.spares = 0, .kill = 2000, .power_cut = 3000, .stop_halfway = 30, .add = 200},
                 200);
}
TEST(ReplicationSimulation, FailingDisks) { expect_clean({.spares = 0, .fail_disk = 800}, 200); }
TEST(ReplicationSimulation, JoiningReplicas) {
    expect_clean({.members = 1, .spares = 2, .add = 300}, 200);
}
TEST(ReplicationSimulation, FullDisksWhereWritesWait) {
    expect_clean({.spares = 0, .fill_disk = 150}, 200);
}
TEST(ReplicationSimulation, FullDisksWhereWritesFail) {
    expect_clean({.spares = 0, .fill_disk = 150, .wait_on_full = false}, 200);
}
TEST(ReplicationSimulation, UnreadableSectors) {
    expect_clean({.spares = 0, .unreadable = true}, 200);
}
TEST(ReplicationSimulation, GuestThatChangesItsPage) {
    expect_clean({.spares = 0, .scribble = true}, 200);
}
TEST(ReplicationSimulation, Everything) {
    expect_clean(
        {.members = 2, .spares = 2, .kill = 700, .fail_disk = 1500, .add = 250, .fill_disk = 400},
        250);
}
TEST(ReplicationSimulation, EverythingWithPowerCuts) {
    expect_clean(
        {.members = 2, .spares = 2, .kill = 1200, .power_cut = 1500, .fail_disk = 2500, .add = 250},
        250);
}
TEST(ReplicationSimulation, EverythingWithThreeMembers) {
    expect_clean(
        {.members = 3, .spares = 1, .kill = 900, .power_cut = 2500, .fail_disk = 1500, .add = 300},
        200);
}

// ---- each rule, off

TEST(ReplicationRules, R2_AcknowledgedEarlyIsCaught) {
    EXPECT_NE(
        seeds_until_caught({.spares = 0, .kill = 150, .fail_disk = 150}, "rule.ack_all", 3000), 0U);
}
TEST(ReplicationRules, R3_NoRangeLockIsCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0}, "rule.range_lock", 200), 0U);
}
TEST(ReplicationRules, R4_ProposalNotStoredFirstIsCaught) {
    EXPECT_NE(
        seeds_until_caught({.members = 1, .spares = 2, .kill = 400, .fail_disk = 900, .add = 150},
                           "rule.pending_first", 5000, 250),
        0U);
}
TEST(ReplicationRules, R7_NoUnionCopyIsCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0, .kill = 400}, "rule.union_copy", 200), 0U);
}
TEST(ReplicationRules, R8_NoRetryIdsIsCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0, .kill = 100}, "rule.retry_ids", 3000, 540), 0U);
}
TEST(ReplicationRules, R8_IdsThatOutliveTheirDataAreCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0, .kill = 300}, "rule.ids_agree", 3000), 0U);
}
TEST(ReplicationRules, R10_BitsClearedBeforeTheirWritesAreDurableAreCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0, .power_cut = 900}, "rule.bits_durable", 1000), 0U);
}
TEST(ReplicationRules, R12_CopyWithoutARangeLockIsCaught) {
    EXPECT_NE(seeds_until_caught({.members = 1, .spares = 2, .add = 150}, "rule.copy_lock", 500),
              0U);
}
TEST(ReplicationRules, R13_NoPrivateCopyIsCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0, .scribble = true}, "rule.private_copy", 200), 0U);
}
TEST(ReplicationRules, FullDiskWithoutRepairIsCaught) {
    EXPECT_NE(seeds_until_caught({.spares = 0, .fill_disk = 150, .wait_on_full = false},
                                 "rule.repair_full", 200),
              0U);
}

}  // namespace
}  // namespace ublkd::test
