#include "tests/history/sector_check.h"

#include <algorithm>
#include <unordered_map>

#include "tests/history/zero_sweep.h"
#include "tests/history/zones.h"

namespace ublkd::history {
namespace {

/// Where a value was written, and between which losses that took effect.
struct Value {
    std::optional<std::uint32_t> event;  // the write
    std::size_t home = SIZE_MAX;         // epoch; for an open write the first one that shows it
    std::optional<std::size_t> cluster;  // in its home
};

/// From one loss to the next.
struct Epoch {
    Time begin = 0;                   // doubled; before everything in it
    std::optional<Flush> last_flush;  // the one that began last
    std::uint64_t survivor = 0;       // the value found at its begin, where it is known
    std::uint32_t survivor_seen_by = 0;
    std::optional<std::size_t> found;  // cluster of the survivor
};

class SectorCheck {
  public:
    SectorCheck(std::span<const SectorEvent> events, std::span<const Flush> flushes,
                std::span<const Loss> losses)
        : losses_(losses), epochs_(losses.size() + 1) {
        for (std::size_t i = 0; i < losses.size(); ++i)
            epochs_[i + 1].begin = doubled_begin(losses[i].end) - 1;
        for (const SectorEvent& event : events) add(event);
        for (const Flush& flush : flushes) add(flush);
    }

    std::optional<Contradiction> run() {
        if (auto found = find_writes()) return found;
        if (auto found = find_homes()) return found;
        if (auto found = find_survivors()) return found;
        make_clusters();
        Zones zones;
        if (auto found = zones.build(clusters_)) return found;
        if (auto found = order_durable_writes(zones)) return found;
        return sweep(zones);
    }

  private:
    /// A loss event passed while it was under way: what it says is too little to be used.
    bool straddles(Time begin, Time end) const {
        const auto loss = std::ranges::upper_bound(losses_, begin, {}, &Loss::end);
        return loss != losses_.end() && end > loss->begin;
    }
    std::size_t epoch_of(Time begin) const {
        const auto next = std::ranges::upper_bound(losses_, begin, {}, &Loss::end);
        return static_cast<std::size_t>(next - losses_.begin());
    }

    void add(SectorEvent event) {
        if (event.end != kOpen && straddles(event.begin, event.end)) {
            if (!event.write) return;
            event.end = kOpen;
        }
        if (event.end == kOpen) event.durable = false;
        events_.push_back(event);
    }
    void add(const Flush& flush) {
        if (straddles(flush.begin, flush.end)) return;
        flushes_.push_back(flush);
        std::optional<Flush>& last = epochs_[epoch_of(flush.begin)].last_flush;
        if (!last || last->begin < flush.begin) last = flush;
    }

    std::optional<Contradiction> find_writes();
    std::optional<Contradiction> find_homes();
    std::optional<Contradiction> find_survivors();
    void make_clusters();
    void mark_survivors();
    std::optional<Contradiction> order_durable_writes(const Zones& zones);
    std::optional<Contradiction> sweep(const Zones& zones) const;
    std::optional<std::size_t> cluster_of(std::uint64_t value, std::size_t epoch) const {
        if (epochs_[epoch].survivor == value) return epochs_[epoch].found;
        const auto found = values_.find(value);
        return found != values_.end() && found->second.home == epoch ? found->second.cluster
                                                                     : std::nullopt;
    }

    std::span<const Loss> losses_;
    std::vector<SectorEvent> events_;
    std::vector<Flush> flushes_;
    std::vector<Epoch> epochs_;
    std::unordered_map<std::uint64_t, Value> values_;
    std::vector<Cluster> clusters_;
    std::vector<Time> place_by_;  // by index of events_, of writes of zeroes with FUA
};

std::optional<Contradiction> SectorCheck::find_writes() {
    for (std::uint32_t i = 0; i < events_.size(); ++i) {
        const SectorEvent& event = events_[i];
        if (!event.write || event.value == 0) continue;
        Value& value = values_[event.value];
        if (value.event) {
            return Contradiction{Why::kWrittenTwice, events_[*value.event].operation,
                                 event.operation,    std::nullopt,
                                 std::nullopt,       std::nullopt};
        }
        value.event = i;
        if (event.end != kOpen) value.home = epoch_of(event.begin);
    }
    return std::nullopt;
}

std::optional<Contradiction> SectorCheck::find_homes() {
    for (const SectorEvent& event : events_) {
        if (event.write || event.value == 0) continue;
        const auto found = values_.find(event.value);
        if (found == values_.end()) {
            return Contradiction{Why::kNeverWritten, event.operation, event.operation,
                                 std::nullopt,       std::nullopt,    std::nullopt};
        }
        Value& value = found->second;
        const SectorEvent& write = events_[*value.event];
        if (event.end < write.begin) {
            return Contradiction{Why::kFromTheFuture, write.operation, event.operation,
                                 std::nullopt,        std::nullopt,    std::nullopt};
        }
        if (write.end == kOpen) value.home = std::min(value.home, epoch_of(event.begin));
    }
    return std::nullopt;
}

/// A value that is read in a later epoch than its own was there at the begin of each in between.
std::optional<Contradiction> SectorCheck::find_survivors() {
    for (const SectorEvent& event : events_) {
        if (event.write || event.value == 0) continue;
        const std::size_t home = values_[event.value].home;
        for (std::size_t at = epoch_of(event.begin); at > home; --at) {
            Epoch& epoch = epochs_[at];
            if (epoch.survivor == event.value) break;
            if (epoch.survivor != 0) {
                return Contradiction{Why::kTwoAfterLoss, epoch.survivor_seen_by, event.operation,
                                     std::nullopt,       std::nullopt,           std::nullopt};
            }
            epoch.survivor = event.value;
            epoch.survivor_seen_by = event.operation;
        }
    }
    return std::nullopt;
}

void SectorCheck::make_clusters() {
    for (auto& [number, value] : values_) {
        if (value.home == SIZE_MAX) continue;  // of unknown outcome, and nobody saw it
        const SectorEvent& write = events_[*value.event];
        value.cluster = clusters_.size();
        Cluster cluster;
        cluster.write_operation = write.operation;
        cluster.durable = write.durable;
        // An open write may have happened later than the loss after its begin.
        cluster.touch(std::max(doubled_begin(write.begin), epochs_[value.home].begin + 1),
                      doubled_end(write.end), write.operation);
        clusters_.push_back(cluster);
    }
    for (Epoch& epoch : epochs_) {
        if (epoch.survivor == 0) continue;
        epoch.found = clusters_.size();
        Cluster cluster;
        cluster.write_operation = events_[*values_[epoch.survivor].event].operation;
        cluster.found_by = epoch.survivor_seen_by;
        cluster.touch(epoch.begin, epoch.begin, cluster.write_operation);
        clusters_.push_back(cluster);
    }
    for (const SectorEvent& event : events_) {
        if (event.write || event.value == 0) continue;
        clusters_[*cluster_of(event.value, epoch_of(event.begin))].touch(
            doubled_begin(event.begin), doubled_end(event.end), event.operation);
    }
    mark_survivors();
}

/// What a loss left was in place at some time since the last flush began.
void SectorCheck::mark_survivors() {
    for (std::size_t i = 1; i < epochs_.size(); ++i) {
        if (epochs_[i].survivor == 0 || !epochs_[i - 1].last_flush) continue;
        const auto index = cluster_of(epochs_[i].survivor, i - 1);
        if (!index) continue;
        Cluster& cluster = clusters_[*index];
        const Flush& flush = *epochs_[i - 1].last_flush;
        if (doubled_begin(flush.begin) <= cluster.last_begin.at) continue;
        cluster.last_begin = Touch{doubled_begin(flush.begin), flush.operation};
        cluster.flush = flush.operation;
        cluster.survivor_seen_by = epochs_[i].survivor_seen_by;
    }
}

/// A write with FUA is not after what a loss left: it came before that, or is it.
std::optional<Contradiction> SectorCheck::order_durable_writes(const Zones& zones) {
    if (losses_.empty()) return std::nullopt;
    place_by_.assign(events_.size(), kOpen);
    for (std::size_t i = 0; i < events_.size(); ++i) {
        const SectorEvent& event = events_[i];
        if (!event.durable) continue;
        const std::size_t epoch = epoch_of(event.begin);
        if (epoch + 1 == epochs_.size() || epochs_[epoch + 1].survivor == 0) continue;
        const auto survivor = cluster_of(epochs_[epoch + 1].survivor, epoch);
        if (!survivor || event.value == epochs_[epoch + 1].survivor) continue;
        Cluster& found = clusters_[*survivor];
        const Time latest = found.forward() ? found.first_end.at : zones.latest(found.first_end.at);
        Time earliest = doubled_begin(event.begin);
        if (event.value != 0) earliest = clusters_[*cluster_of(event.value, epoch)].last_begin.at;
        if (zones.earliest(earliest) < latest) {
            if (event.value == 0) {
                place_by_[i] = latest;
            } else {
                clusters_[*cluster_of(event.value, epoch)].precedence =
                    Precedence{latest, static_cast<std::uint32_t>(*survivor)};
                ++found.durables_before;
            }
            continue;
        }
        return Contradiction{
            Why::kLostFlushed,         event.operation, epochs_[epoch + 1].survivor_seen_by,
            found.first_end.operation, event.operation, std::nullopt};
    }
    return std::nullopt;
}

std::optional<Contradiction> SectorCheck::sweep(const Zones& zones) const {
    std::vector<ZeroEvent> zeroes;
    for (std::size_t i = 0; i < events_.size(); ++i) {
        const SectorEvent& event = events_[i];
        if (event.value != 0) continue;
        zeroes.push_back(ZeroEvent{event.write, doubled_begin(event.begin), doubled_end(event.end),
                                   event.operation, place_by_.empty() ? kOpen : place_by_[i]});
    }
    if (zeroes.empty()) return std::nullopt;
    std::vector<Restart> restarts;
    for (std::size_t i = 1; i < epochs_.size(); ++i) {
        const auto& found = epochs_[i].found;
        restarts.push_back(Restart{epochs_[i].begin - 1, found ? &clusters_[*found] : nullptr});
    }
    return ZeroSweep(zones, clusters_, zeroes, flushes_, restarts).run();
}

}  // namespace

std::optional<Contradiction> check_sector(std::span<const SectorEvent> events,
                                          std::span<const Flush> flushes,
                                          std::span<const Loss> losses) {
    return SectorCheck(events, flushes, losses).run();
}

}  // namespace ublkd::history
