#include "tests/sim/shrink.h"

#include <numeric>
#include <utility>

#include "tests/sim/world.h"

namespace ublkd::sim {
namespace {

constexpr std::uint64_t kTimings = 24;  // tried for each smaller run

/// True where the run goes wrong, with its own timing or with one of a few others, which is kept.
bool fails(RunOptions& options) {
    const bool was_tracing = std::exchange(tracing, false);
    const std::uint64_t own = options.timing;
    bool wrong = false;
    for (std::uint64_t i = 0; i <= kTimings && !wrong; ++i) {
        options.timing = i == 0 ? own : i;
        World world(options);
        wrong = !world.run().empty();
    }
    tracing = was_tracing;
    return wrong;
}

bool take_if_it_fails(RunOptions& options, RunOptions candidate) {
    if (!fails(candidate)) return false;
    options = std::move(candidate);
    return true;
}

void drop_faults(RunOptions& options) {
    for (std::size_t part = std::max<std::size_t>(options.only->size() / 2, 1); part > 0;
         part /= 2) {
        for (std::size_t at = 0; at < options.only->size();) {
            RunOptions candidate = options;
            const auto begin = candidate.only->begin() + static_cast<std::ptrdiff_t>(at);
            const auto left = static_cast<std::size_t>(candidate.only->end() - begin);
            candidate.only->erase(begin, begin + static_cast<std::ptrdiff_t>(std::min(part, left)));
            if (!take_if_it_fails(options, std::move(candidate))) at += part;
        }
    }
}

}  // namespace

RunOptions shrink(RunOptions options) {
    if (!options.only) {
        options.only.emplace(draw_faults(options.scenario, options.seed).size());
        std::iota(options.only->begin(), options.only->end(), std::size_t{0});
    }
    drop_faults(options);
    std::size_t most = options.requests_max == SIZE_MAX ? 1024 : options.requests_max;
    for (std::size_t step = most / 2; step > 0; step /= 2) {
        RunOptions candidate = options;
        candidate.requests_max = most - step;
        if (take_if_it_fails(options, std::move(candidate))) most -= step;
    }
    drop_faults(options);
    return options;
}

std::string arguments_of(const RunOptions& options) {
    std::string text = "--scenario " + std::string(options.scenario.name) + " --first " +
                       std::to_string(options.seed);
    if (options.timing != 0) text += " --timing " + std::to_string(options.timing);
    if (options.only) {
        text += " --only ";
        for (const std::size_t index : *options.only)
            text += (text.back() == ' ' ? "" : ",") + std::to_string(index);
        if (options.only->empty()) text += "none";
    }
    if (options.requests_max != SIZE_MAX)
        text += " --requests " + std::to_string(options.requests_max);
    return text;
}

}  // namespace ublkd::sim
