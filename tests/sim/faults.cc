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
        case FaultKind::kBar:
            return "barred replica";
        case FaultKind::kPartition:
            return "partition";
        case FaultKind::kCut:
            return "cut connection";
        case FaultKind::kPause:
            return "pause";
        case FaultKind::kOutage:
            return "outage";
        case FaultKind::kHostPowerCut:
            return "power cut of one host";
        case FaultKind::kAuthorityAway:
            return "authority away";
        case FaultKind::kAuthorityLoss:
            return "authority restored";
        case FaultKind::kDetach:
            return "forced detach";
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
    draw(FaultKind::kBar, scenario.bars);
    draw(FaultKind::kPartition, scenario.partitions);
    draw(FaultKind::kCut, scenario.cuts);
    draw(FaultKind::kPause, scenario.pauses);
    draw(FaultKind::kOutage, scenario.outages);
    draw(FaultKind::kHostPowerCut, scenario.host_power_cuts);
    draw(FaultKind::kAuthorityAway, scenario.authority_aways);
    draw(FaultKind::kAuthorityLoss, scenario.authority_losses);
    draw(FaultKind::kDetach, scenario.detaches);
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
        case FaultKind::kBar: {
            const ReplicaId id = disks_[fault.which % disks_.size()]->member.replica;
            if (!authority.record.has(id)) authority.bar(id);
            break;
        }
        case FaultKind::kPartition:
            partition(fault);
            break;
        case FaultKind::kCut:
            network.cut(fault.which % processes_.size(),
                        (fault.which / processes_.size()) % processes_.size());
            break;
        case FaultKind::kPause:
            pause(process, fault.length_us);
            break;
        case FaultKind::kOutage:
        case FaultKind::kHostPowerCut:
            go_down(process, fault.kind == FaultKind::kHostPowerCut, fault.length_us);
            break;
        case FaultKind::kAuthorityAway:
            authority.set_away(true);
            clock.after(fault.length_us, nullptr, [this] { authority.set_away(false); });
            break;
        case FaultKind::kAuthorityLoss:
            authority.restore(fault.which % 6);
            break;
        case FaultKind::kDetach: {
            Attachment& from = *attachments_[fault.which % attachments_.size()];
            if (detach_ || from.forced_off) break;
            from.forced_off = true;
            detach_ = Detach{.from = &from};
            trace(clock.now_us(), "client %llu is FORCED OFF",
                  static_cast<unsigned long long>(from.endpoint - kFirstClient));
            break;
        }
    }
}

/// A host goes down and comes back after a while.
void World::go_down(Process& process, bool power_cut, std::uint64_t length_us) {
    if (!process.running.up) return;
    die(process, power_cut);
    clock.after(length_us, nullptr, [this, &process] {
        if (process.running.up) return;
        process.running.up = true;
        start(process);
    });
}

/// Of two hosts, or of one direction between them.
void World::partition(const Fault& fault) {
    const std::size_t count = processes_.size();
    const std::size_t a = fault.which % count;
    const std::size_t b = (a + 1 + (fault.which / count) % (count - 1)) % count;
    const std::uint64_t until = clock.now_us() + fault.length_us;
    const bool one_way = (fault.which / 1000) % 3 == 0;
    trace(clock.now_us(), "PARTITION: host %zu does not reach %zu%s, for %llu us", a, b,
          one_way ? "" : ", nor the other way round",
          static_cast<unsigned long long>(fault.length_us));
    network.block(a, b, until);
    if (!one_way) network.block(b, a, until);
}

void World::pause(Process& process, std::uint64_t length_us) {
    if (!process.running.up || process.running.paused) return;
    trace(clock.now_us(), "process %zu STOPS for %llu us", process.index,
          static_cast<unsigned long long>(length_us));
    process.running.paused = true;
    clock.after(length_us, nullptr, [this, &process, life = process.running.life] {
        if (process.running.life != life || !process.running.paused) return;
        process.running.paused = false;
        clock.resume(&process.running);
    });
}

void World::cut_power() {
    // A member whose disk failed for good while the others lose what was not flushed leaves nobody
    // who may go on: that is an operator's force.
    for (const auto& disk : disks_) {
        if (disk->failed && authority.record.has(disk->member.replica)) return;
    }
    for (const auto& process : processes_) {
        if (process->running.up) {
            die(*process, true);
        } else {  // it was down already; what it had under way is long over
            ++process->boot;
        }
    }
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
        if (in_sync(*disk) && !disk->gives_up) healthy.push_back(disk.get());
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
        if (disk->failed || !process.started || replica(id) != nullptr ||
            authority.record.has(id) || authority.barred(id))
            continue;
        disk->lies = scenario.lies && timing.one_in(2);
        open(process, *disk, false);
        (void)primary->node.add(disk->member);
        return;
    }
}

void World::end_faults() {
    trace(clock.now_us(), "ALL FAULTS END");
    unreadable = false;
    for (const auto& disk : disks_) disk->full = false;
    network.heal();
    authority.set_away(false);
    for (const auto& process : processes_) {
        if (std::exchange(process->running.paused, false)) clock.resume(&process->running);
        if (process->running.up) continue;
        process->running.up = true;
        start(*process);
    }
    // A volume that nobody uses has no primary after its last one died (R6).
    for (const auto& attachment : attachments_) {
        if (hosts() && !attachment->forced_off && !waits_for_place(*attachment))
            attachment->last_issue();
    }
}

}  // namespace ublkd::sim
