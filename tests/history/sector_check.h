// Is what clients did to one sector, and saw of it, possible for a register that applies one
// operation at a time (linearizability), and that keeps over a loss event what was flushed? Every
// write has a value of its own, except that writes of zeroes and discards all write zero.
//
// Values of one write: P. Gibbons and E. Korach, "Testing shared memories", SIAM J. Comput. 26
// (1997), section 4. The operations on one value form a cluster. Where the first end in it comes
// before the last begin, the value was in place all that time (a forward zone). Otherwise all of
// them have a time in common (a backward zone) and one moment of it is enough. Impossible are: a
// read that ended before its write began, two forward zones that overlap, a backward zone within a
// forward one.
//
// Zeroes: between the forward zones a sweep over time keeps zero in place as long as it can
// (values with a backward zone go to where they do no harm, else to their latest moment) and uses a
// write of zeroes as late as it can (at its own end, or when a read of zeroes is about to end and
// zero is not there; the one that ends first is taken). A read of zeroes that finds none is the
// contradiction.
//
// Loss: docs/testing-history.md. A discard with FUA, then a value that survives a loss: that their
// order and the reads of zeroes are possible is checked one by one, not together; all else is
// exact. Time O(n log n) for n events. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace ublkd::history {

/// Nanoseconds of one monotonic clock (or any counter that grows); below 2^62.
using Time = std::uint64_t;
inline constexpr Time kOpen = UINT64_MAX;  // an end that is not known, perhaps never

/// One read or write of the sector.
struct SectorEvent {
    bool write = false;
    bool durable = false;     // an acknowledged write with FUA
    std::uint64_t value = 0;  // 0: zeroes, as at the start; others: each written once
    Time begin = 0;
    Time end = 0;                 // kOpen: a write that may have happened at any time since, or not
    std::uint32_t operation = 0;  // index in the history, for the report
};

/// An acknowledged flush: what had ended when it began is durable.
struct Flush {
    Time begin = 0;
    Time end = 0;
    std::uint32_t operation = 0;
};

/// At one moment of this time unflushed writes may have been lost (a power cut).
struct Loss {
    Time begin = 0;
    Time end = 0;
};

enum class Why {
    kNeverWritten,    // `later` read a value that nobody wrote
    kWrittenTwice,    // `earlier` and `later` wrote one value: not a history of this kind
    kFromTheFuture,   // `later` read what `earlier` wrote, and ended before that began
    kOldValue,        // `later` read a value that `earlier` had replaced
    kNotZeroYet,      // `later` read zeroes while the value of `earlier` was in place
    kNeverZeroed,     // `later` read zeroes after `earlier`, and nothing zeroed in between
    kZeroesVanished,  // `earlier` wrote zeroes; `later` read the value from before them
    kLostFlushed,     // after a loss `later` saw a value that `earlier`, durable, had replaced
    kTwoAfterLoss,    // after a loss `earlier` and `later` read two values from before it
};

/// The two operations that contradict each other, and what ties them down.
struct Contradiction {
    Why why = Why::kNeverWritten;
    std::uint32_t earlier = 0;
    std::uint32_t later = 0;
    std::optional<std::uint32_t> before;  // shows that the value of `later` was older: it had ended
    std::optional<std::uint32_t> since;   // before this one began, which has the value of `earlier`
    std::optional<std::uint32_t> flush;   // what made `earlier` durable, where that was a flush
};

/// nullopt where the history is possible. `losses`: in their order, apart from each other.
std::optional<Contradiction> check_sector(std::span<const SectorEvent> events,
                                          std::span<const Flush> flushes = {},
                                          std::span<const Loss> losses = {});

}  // namespace ublkd::history
