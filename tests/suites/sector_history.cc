#include "tests/suites/sector_history.h"

#include <algorithm>
#include <map>

namespace ublkd::suites {
namespace {

struct Cluster {
    bool written = false;
    std::uint64_t write_start = 0;
    std::uint64_t first_end = UINT64_MAX;
    std::uint64_t last_start = 0;

    bool forward() const { return first_end < last_start; }
    std::uint64_t low() const { return std::min(first_end, last_start); }
    std::uint64_t high() const { return std::max(first_end, last_start); }
};

std::string name(std::uint64_t value, const Cluster& cluster) {
    return "value " + std::to_string(value) +
           (cluster.forward() ? " (seen from " : " (possible from ") +
           std::to_string(cluster.low()) + " to " + std::to_string(cluster.high()) + ")";
}

}  // namespace

std::string contradiction(const std::vector<SectorEvent>& events) {
    std::map<std::uint64_t, Cluster> clusters;
    clusters[0] = Cluster{true, 0, 0, 0};
    for (const SectorEvent& event : events) {
        Cluster& cluster = clusters[event.value];
        if (event.write) {
            if (cluster.written)
                return "value " + std::to_string(event.value) + " is written twice";
            cluster.written = true;
            cluster.write_start = event.start;
        }
        cluster.first_end = std::min(cluster.first_end, event.end);
        cluster.last_start = std::max(cluster.last_start, event.start);
    }
    for (const auto& [value, cluster] : clusters) {
        if (!cluster.written)
            return "value " + std::to_string(value) + " was read and never written";
        if (cluster.first_end < cluster.write_start)
            return name(value, cluster) + " was read before its write started";
    }
    for (const auto& [value, cluster] : clusters) {
        if (!cluster.forward()) continue;
        for (const auto& [other_value, other] : clusters) {
            if (other_value == value) continue;
            const bool overlap =
                other.forward() && other.low() < cluster.high() && cluster.low() < other.high();
            const bool inside =
                !other.forward() && cluster.low() < other.low() && other.high() < cluster.high();
            if (overlap || inside)
                return name(value, cluster) + " contradicts " + name(other_value, other);
        }
    }
    return {};
}

}  // namespace ublkd::suites
