// What a run is made of: processes, members, clients, and how many faults of each kind befall them.
// The faults of a run are drawn from its seed before it begins, so that a shrunk run can leave some
// of them out. The list of scenarios: scenarios.cc; what each is for: docs/testing.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ublkd::sim {

struct Scenario {
    std::string_view name;
    std::size_t members = 2;
    std::size_t spares = 0;         // replicas that may join
    std::size_t hosts = 1;          // a process, and a part of the disks, on each
    std::size_t clients = 1;        // attachments, one after the other on the hosts
    int milliseconds = 150;         // how long guests send requests
    std::uint64_t pause_us = 2000;  // between two of a guest, at most
    int flush_percent = 8;          // of the guests' requests
    bool wait_on_full = true;
    std::uint64_t copy_bytes_per_second = 0;  // R12; 0: no limit
    int equal_percent = 0;    // of the guests' requests: verify's, to make a range equal (R14)
    int hold_percent = 0;     // of the guests' requests: verify's, to keep writes off a range
    bool durable = false;     // each change is durable when it is answered
    int cut_percent = 0;      // of the guests' requests: a snapshot's, to cut the volume (R18)
    bool scribble = false;    // guests change their pages while they are written (R13)
    bool unreadable = false;  // sectors that can't be read (R14)
    bool lies = false;        // who joins may have a disk that keeps no whole pages (R12)
    bool loses_ids = false;   // tables of ids are gone after a death in the same boot (R8)
    bool strays = false;      // messages arrive that no connection should bring (R1); hosts alone
    // How many faults of a kind befall a run, on the average.
    int kills = 0;               // a process dies and starts again in the same boot
    int power_cuts = 0;          // all hosts lose their power
    int stops_cut_short = 0;     // the power goes while the volume is being stopped
    int disk_failures = 0;       // a disk answers with errors from then on
    int kills_without_disk = 0;  // a process dies, and starts again without one of its disks
    int disk_returns = 0;        // and a disk that did so answers again
    int fills = 0;               // disks become full, or have space again
    int joins = 0;               // a spare, or a former member, is brought in
    int bars = 0;                // a replica that is no member is barred: it never joins again
    int images = 0;              // a copy of a disk is made; it may come back in that one's place
    // Of several hosts.
    int partitions = 0;        // two hosts don't reach each other, or one not the other
    int cuts = 0;              // connections between two hosts break
    int pauses = 0;            // a process stops and goes on
    int outages = 0;           // a process dies, and starts again after a while
    int host_power_cuts = 0;   // one host loses its power
    int authority_aways = 0;   // the authority answers nobody
    int authority_losses = 0;  // it is restored from a backup (R16)
    int detaches = 0;          // an attachment is forced off, and another one comes (R15)
};

enum class FaultKind : std::uint8_t {
    kKill,
    kPowerCut,
    kStopCutShort,
    kDiskFailure,
    kFill,
    kJoin,
    kKillWithoutDisk,
    kDiskReturn,
    kImage,
    kBar,
    kPartition,
    kCut,
    kPause,
    kOutage,
    kHostPowerCut,
    kAuthorityAway,
    kAuthorityLoss,
    kDetach
};
const char* to_string(FaultKind kind);

struct Fault {
    FaultKind kind{};
    std::uint64_t at_us = 0;
    std::uint64_t which = 0;  // drawn; says whom it befalls
    std::uint64_t length_us = 0;
};

/// One run. Equal options give equal runs.
struct RunOptions {
    Scenario scenario;
    std::uint64_t seed = 1;
    std::uint64_t timing = 0;  // the seed of what takes how long; 0: the run's own seed
    std::optional<std::vector<std::size_t>> only;  // the faults that happen, by index; none: all
    std::size_t requests_max = SIZE_MAX;
};

const std::vector<Scenario>& scenarios();
const Scenario* find_scenario(std::string_view name);
std::vector<Fault> draw_faults(const Scenario& scenario, std::uint64_t seed);

}  // namespace ublkd::sim
