// Judges a history: each sector of it by sector_check.h, and what reads found that no history
// explains (torn and misplaced sectors).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/history/history.h"

namespace ublkd::history {

/// The same thing wrong in one sector or in several in a row.
struct Finding {
    enum class What : std::uint8_t { kContradiction, kTorn, kMisplaced, kNowhere };
    What what = What::kContradiction;
    std::uint64_t sector = 0;
    std::uint64_t count = 1;
    Contradiction contradiction{};  // of kContradiction
    std::uint32_t read = 0;         // of the others: the operation
    Seen seen{};                    // and what it found
};

struct Verdict {
    std::vector<Finding> findings;  // by sector
    std::uint64_t sectors = 0;      // that were judged
};

/// One finding for each sector at most.
Verdict judge(const History& history);

/// In words: each finding with its two operations, at most `most` of them.
std::string report(const History& history, const Verdict& verdict, std::size_t most = 10);

/// "812 operations of 4 clients (400 reads, 300 changes, 50 flushes; 3 failed, 2 of unknown
/// outcome), 0 losses, 2048 sectors".
std::string summary(const History& history, const Verdict& verdict);

}  // namespace ublkd::history
