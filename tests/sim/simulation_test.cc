// Goal: the simulation itself can be trusted: equal seeds give equal runs, its checker accepts what
// one order explains and nothing else, and what it found once stays found.
#include <gtest/gtest.h>

#include "tests/sim/shrink.h"
#include "tests/sim/world.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::sim {
namespace {

RunOptions run_of(std::string_view scenario, std::uint64_t seed) {
    RunOptions options;
    options.scenario = *find_scenario(scenario);
    options.seed = seed;
    return options;
}

TEST(Simulation, EqualSeedsGiveEqualRuns) {
    for (const Scenario& scenario : scenarios()) {
        World first(run_of(scenario.name, 7));
        World second(run_of(scenario.name, 7));
        EXPECT_EQ(first.run(), second.run());
        EXPECT_EQ(first.counts.events, second.counts.events) << scenario.name;
        EXPECT_EQ(first.counts.answered, second.counts.answered) << scenario.name;
        EXPECT_EQ(first.clock.now_us(), second.clock.now_us()) << scenario.name;
        World other(run_of(scenario.name, 8));
        EXPECT_EQ(other.run(), "");
        EXPECT_NE(other.clock.now_us(), first.clock.now_us()) << scenario.name;
    }
}

/// ctest has a test for each scenario, by the names that CMake reads in scenarios.cc.
TEST(Simulation, EachScenarioIsATest) {
    std::string names;
    for (const Scenario& scenario : scenarios()) names += std::string(scenario.name) + ",";
    EXPECT_EQ(names, std::string(UBLKD_SIM_SCENARIOS) + ",");
}

/// A scenario without the fault that it is for shows nothing.
TEST(Simulation, EachScenarioHasItsFaults) {
    for (const Scenario& scenario : scenarios()) {
        Counts sum;
        for (std::uint64_t seed = 1; seed <= 40; ++seed) {
            World world(run_of(scenario.name, seed));
            ASSERT_EQ(world.run(), "") << scenario.name << " seed " << seed;
            sum.answered += world.counts.answered;
            sum.kills += world.counts.kills;
            sum.power_cuts += world.counts.power_cuts;
            sum.joins += world.counts.joins;
            sum.lost += world.counts.lost;
            sum.failovers += world.counts.failovers;
            sum.fenced += world.counts.fenced;
            sum.restores += world.counts.restores;
        }
        EXPECT_GT(sum.answered, 40U * 20) << scenario.name;
        const int power_cuts =
            scenario.power_cuts + scenario.stops_cut_short + scenario.host_power_cuts;
        EXPECT_EQ(sum.kills > 0, scenario.kills + scenario.outages > 0) << scenario.name;
        EXPECT_EQ(sum.power_cuts > 0, power_cuts > 0) << scenario.name;
        EXPECT_EQ(sum.fenced > 0, scenario.detaches > 0) << scenario.name;
        EXPECT_EQ(sum.restores > 0, scenario.authority_losses > 0) << scenario.name;
        if (scenario.partitions + scenario.outages > 0) {
            EXPECT_GT(sum.failovers, 0U) << scenario.name;
        }
        // Of three members and no spare one joins that was lost: too rare without failing disks.
        const bool may_join =
            scenario.members < 3 || scenario.hosts > 1 || scenario.disk_failures > 0;
        if (scenario.joins == 0 || may_join) {
            EXPECT_EQ(sum.joins > 0, scenario.joins > 0) << scenario.name;
        }
        // Nobody leaves for a full disk, a death, a power cut of all, or a sector that can't be
        // read, unless a copy needs it, or a death comes while a loss is being given up (R9).
        const bool copies_fail = (scenario.unreadable && scenario.kills > 0) || scenario.lies;
        const bool loses = scenario.power_cuts > 0 && scenario.kills > 0;
        if (scenario.hosts == 1 && scenario.disk_failures == 0 && scenario.stops_cut_short == 0 &&
            scenario.bars == 0 && !copies_fail && !loses) {
            EXPECT_EQ(sum.lost, 0U) << scenario.name;
        }
    }
}

TEST(Simulation, FailingRunIsShrunkToOneThatFailsToo) {
    ASSERT_TRUE(faults::arm("rule.union_copy=off"));
    RunOptions options = run_of("deaths", 1);
    while (World(options).run().empty()) ++options.seed;
    const std::size_t faults = draw_faults(options.scenario, options.seed).size();
    const RunOptions smaller = shrink(options);
    EXPECT_NE(World(smaller).run(), "");
    EXPECT_LE(smaller.only->size(), std::min<std::size_t>(faults, 2));
    EXPECT_LE(smaller.requests_max, 250U);
    faults::disarm_all();
}

TEST(History, AcceptsWhatOneOrderExplainsAndNothingElse) {
    History good(1);
    good.write(0, 1, 7, false);
    good.read(0, 2, 3, 0);  // while the write is open: old or new
    good.read(0, 4, 5, 7);
    good.end_write(0, 7, 6);
    good.read(0, 7, 8, 7);
    EXPECT_EQ(good.check(), "");
    good.read(0, 9, 10, 0);
    EXPECT_NE(good.check(), "");  // back to the old value

    History flicker(1);
    flicker.write(0, 1, 7, false);  // without an outcome
    flicker.read(0, 2, 3, 7);
    flicker.read(0, 4, 5, 0);
    EXPECT_NE(flicker.check(), "");

    History unwritten(1);
    unwritten.read(0, 1, 2, 9);
    EXPECT_NE(unwritten.check(), "");
}

TEST(History, KnowsWhatALossMayTake) {
    const auto history = [](bool fua, std::uint64_t flush) {
        History made(1);
        made.write(0, 1, 7, fua);
        made.end_write(0, 7, 2);
        made.flushed(flush);
        return made;
    };
    const auto holds = [](std::uint64_t value) {
        return [value](std::size_t) { return std::set<std::uint64_t>{value}; };
    };
    EXPECT_EQ(history(false, 0).lose(5, holds(0)), "");
    EXPECT_EQ(history(false, 0).lose(5, holds(7)), "");
    EXPECT_NE(history(false, 3).lose(5, holds(0)), "");  // it was flushed
    EXPECT_NE(history(true, 0).lose(5, holds(0)), "");   // it was written through
    EXPECT_NE(history(false, 0).lose(5, holds(8)), "");  // never written
    History after = history(false, 0);
    ASSERT_EQ(after.lose(5, holds(0)), "");
    after.read(0, 6, 7, 7);
    EXPECT_NE(after.check(), "");  // what was lost comes back
}

// ---- what the simulation found (docs/testing.md), as shrunk runs

struct Found {
    const char* what;
    const char* scenario;
    std::uint64_t seed;
};
constexpr Found kFound[] = {
    {"a secondary that proposed itself waits for a primary that is gone", "everything", 457},
    {"a retry overwrites an answered change on the new primary alone", "everything", 10466},
    {"a late proposal's primary is never told", "returning_three", 2482},
    {"who returned counts as missing", "returning_three", 10745},
    {"of two interrupted changes one is nowhere on the new primary", "everything", 21067},
    {"a primary that restarted serves by a handover of before, as if nothing was lost",
     "unreadable_power", 1425},
    {"a late record whose primary is gone is told to nobody else", "unreadable_three", 105},
    {"a change that failed for space leaves nothing of an interrupted one", "full_fail_deaths", 13},
    {"a retry waits for the answer of a replica that joins no more", "repairs", 100619},
    {"a change that failed for space stays on a replica that joins", "full_fail_disks", 2},
    {"contents are taken for equal though the primary had no space for them", "full_fail_disks",
     2759},
    {"a superblock that found no space is stored for a member that left", "everything", 1453},
};

TEST(Simulation, WhatItFoundStaysFound) {
    for (const Found& found : kFound)
        EXPECT_EQ(World(run_of(found.scenario, found.seed)).run(), "") << found.what;
}

}  // namespace
}  // namespace ublkd::sim
