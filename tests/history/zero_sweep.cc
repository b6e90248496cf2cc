#include "tests/history/zero_sweep.h"

#include <algorithm>

namespace ublkd::history {

ZeroSweep::ZeroSweep(const Zones& zones, std::span<const Cluster> clusters,
                     std::span<const ZeroEvent> zeroes, std::span<const Flush> flushes,
                     std::span<const Restart> restarts)
    : zones_(zones),
      clusters_(clusters),
      zeroes_(zeroes),
      flushes_(flushes),
      restarts_(restarts),
      done_(zeroes.size()),
      placed_(clusters.size()),
      begun_(clusters.size()) {
    for (const Cluster& cluster : clusters) held_by_.push_back(cluster.durables_before);
}

Time ZeroSweep::last_moment(Time end, Time place_by) const {
    return end == kOpen ? kOpen : std::min(zones_.latest(end), place_by);
}

std::optional<Contradiction> ZeroSweep::run() {
    if (auto found = plan()) return found;
    std::ranges::sort(steps_, [](const Step& a, const Step& b) {
        return a.at != b.at ? a.at < b.at : a.rank < b.rank;
    });
    for (const Step& step : steps_) {
        if (!take(step)) return no_zeroes_for(zeroes_[step.index]);
    }
    return std::nullopt;
}

std::optional<Contradiction> ZeroSweep::plan() {
    for (std::uint32_t i = 0; i < zeroes_.size(); ++i) {
        if (auto found = plan_zero(i)) return found;
    }
    for (std::uint32_t i = 0; i < clusters_.size(); ++i) plan_value(i);
    for (std::uint32_t i = 0; i < flushes_.size(); ++i)
        steps_.push_back(Step{doubled_begin(flushes_[i].begin), Rank::kFlushBegins, i});
    for (std::uint32_t i = 0; i < restarts_.size(); ++i)
        steps_.push_back(Step{restarts_[i].at, Rank::kRestart, i});
    return std::nullopt;
}

std::optional<Contradiction> ZeroSweep::plan_zero(std::uint32_t index) {
    const ZeroEvent& event = zeroes_[index];
    const Cluster* const zone = zones_.around(event.begin);
    if (zone != nullptr && event.end < zone->last_begin.at) {
        if (event.write) {
            return Contradiction{
                .why = zone->flush ? Why::kLostFlushed : Why::kZeroesVanished,
                .earlier = event.operation,
                .later = zone->flush ? zone->survivor_seen_by : zone->last_begin.operation,
                .before = zone->first_end.operation,
                .since = event.operation,
                .flush = zone->flush};
        }
        return Contradiction{.why = Why::kNotZeroYet,
                             .earlier = zone->first_end.operation,
                             .later = event.operation,
                             .before = std::nullopt,
                             .since = zone->last_begin.operation,
                             .flush = zone->flush};
    }
    steps_.push_back(Step{event.begin, event.write ? Rank::kZeroBegins : Rank::kReadBegins, index});
    if (event.end != kOpen) {
        steps_.push_back(Step{last_moment(event.end, event.place_by),
                              event.write ? Rank::kZeroEnds : Rank::kReadEnds, index});
    }
    return std::nullopt;
}

void ZeroSweep::plan_value(std::uint32_t index) {
    const Cluster& cluster = clusters_[index];
    if (cluster.forward()) {
        steps_.push_back(Step{cluster.first_end.at, Rank::kZone, index});
        return;
    }
    steps_.push_back(Step{cluster.last_begin.at, Rank::kValueBegins, index});
    steps_.push_back(Step{last_moment(cluster.first_end.at, cluster.precedence.place_by),
                          Rank::kValueEnds, index});
}

bool ZeroSweep::take(const Step& step) {
    switch (step.rank) {
        case Rank::kZeroBegins: {
            const ZeroEvent& event = zeroes_[step.index];
            unused_.push(Waiting{last_moment(event.end, event.place_by), step.index});
            return true;
        }
        case Rank::kZeroEnds:
            if (!done_[step.index]) use(step.index);
            return true;
        case Rank::kReadBegins:
            if (zero_)
                done_[step.index] = true;
            else
                reads_waiting_.push_back(step.index);
            return true;
        case Rank::kReadEnds:
            return done_[step.index] || use_write_of_zeroes();
        case Rank::kValueBegins:
            begun_[step.index] = true;
            if (held_by_[step.index] == 0) values_waiting_.push_back(step.index);
            if (!zero_) place_waiting();
            return true;
        case Rank::kValueEnds:
            if (placed_[step.index]) return true;
            leave_zero(clusters_[step.index]);
            placed_[step.index] = true;
            place(clusters_[step.index]);
            place_waiting();
            return true;
        case Rank::kZone:
            leave_zero(clusters_[step.index]);
            place(clusters_[step.index]);
            place_waiting();
            return true;
        case Rank::kFlushBegins:
            if (!zero_ && zero_survives_) {
                zero_survives_ = false;
                durable_ = cause_;
                durable_.flush = flushes_[step.index].operation;
            }
            return true;
        case Rank::kRestart:
            restart(restarts_[step.index]);
            return true;
    }
    return true;
}

bool ZeroSweep::use_write_of_zeroes() {
    while (!unused_.empty() && done_[unused_.top().index]) unused_.pop();
    if (unused_.empty()) return false;
    const std::uint32_t index = unused_.top().index;
    unused_.pop();
    use(index);
    return true;
}

/// A write of zeroes takes place now. The values that wait go right before it.
void ZeroSweep::use(std::uint32_t index) {
    done_[index] = true;
    place_waiting();
    zero_ = true;
    zero_survives_ = true;
    for (const std::uint32_t read : reads_waiting_) done_[read] = true;
    reads_waiting_.clear();
}

/// A write with FUA has taken place: the survivor that has to come after it may be next.
void ZeroSweep::release(const Precedence& precedence) {
    if (!precedence.survivor) return;
    const std::uint32_t survivor = *precedence.survivor;
    if (--held_by_[survivor] == 0 && begun_[survivor]) values_waiting_.push_back(survivor);
}

void ZeroSweep::leave_zero(const Cluster& cluster) {
    zero_ = false;
    cause_ = Cause{cluster.first_end.operation, std::nullopt, false, cluster.found_by};
}

void ZeroSweep::place(const Cluster& cluster) {
    release(cluster.precedence);
    if (!cluster.durable || !zero_survives_) return;
    zero_survives_ = false;
    durable_ = Cause{cluster.write_operation, std::nullopt, false, std::nullopt};
}

void ZeroSweep::place_waiting() {
    while (!values_waiting_.empty()) {
        const std::uint32_t index = values_waiting_.back();
        values_waiting_.pop_back();
        if (placed_[index]) continue;
        placed_[index] = true;
        place(clusters_[index]);
    }
}

void ZeroSweep::restart(const Restart& restart) {
    if (restart.survivor != nullptr) {
        leave_zero(*restart.survivor);
        zero_survives_ = false;
        durable_ = cause_;
        return;
    }
    zero_ = zero_survives_;
    if (!zero_) {
        cause_ = durable_;
        cause_.loss = true;
        cause_.survivor_seen_by.reset();
    }
}

Contradiction ZeroSweep::no_zeroes_for(const ZeroEvent& read) const {
    if (cause_.survivor_seen_by && !cause_.loss) {
        return Contradiction{Why::kTwoAfterLoss, read.operation, *cause_.survivor_seen_by,
                             std::nullopt,       std::nullopt,   std::nullopt};
    }
    return Contradiction{.why = cause_.loss ? Why::kLostFlushed : Why::kNeverZeroed,
                         .earlier = cause_.operation,
                         .later = read.operation,
                         .before = std::nullopt,
                         .since = std::nullopt,
                         .flush = cause_.flush};
}

}  // namespace ublkd::history
