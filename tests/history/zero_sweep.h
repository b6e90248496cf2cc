// Where zeroes can have been in place, between the forward zones of the other values: the sweep
// that sector_check.h describes. Times are doubled (zones.h).
#pragma once

#include <optional>
#include <queue>
#include <span>
#include <vector>

#include "tests/history/zones.h"

namespace ublkd::history {

/// A read or a write of zeroes.
struct ZeroEvent {
    bool write = false;
    Time begin = 0;
    Time end = 0;
    std::uint32_t operation = 0;
    Time place_by = kOpen;  // the latest moment of a value that has to come after it
};

/// After a loss.
struct Restart {
    Time at = 0;
    const Cluster* survivor = nullptr;  // the value that was found, where it is known and not zero
};

class ZeroSweep {
  public:
    ZeroSweep(const Zones& zones, std::span<const Cluster> clusters,
              std::span<const ZeroEvent> zeroes, std::span<const Flush> flushes,
              std::span<const Restart> restarts);
    std::optional<Contradiction> run();

  private:
    /// At one moment in this order: zeroes come first and go last.
    enum class Rank {
        kZeroBegins,
        kValueBegins,
        kReadBegins,
        kFlushBegins,
        kRestart,
        kZeroEnds,
        kReadEnds,
        kValueEnds,
        kZone,
    };
    struct Step {
        Time at;
        Rank rank;
        std::uint32_t index;
    };
    /// What took zero away, or out of what a loss may bring back.
    struct Cause {
        std::uint32_t operation = 0;
        std::optional<std::uint32_t> flush;
        bool loss = false;
        std::optional<std::uint32_t> survivor_seen_by;
    };
    struct Waiting {
        Time end;
        std::uint32_t index;
        bool operator<(const Waiting& other) const { return end > other.end; }  // earliest on top
    };

    std::optional<Contradiction> plan();
    std::optional<Contradiction> plan_zero(std::uint32_t index);
    void plan_value(std::uint32_t index);
    bool take(const Step& step);  // false: the read of this step finds no zeroes
    bool use_write_of_zeroes();
    void use(std::uint32_t index);
    void leave_zero(const Cluster& cluster);
    void place(const Cluster& cluster);
    void place_waiting();
    void release(const Precedence& precedence);
    Time last_moment(Time end, Time place_by) const;
    void restart(const Restart& restart);
    Contradiction no_zeroes_for(const ZeroEvent& read) const;

    const Zones& zones_;
    std::span<const Cluster> clusters_;
    std::span<const ZeroEvent> zeroes_;
    std::span<const Flush> flushes_;
    std::span<const Restart> restarts_;
    std::vector<Step> steps_;

    bool zero_ = true;
    Cause cause_;                // why not, where it is not
    bool zero_survives_ = true;  // a loss now may leave zero
    Cause durable_;              // why not, where it may not
    std::vector<bool> done_;     // by index of zeroes_: used, or has seen zero
    std::vector<bool> placed_;   // by index of clusters_
    std::vector<bool> begun_;
    std::vector<unsigned> held_by_;              // writes with FUA that have to come first
    std::priority_queue<Waiting> unused_;        // writes of zeroes
    std::vector<std::uint32_t> reads_waiting_;   // for zero
    std::vector<std::uint32_t> values_waiting_;  // for a moment that does no harm
};

}  // namespace ublkd::history
