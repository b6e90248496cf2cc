// Is what clients saw of one sector possible for a register that applies one operation at a time
// (linearizability)? Every write has an id of its own, so Gibbons' and Korach's zones decide it:
// the operations of one value form a cluster; its zone reaches from the first end to the last start
// in it. Where the first end comes before the last start the value must have been in place all that
// time (a forward zone). Impossible are: a value nobody wrote, a read that ended before its write
// started, two forward zones that overlap, and a whole cluster within another's forward zone.
// Source: P. Gibbons, E. Korach, "Testing shared memories", SIAM J. Comput. 26 (1997), section 4.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ublkd::suites {

/// One read or write of the sector. Times come from one counter that grows by each event.
struct SectorEvent {
    bool write = false;
    std::uint64_t value = 0;  // id of the write; 0: what was there at the start
    std::uint64_t start = 0;  // > 0
    std::uint64_t end = 0;    // > start; for a write without a known end: UINT64_MAX
};

/// Empty where the history is possible, else what contradicts what.
std::string contradiction(const std::vector<SectorEvent>& events);

}  // namespace ublkd::suites
