// What goes wrong in a run.
#include <algorithm>
#include <utility>

#include "tests/sim/world.h"

namespace ublkd::sim {

using replication::Role;

const char* to_string(FaultKind kind) {
    switch (kind) {
        case FaultKind::kKill:
            return "kill";
        case FaultKind::kPowerCut:
            return "power cut";
        case FaultKind::kStopCutShort:
            return "stop cut short";
        case FaultKind::kDiskFailure:
            return "disk failure";
        case FaultKind::kFill:
            return "full disks";
        case FaultKind::kJoin:
            return "join";
        case FaultKind::kKillWithoutDisk:
            return "kill without a disk";
        case FaultKind::kDiskReturn:
            return "disk return";
        case FaultKind::kImage:
            return "image";
    }
    return "?";
}

std::vector<Fault> draw_faults(const Scenario& scenario, std::uint64_t seed) {
    Random random(seed, 3);
    std::vector<Fault> faults;
    const std::uint64_t run_us = static_cast<std::uint64_t>(scenario.milliseconds) * 1000;
    const auto draw = [&](FaultKind kind, int mean) {
        const std::uint64_t count = random.below(static_cast<std::uint64_t>(mean) * 2 + 1);
        for (std::uint64_t i = 0; i < count && mean > 0; ++i)
            faults.push_back({.kind = kind,
                              .at_us = random.below(run_us),
                              .which = random.below(1'000'000),
                              .length_us = random.spread(200, 60'000)});
    };
    draw(FaultKind::kKill, scenario.kills);
    draw(FaultKind::kPowerCut, scenario.power_cuts);
    draw(FaultKind::kStopCutShort, scenario.stops_cut_short);
    draw(FaultKind::kDiskFailure, scenario.disk_failures);
    draw(FaultKind::kFill, scenario.fills);
    draw(FaultKind::kJoin, scenario.joins);
    draw(FaultKind::kKillWithoutDisk, scenario.kills_without_disk);
    draw(FaultKind::kDiskReturn, scenario.disk_returns);
    draw(FaultKind::kImage, scenario.images);
    std::stable_sort(faults.begin(), faults.end(),
                     [](const Fault& a, const Fault& b) { return a.at_us < b.at_us; });
    return faults;
}

void World::happen(const Fault& fault) {
    if (clock.now_us() > ends_us_) return;
    check_maps();
    Process& process = *processes_[fault.which % processes_.size()];
    switch (fault.kind) {
        case FaultKind::kKill:
        case FaultKind::kKillWithoutDisk:
            if (!process.running.up) break;
            die(process, false);
            if (fault.kind == FaultKind::kKillWithoutDisk) fail_disk(fault);
            process.running.up = true;
            start(process);
            break;
        case FaultKind::kPowerCut:
            cut_power();
            break;
        case FaultKind::kStopCutShort:
            cut_stop_short();
            break;
        case FaultKind::kDiskFailure:
            fail_disk(fault);
            break;
        case FaultKind::kFill:
            fill_disks(fault);
            break;
        case FaultKind::kJoin:
            join();
            break;
        case FaultKind::kDiskReturn:
            return_disk();
            break;
        case FaultKind::kImage: {
            Disk& disk = *disks_[fault.which % disks_.size()];
            if (!disk.failed) disk.make_image();
            break;
        }
    }
}

void World::cut_power() {
    // A member whose disk failed for good while the others lose what was not flushed leaves nobody
    // who may go on: that is an operator's force.
    for (const auto& disk : disks_) {
        if (disk->failed && authority.record.has(disk->member.replica)) return;
    }
    for (const auto& process : processes_) die(*process, true);
    for (const auto& process : processes_) {
        process->running.up = true;
        start(*process);
    }
}

/// The power goes while the volume stops: all is durable, and some members are marked clean
/// already.
void World::cut_stop_short() {
    const Replica* const primary = serving();
    const bool quiet = primary != nullptr && !busy();
    if (!quiet || authority.record.number != primary->node.number()) return;
    for (const auto& disk : disks_) {
        if (!authority.record.has(disk->member.replica) || disk->failed) continue;
        disk->make_durable(0, kSectors);
        disk->activity.clear();
        disk->clean = timing.one_in(2);
    }
    cut_power();
}

/// One of several members fails for good; never the last.
void World::fail_disk(const Fault& fault) {
    const Replica* const primary = serving();
    const bool fresh = primary != nullptr && authority.record.number == primary->node.number();
    if (!fresh && fault.kind == FaultKind::kDiskFailure) return;
    std::vector<Disk*> healthy;
    for (const auto& disk : disks_) {
        // For one that was found lost a proposal without it may be on its way.
        const bool stays = disk->gives_up != authority.record.number;
        if (in_sync(*disk) && stays) healthy.push_back(disk.get());
    }
    if (healthy.size() < 2) return;
    Disk& disk = *healthy[fault.which % healthy.size()];
    trace(clock.now_us(), "disk %llu FAILS",
          static_cast<unsigned long long>(disk.member.replica.value()));
    disk.failed = true;
}

/// What it holds is what it held when it failed, or a copy that was made before.
void World::return_disk() {
    for (const auto& disk : disks_) {
        const ReplicaId id = disk->member.replica;
        if (!disk->failed || authority.record.has(id) || replica(id) != nullptr) continue;
        trace(clock.now_us(), "disk %llu ANSWERS again",
              static_cast<unsigned long long>(id.value()));
        disk->failed = false;
        if (!disk->has_image() || timing.one_in(3)) return;
        trace(clock.now_us(), "as an older IMAGE of itself");
        disk->put_image_back();
        return;
    }
}

void World::fill_disks(const Fault& fault) {
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        disks_[i]->full = !disks_[i]->full && ((fault.which >> i) & 1) != 0;
        if (disks_[i]->full) trace(clock.now_us(), "disk %zu is FULL", i + 1);
    }
}

void World::join() {
    Replica* const primary = serving();
    if (primary == nullptr || primary->node.joining()) return;
    for (const auto& disk : disks_) {
        const ReplicaId id = disk->member.replica;
        Process& process = *processes_[disk->process];
        if (disk->failed || !process.running.up || replica(id) != nullptr ||
            authority.record.has(id))
            continue;
        open(process, *disk, false);
        (void)primary->node.add(disk->member);
        return;
    }
}

void World::end_faults() {
    trace(clock.now_us(), "ALL FAULTS END");
    unreadable = false;
    for (const auto& disk : disks_) disk->full = false;
}

}  // namespace ublkd::sim
