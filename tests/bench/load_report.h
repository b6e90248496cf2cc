// What a server process used meanwhile: CPU time of all its threads, ended ones too, and context
// switches of those that live.
#pragma once

#include <cstdint>

namespace ublkd::bench {

struct ProcessUse {
    double cpu_us = 0;
    std::uint64_t context_switches = 0;
};

/// All zero for pid 0.
ProcessUse use_of_process(int pid);

}  // namespace ublkd::bench
