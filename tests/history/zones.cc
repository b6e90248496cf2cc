#include "tests/history/zones.h"

#include <algorithm>

namespace ublkd::history {
namespace {

/// `old` was in place before a moment of `replacing`, and was seen after another one.
Contradiction old_value(const Cluster& old, const Cluster& replacing) {
    Contradiction found{.why = Why::kOldValue,
                        .earlier = replacing.first_end.operation,
                        .later = old.last_begin.operation,
                        .before = old.first_end.operation,
                        .since = replacing.last_begin.operation,
                        .flush = std::nullopt};
    if (old.flush) {
        found.why = Why::kLostFlushed;
        found.later = old.survivor_seen_by;
        found.flush = old.flush;
    }
    return found;
}

}  // namespace

std::optional<Contradiction> Zones::build(std::span<const Cluster> clusters) {
    for (const Cluster& cluster : clusters) {
        if (cluster.forward()) forward_.push_back(&cluster);
    }
    std::ranges::sort(forward_, {}, [](const Cluster* cluster) { return cluster->first_end.at; });
    for (std::size_t i = 1; i < forward_.size(); ++i) {
        if (forward_[i]->first_end.at < forward_[i - 1]->last_begin.at)
            return old_value(*forward_[i - 1], *forward_[i]);
    }
    for (const Cluster& cluster : clusters) {
        if (cluster.forward()) continue;
        const Cluster* const zone = around(cluster.last_begin.at);
        if (zone != nullptr && cluster.first_end.at < zone->last_begin.at)
            return old_value(*zone, cluster);
    }
    return std::nullopt;
}

const Cluster* Zones::around(Time at) const {
    const auto after = std::ranges::lower_bound(
        forward_, at, {}, [](const Cluster* cluster) { return cluster->first_end.at; });
    if (after == forward_.begin()) return nullptr;
    const Cluster* const zone = *(after - 1);
    return at < zone->last_begin.at ? zone : nullptr;
}

Time Zones::earliest(Time at) const {
    const Cluster* const zone = around(at);
    return zone == nullptr ? at : zone->last_begin.at;
}

Time Zones::latest(Time at) const {
    const Cluster* const zone = around(at);
    return zone == nullptr ? at : zone->first_end.at;
}

}  // namespace ublkd::history
