// Makes a failing run smaller: fewer faults, fewer requests, and another timing where that helps.
#pragma once

#include <string>

#include "tests/sim/scenario.h"

namespace ublkd::sim {

/// `options` must fail. What is returned fails too.
RunOptions shrink(RunOptions options);
/// The arguments of sim_run that repeat the run.
std::string arguments_of(const RunOptions& options);

}  // namespace ublkd::sim
