// Decides small histories of one sector by trying every order: what sector_check.h is held against.
#pragma once

#include <span>

#include "tests/history/sector_check.h"

namespace ublkd::history {

/// At most 16 events, flushes and losses together; values below 32.
bool possible_by_brute_force(std::span<const SectorEvent> events, std::span<const Flush> flushes,
                             std::span<const Loss> losses);

}  // namespace ublkd::history
