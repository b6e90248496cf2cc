// Goal: each safety rule that the simulation can see is needed: with its switch off a seed goes
// wrong. Method: seeds of one scenario until several went wrong; the table that it prints stands in
// docs/testing.md.
#include <gtest/gtest.h>

#include <cstdio>
#include <ostream>

#include "tests/sim/world.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::sim {
namespace {

struct Rule {
    const char* name;
    const char* says;
    const char* scenario;
    std::uint64_t seeds_max = 600;
    const char* without = nullptr;  // another switch, where each of the two rules does it alone
};

constexpr Rule kRules[] = {
    {"rule.number_checked", "R1: a message of an older number does nothing", "hosts_strays", 4000},
    {"rule.own_messages", "R1: nor does one for another replica or volume", "hosts_strays"},
    {"rule.ack_all", "R2: acknowledged when all have it", "deaths"},
    {"rule.confirm_reads", "R2: a read is confirmed by all", "hosts_three", 6000},
    {"rule.round_after_read", "R2: by a round that began after it", "hosts_three", 3000},
    {"rule.range_lock", "R3: range locks", "shuffled"},
    {"rule.pending_first", "R4: a proposal is stored before it is sent", "everything_three", 2000},
    {"rule.base_compared", "R4: one record of a number", "hosts_restore", 600,
     "rule.accept_equal_number"},
    {"rule.joint_acknowledgement", "R4: what is proposed counts", "everything_power", 3000},
    {"rule.lost_leaves_first", "R5: a write counts without a member when that has left",
     "hosts_cuts"},
    {"rule.health_checked", "R6: a primary that is well and serves others stays", "hosts_three"},
    {"rule.drain_first", "R7: what was under way has ended first", "hosts_deaths", 3000},
    {"rule.union_copy", "R7: the union of the activity maps is copied", "deaths"},
    {"rule.copies_durable", "R7: a copy is durable before it counts", "power_cuts", 3000},
    {"rule.retry_ids", "R8: a known id is not applied again", "deaths", 4000},
    {"rule.ids_agree", "R8: ids are known where their data is", "full_fail_deaths"},
    {"rule.noted_first", "R8: a change is noted before it goes to the disk", "deaths", 4000},
    {"rule.ids_of_this_boot", "R8: a member without its table is out of sync", "hosts_ids", 4000},
    {"rule.boot_check", "R9: a restart in another boot is not trusted", "power_cuts"},
    {"rule.stored_as_asked", "R9: who is in sync has that in its superblock", "hosts_power"},
    {"rule.all_restarted", "R9: writes are given up only when all restarted", "hosts_power", 2000},
    {"rule.losses_presented", "R9: a session ends with what it may have lost", "hosts_power", 6000},
    {"rule.bits_durable", "R10: bits are cleared when their writes are durable", "power_cuts"},
    {"rule.older_image", "R10: an older image of a replica is copied whole", "older_images", 2000},
    {"rule.map_begins_active", "R11: the map of a lost member begins with what is active",
     "hosts_returning"},
    {"rule.dirty_bit_first", "R11: a change is in it before it goes to the disk", "hosts_returning",
     3000},
    {"rule.joining_activity", "R12: so is what was under way where a replica returns",
     "hosts_returning", 3000},
    {"rule.open_writes_copied", "R12: and what the own disk has not done yet", "hosts_returning",
     4000},
    {"rule.copy_lock", "R12: a copy holds the range lock", "joining"},
    {"rule.copy_compared", "R12: what was copied is compared", "joining_liars"},
    {"rule.join_flushes", "R12: who joins has flushed", "everything_power", 3000},
    {"rule.read_from_peer", "R14: what can't be read is read from another member", "unreadable"},
    {"rule.repair_held", "R14: a repair holds the range", "repairs"},
    {"rule.private_copy", "R13: one private copy", "scribble"},
    {"rule.attachment_checked", "R15: requests of the record's attachments alone", "hosts_detach"},
    {"rule.fence_drains", "R15: done when its writes have ended", "hosts_detach", 3000},
    {"rule.all_hosts_report", "R16: until each host of the record has reported", "hosts_restore"},
    {"rule.pending_reported", "R16: and each of what was proposed over it", "hosts_restore_joins",
     4000},
    {"rule.generation_numbers", "R16: by a number that no lost one reaches", "hosts_restore", 2000},
    {"rule.reports_promise", "R16: who reported hears nothing of before", "hosts_restore", 6000},
    {"rule.cut_drains", "R18: what was under way has ended before a cut", "snapshots"},
    {"rule.cut_after_copies", "R18: so have the copies of R7", "snapshots", 2000},
    {"rule.cut_holds", "R18: changes wait until all volumes are cut", "snapshots"},
    {"rule.cut_confirmed", "R18: that it holds is confirmed by all", "hosts_snapshots", 6000},
    {"rule.cut_number", "R18: that it holds is said under the same number alone", "snapshots",
     2000},
    {"rule.repair_full", "full pools: contents are made equal before a failure", "full_fail"},
};

void PrintTo(const Rule& rule, std::ostream* out) { *out << rule.name; }

class Rules : public ::testing::TestWithParam<Rule> {
  protected:
    ~Rules() override { faults::disarm_all(); }
};

TEST_P(Rules, SwitchIsCaught) {
    constexpr std::uint64_t kEnough = 8;  // for a mean; of what is rare, three
    constexpr std::uint64_t kRareSeeds = 300;
    const Rule& rule = GetParam();
    ASSERT_TRUE(faults::arm(std::string(rule.name) + "=off"));
    if (rule.without != nullptr) {
        ASSERT_TRUE(faults::arm(std::string(rule.without) + "=off"));
    }
    RunOptions options;
    options.scenario = *find_scenario(rule.scenario);
    std::uint64_t caught = 0;
    std::uint64_t seeds = 0;
    std::string first;
    for (; caught < kEnough && seeds < rule.seeds_max; ++seeds) {
        if (caught >= 3 && seeds >= kRareSeeds) break;
        options.seed = seeds + 1;
        const std::string wrong = World(options).run();
        if (wrong.empty()) continue;
        ++caught;
        if (first.empty()) first = wrong;
    }
    ASSERT_GT(caught, 0U) << seeds << " seeds";
    const std::string both = rule.without == nullptr ? "" : "`, `" + std::string(rule.without);
    std::printf("| %s | `%s%s` | `%s` | %.1f | %s |\n", rule.says, rule.name, both.c_str(),
                rule.scenario, static_cast<double>(seeds) / static_cast<double>(caught),
                first.c_str());
}

INSTANTIATE_TEST_SUITE_P(Sim, Rules, ::testing::ValuesIn(kRules), [](const auto& tested) {
    std::string name = tested.param.name;
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
});

}  // namespace
}  // namespace ublkd::sim
