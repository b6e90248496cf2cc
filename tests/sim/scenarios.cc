#include <algorithm>

#include "tests/sim/scenario.h"

namespace ublkd::sim {

const std::vector<Scenario>& scenarios() {
    static const std::vector<Scenario> all{
        {.name = "shuffled"},
        {.name = "three_members", .members = 3},
        {.name = "deaths", .kills = 6},
        {.name = "power_cuts", .power_cuts = 4},
        {.name = "stops_cut_short",
         .spares = 0,
         .kills = 1,
         .power_cuts = 1,
         .stops_cut_short = 20,
         .joins = 10},
        {.name = "failing_disks", .disk_failures = 3},
        {.name = "returning",
         .kills = 1,
         .disk_failures = 4,
         .kills_without_disk = 4,
         .disk_returns = 14,
         .joins = 18},
        {.name = "returning_power",
         .kills = 1,
         .power_cuts = 2,
         .disk_failures = 3,
         .disk_returns = 10,
         .joins = 16},
        {.name = "returning_three",
         .members = 3,
         .kills = 1,
         .disk_failures = 5,
         .kills_without_disk = 4,
         .disk_returns = 16,
         .joins = 20},
        {.name = "joining", .members = 1, .spares = 2, .joins = 8},
        {.name = "full_wait", .fills = 16},
        {.name = "full_fail", .wait_on_full = false, .fills = 16},
        {.name = "unreadable", .unreadable = true},
        {.name = "unreadable_deaths",
         .spares = 1,
         .unreadable = true,
         .kills = 4,
         .disk_failures = 2,
         .joins = 6},
        {.name = "repairs",
         .spares = 1,
         .equal_percent = 20,
         .kills = 3,
         .disk_failures = 2,
         .fills = 4,
         .joins = 6},
        {.name = "scribble", .scribble = true},
        {.name = "everything",
         .spares = 2,
         .kills = 4,
         .disk_failures = 2,
         .fills = 6,
         .joins = 10},
        {.name = "everything_power",
         .spares = 2,
         .kills = 2,
         .power_cuts = 2,
         .disk_failures = 1,
         .joins = 10},
        {.name = "everything_three",
         .members = 3,
         .spares = 1,
         .kills = 3,
         .power_cuts = 1,
         .disk_failures = 2,
         .joins = 8},
    };
    return all;
}

const Scenario* find_scenario(std::string_view name) {
    const auto found =
        std::find_if(scenarios().begin(), scenarios().end(),
                     [&](const Scenario& scenario) { return scenario.name == name; });
    return found == scenarios().end() ? nullptr : &*found;
}

}  // namespace ublkd::sim
