// The clusters and zones of one sector (sector_check.h): which value was in place when. Times are
// doubled here: a begin at t becomes 2t, an end 2t + 1, so that no begin equals an end and "X ended
// before Y began" is X.end < Y.begin for operations at the same nanosecond too.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "tests/history/sector_check.h"

namespace ublkd::history {

constexpr Time doubled_begin(Time begin) { return 2 * begin; }
constexpr Time doubled_end(Time end) { return end == kOpen ? kOpen : 2 * end + 1; }

struct Touch {
    Time at = 0;
    std::uint32_t operation = 0;
};

/// For a write with FUA in an epoch whose loss left another value: it comes before that one.
struct Precedence {
    Time place_by = kOpen;                  // the latest moment of the survivor
    std::optional<std::uint32_t> survivor;  // its cluster
};

/// All operations on one value between two losses.
struct Cluster {
    std::uint32_t write_operation = 0;
    bool durable = false;  // its write was acknowledged with FUA
    Touch first_end{kOpen, 0};
    Touch last_begin{0, 0};
    std::optional<std::uint32_t> flush;     // last_begin is this flush: the value survived a loss
    std::uint32_t survivor_seen_by = 0;     // by this read, where `flush` is set
    std::optional<std::uint32_t> found_by;  // by this read after the loss at which it begins

    Precedence precedence;
    unsigned durables_before = 0;  // so many writes with FUA have to come before this survivor

    bool forward() const { return first_end.at < last_begin.at; }
    void touch(Time begin, Time end, std::uint32_t operation) {
        if (end < first_end.at) first_end = Touch{end, operation};
        if (begin > last_begin.at || last_begin.at == 0) {
            last_begin = Touch{begin, operation};
            flush.reset();
        }
    }
};

/// The forward zones in their order.
class Zones {
  public:
    /// Returns what is impossible among the clusters alone.
    std::optional<Contradiction> build(std::span<const Cluster> clusters);
    /// The zone with first_end < at < last_begin, null where there is none.
    const Cluster* around(Time at) const;
    /// The earliest moment at or after `at` that is in no zone; the latest at or before it.
    Time earliest(Time at) const;
    Time latest(Time at) const;
    std::span<const Cluster* const> forward() const { return forward_; }

  private:
    std::vector<const Cluster*> forward_;
};

}  // namespace ublkd::history
