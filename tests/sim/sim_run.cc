// Runs seeds of a scenario; the first that goes wrong ends it with 1 and is shrunk.
//   sim_run [--scenario NAME] [--seeds N] [--first N] [--timing N] [--only I,J] [--requests N]
//   [--trace]
//           [--no-shrink] [--off RULE] [--list]
// Without --scenario: all of them. Without --seeds: 1000 each, or what UBLKD_SIM_SEEDS in the
// environment says. Equal arguments give equal runs. Closing line: what happened.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "tests/sim/shrink.h"
#include "tests/sim/world.h"
#include "ublkd/base/fault_injection.h"

namespace {

using namespace ublkd::sim;

struct Arguments {
    std::string scenario;
    std::uint64_t seeds = 1000;
    RunOptions options;
    bool shrinks = true;
    bool traces = false;
};

std::uint64_t number(const char* text) { return std::strtoull(text, nullptr, 10); }

std::vector<std::size_t> list(const char* text) {
    std::vector<std::size_t> numbers;
    if (std::strcmp(text, "none") == 0) return numbers;
    for (const char* at = text; *at != '\0';) {
        char* end = nullptr;
        numbers.push_back(std::strtoull(at, &end, 10));
        at = *end == ',' ? end + 1 : end;
        if (*end != ',' && *end != '\0') std::exit(2);
    }
    return numbers;
}

/// False where the arguments can't be read.
bool read(int count, char** words, Arguments& arguments) {
    bool seeds_given = false;
    bool one = false;
    if (const char* const seeds = std::getenv("UBLKD_SIM_SEEDS"); seeds != nullptr)
        arguments.seeds = number(seeds);
    for (int i = 1; i < count; ++i) {
        const std::string word = words[i];
        if (word == "--trace") {
            arguments.traces = one = true;
        } else if (word == "--no-shrink") {
            arguments.shrinks = false;
        } else if (word == "--list") {
            for (const Scenario& scenario : scenarios())
                std::printf("%s\n", std::string(scenario.name).c_str());
            std::exit(0);
        } else if (i + 1 == count) {
            return false;
        } else if (const char* const value = words[++i]; word == "--scenario") {
            arguments.scenario = value;
        } else if (word == "--seeds") {
            arguments.seeds = number(value);
            seeds_given = true;
        } else if (word == "--first") {
            arguments.options.seed = number(value);
        } else if (word == "--timing") {
            arguments.options.timing = number(value);
            one = true;
        } else if (word == "--only") {
            arguments.options.only = list(value);
            one = true;
        } else if (word == "--requests") {
            arguments.options.requests_max = number(value);
            one = true;
        } else if (word == "--off") {
#ifdef UBLKD_FAULTS
            if (!ublkd::faults::arm(std::string(value) + "=off")) return false;
#else
            return false;  // rules have no switches here
#endif
        } else {
            return false;
        }
    }
    if (one && !seeds_given) arguments.seeds = 1;
    return arguments.scenario.empty() || find_scenario(arguments.scenario) != nullptr;
}

/// False where a seed went wrong.
bool run(const Scenario& scenario, Arguments& arguments) {
    const std::clock_t begin = std::clock();
    Counts sum;
    RunOptions options = arguments.options;
    options.scenario = scenario;
    for (std::uint64_t i = 0; i < arguments.seeds; ++i) {
        options.seed = arguments.options.seed + i;
        tracing = arguments.traces;
        World world(options);
        const std::string wrong = world.run();
        tracing = false;
        sum.answered += world.counts.answered;
        sum.events += world.counts.events;
        sum.kills += world.counts.kills;
        sum.power_cuts += world.counts.power_cuts;
        sum.losses += world.counts.losses;
        sum.lost += world.counts.lost;
        sum.joins += world.counts.joins;
        sum.failovers += world.counts.failovers;
        sum.by_map += world.counts.by_map;
        sum.cuts += world.counts.cuts;
        sum.held += world.counts.held;
        if (wrong.empty()) continue;
        std::printf("WRONG: %s\nrepeat: sim_run %s --trace\n", wrong.c_str(),
                    arguments_of(options).c_str());
        if (arguments.shrinks) {
            const RunOptions smaller = shrink(options);
            std::printf("shrunk: sim_run %s --trace\n", arguments_of(smaller).c_str());
            tracing = true;
            World again(smaller);
            (void)again.run();
        }
        return false;
    }
    const auto show = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf(
        "%s: %llu seeds clean in %.1f s of CPU: %llu answers, %llu events, %llu kills, %llu power "
        "cuts, "
        "%llu losses, %llu members lost, %llu joined (%llu by a map), %llu failovers, %llu cuts "
        "(%llu held until all were)\n",
        std::string(scenario.name).c_str(), show(arguments.seeds),
        static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, show(sum.answered),
        show(sum.events), show(sum.kills), show(sum.power_cuts), show(sum.losses), show(sum.lost),
        show(sum.joins), show(sum.by_map), show(sum.failovers), show(sum.cuts), show(sum.held));
    return true;
}

}  // namespace

int main(int count, char** words) {
    Arguments arguments;
    if (!read(count, words, arguments)) {
        std::fprintf(stderr, "sim_run: bad arguments; see the head of tests/sim/sim_run.cc\n");
        return 2;
    }
    for (const Scenario& scenario : scenarios()) {
        if (!arguments.scenario.empty() && scenario.name != arguments.scenario) continue;
        if (!run(scenario, arguments)) return 1;
    }
    return 0;
}
