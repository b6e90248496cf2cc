// What the daemon does around the core: starting, ending, and looking after its replicas.
#include "tests/sim/process.h"

#include <algorithm>
#include <set>

#include "tests/sim/world.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::sim {

using replication::Member;
using replication::Role;

namespace {
constexpr std::uint64_t kLooksIn = 50;  // a host looks at the authority's record once in so many
}

/// `may_be_in_sync`: not where it is to be copied.
void World::open(Process& process, Disk& disk, bool may_be_in_sync) {
    if (may_be_in_sync && disk.record && disk.record->number > authority.record.number) {
        wrong("the authority is behind what a replica has stored");
        return;
    }
    process.replicas.push_back(std::make_unique<Replica>(this, &process, &disk));
    network.opened(disk.member.replica.value());
    const bool ids_known = disk.ids_of_member || faults::rule_off("rule.ids_of_this_boot");
    const bool known = disk.clean || (disk.boot == process.boot && ids_known);
    const bool in_sync = may_be_in_sync && disk.record && known;
    if (in_sync) disk.ids_of_member = true;
    process.replicas.back()->node.start({.record = disk.record,
                                         .pending = disk.pending,
                                         .in_sync = in_sync,
                                         .durable_through = disk.durable_through,
                                         .cleared_through = disk.cleared_through,
                                         .lost = disk.lost});
}

/// Opens the members that can be opened here, and tells their nodes the record. Where the authority
/// answers nobody the host waits for it.
void World::start(Process& process) {
    if (authority.away()) {
        clock.after(timing.spread(100, 5000), &process.running,
                    [this, &process] { start(process); });
        return;
    }
    process.started = true;
    const replication::Membership& record = authority.record;
    std::set<ReplicaId> wanted;
    for (const Member& member : record.members) wanted.insert(member.replica);
    for (const auto& disk : disks_) {
        // R4: what a proposal adds that is not settled is needed as well.
        if (disk->pending && wanted.contains(disk->member.replica)) {
            for (const Member& member : disk->pending->next.members) wanted.insert(member.replica);
        }
    }
    std::vector<ReplicaId> missing;
    for (const auto& disk : disks_) {
        if (disk->process != process.index || !wanted.contains(disk->member.replica)) continue;
        if (disk->failed) {
            missing.push_back(disk->member.replica);
            continue;
        }
        open(process, *disk, true);
    }
    for (const auto& attachment : attachments_) {
        if (attachment->process == &process && !waits_for_place(*attachment)) attachment->start();
    }
    Replica* primary = nullptr;
    Replica* heir = nullptr;
    for (const auto& open : process.replicas) {
        if (open->place->member.replica == record.primary) primary = open.get();
    }
    const bool elsewhere = disks_[record.primary.value() - 1]->process != process.index;
    for (const auto& open : process.replicas) {
        if (heir == nullptr && primary == nullptr && !elsewhere && open->node.in_sync() &&
            record.has(open->place->member.replica))
            heir = open.get();
    }
    const replication::Membership known = record;
    for (const auto& open : process.replicas) {
        if (open.get() != primary && open.get() != heir) open->node.begin(known, missing);
    }
    if (primary != nullptr) primary->node.begin(known, missing);
    if (heir != nullptr) heir->node.replace_primary(known, missing);
}

void World::die(Process& process, bool power_cut) {
    trace(clock.now_us(), "process %zu: %s", process.index, power_cut ? "POWER CUT" : "KILLED");
    ++(power_cut ? counts.power_cuts : counts.kills);
    ++process.running.life;
    process.running.up = false;
    process.running.paused = false;
    process.started = false;
    for (const auto& open : process.replicas) open->die();
    process.replicas.clear();
    for (const auto& disk : disks_) {
        if (disk->process == process.index) network.forget(disk->member.replica.value());
    }
    for (const auto& attachment : attachments_) {
        if (attachment->process != &process) continue;
        network.forget(attachment->endpoint);
        attachment->client.reset();
        if (power_cut) attachment->guest_dies();
    }
    if (!power_cut) {
        for (const auto& disk : disks_) {
            if (disk->process == process.index && scenario.loses_ids && timing.one_in(3))
                disk->lose_ids();
        }
        return;
    }
    ++process.boot;
    for (const auto& disk : disks_) {
        if (disk->process == process.index) disk->power_cut(timing);
    }
}

/// A record that was authorized late may have a member here that was none when the process started.
void World::open_new_members(Process& process) {
    if (!process.started || authority.away()) return;
    for (const auto& disk : disks_) {
        const ReplicaId id = disk->member.replica;
        if (disk->process != process.index || disk->failed || replica(id) != nullptr ||
            !authority.record.has(id))
            continue;
        open(process, *disk, true);
        if (replica(id) == nullptr) return;
        replica(id)->node.begin(replication::Membership(authority.record), {});
    }
}

/// Tells former members the record; closes those that are no members any more when nothing of them
/// is under way.
void World::look_after(Process& process) {
    if (hosts()) {
        open_new_members(process);
        for (const auto& open : process.replicas) {
            // What a node is not told it learns in the end: the host looks now and then.
            if (!authority.away() && timing.one_in(kLooksIn))
                open->node.on_current(&authority.record);
        }
    }
    Replica* const primary = serving();
    if (primary == nullptr) return;
    const replication::Membership record = *primary->node.record();
    for (const auto& open : process.replicas) {
        const ReplicaId id = open->place->member.replica;
        if (hosts() || record.has(id) || primary->node.joining() == id ||
            open->node.role() == Role::kOut)
            continue;
        if (open->node.number() < record.number) open->node.on_current(&record);
    }
    std::erase_if(process.replicas, [&](const std::unique_ptr<Replica>& open) {
        const ReplicaId id = open->place->member.replica;
        if (record.has(id) || authority.record.has(id) || primary->node.joining() == id ||
            !open->idle() || (network.under_way() > 0 && !hosts()))
            return false;
        network.forget(id.value());
        return true;
    });
}

bool World::waits_for_place(const Attachment& attachment) const {
    return detach_ && detach_->to == &attachment;
}

/// R15: the next number without it; when that is stored where the volume is served and nothing of
/// it is under way there, another one may come.
void World::follow_detach() {
    Replica* const primary = serving();
    if (!detach_ || primary == nullptr || authority.record.number != primary->node.number() ||
        !primary->process->running.up || primary->process->running.paused)
        return;
    const auto& attached = authority.record.attachments;
    const auto has = [&](AttachmentId id) {
        return std::find(attached.begin(), attached.end(), id) != attached.end();
    };
    std::vector<AttachmentId> wanted = attached;
    if (detach_->to == nullptr) {
        std::erase(wanted, detach_->from->id);
        (void)primary->node.set_attachments(wanted);
        if (!primary->node.fenced(detach_->from->id)) return;
        ++counts.fenced;
        trace(clock.now_us(), "client %llu is FENCED",
              static_cast<unsigned long long>(detach_->from->endpoint - kFirstClient));
        for (const auto& [sector, value] : detach_->from->unanswered()) {
            const bool there = std::any_of(disks_.begin(), disks_.end(), [&](const auto& disk) {
                return disk->value(sector) == value || disk->durable_value(sector) == value;
            });
            if (!there) fenced_.emplace(value, tick());
        }
        attachments_.push_back(std::make_unique<Attachment>(this, detach_->from->process,
                                                            kFirstClient + attachments_.size()));
        detach_->to = attachments_.back().get();
        return;
    }
    if (!has(detach_->to->id)) {
        wanted.push_back(detach_->to->id);
        (void)primary->node.set_attachments(wanted);
        return;
    }
    if (!detach_->to->process->started) return;
    detach_->to->start();
    guest_turn(*detach_->to);
    detach_.reset();
}

replication::HostReport World::report_of(const Process& process) const {
    replication::HostReport report{.host = HostId(process.index + 1), .records = {}, .pending = {}};
    for (const auto& disk : disks_) {
        if (disk->process != process.index || disk->failed) continue;
        if (disk->record) report.records.push_back(*disk->record);
        if (disk->left_by) report.records.push_back(*disk->left_by);
        if (disk->pending) report.pending.push_back(*disk->pending);
    }
    for (const auto& open : process.replicas) {
        if (open->node.newest_record()) report.records.push_back(*open->node.newest_record());
        if (open->node.proposal()) report.pending.push_back(*open->node.proposal());
    }
    return report;
}

}  // namespace ublkd::sim
