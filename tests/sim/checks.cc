// What must hold while a run goes on, and at its end.
#include <algorithm>
#include <cstring>

#include "tests/sim/world.h"

namespace ublkd::sim {

using replication::Role;

void World::check_loss(const replication::Membership& record) {
    for (const replication::Member& member : record.members) {
        const Disk& disk = *disks_[member.replica.value() - 1];
        const bool kept =
            disk.boot == processes_[disk.process]->boot && disk.ids_of_member && disk.record;
        // Told by a late message from before the last power cut that it is in sync, and nobody has
        // served since: it has nothing that others lack.
        const bool empty = served_ < disk.in_sync_from;
        if (kept && !disk.failed && !empty)
            wrong("writes were given up as lost that member " +
                  std::to_string(member.replica.value()) + " has");
    }
}

void World::check_read(std::uint64_t value, std::uint64_t begin) {
    if (const auto found = fenced_.find(value); found != fenced_.end() && begin > found->second)
        wrong("a write of an attachment that was fenced came later: " + std::to_string(value));
}

/// Acknowledged => on every member of the record. The range lock is held until the answer is sent,
/// so nothing can have been written over it; a record that was replaced since is judged by the
/// history alone.
void World::check_answer(const Replica& primary, const replication::Message& answer) {
    const replication::Membership& record = *primary.node.record();
    if (record.number != authority.in_force().number || scenario.scribble) return;
    for (const replication::Member& member : record.members) {
        const Disk& disk = *disks_[member.replica.value() - 1];
        if (!in_sync(disk)) continue;  // R9: one that restarted is copied before it counts again
        for (const auto& attachment : attachments_) {
            if (const std::string missing = attachment->missing(answer, disk); !missing.empty())
                wrong(missing);
        }
    }
}

void World::check_read_error(const Replica& primary, std::uint64_t token) {
    const replication::Membership& record = *primary.node.record();
    if (record.number != authority.in_force().number) return;
    for (const auto& attachment : attachments_) {
        const auto range = attachment->range_of(replication::OpKind::kRead, token);
        if (!range) continue;
        for (const replication::Member& member : record.members) {
            const Disk& disk = *disks_[member.replica.value() - 1];
            if (&disk == primary.place || disk.gives_up || !in_sync(disk)) continue;
            if (!disk.unread.contains(range->offset_bytes))
                wrong("a read failed that member " + std::to_string(member.replica.value()) +
                      " was not asked for");
        }
    }
}

void World::check_hold(const Replica& primary, std::uint64_t token) {
    const replication::Membership& record = *primary.node.record();
    if (record.number != authority.in_force().number) return;
    Range held{};
    for (const auto& attachment : attachments_) {
        if (const auto range = attachment->range_of(replication::OpKind::kHold, token))
            held = *range;
    }
    const auto range_of = [&](const Disk& disk) {
        return std::span(disk.now).subspan(held.offset_bytes, held.length_bytes);
    };
    for (const replication::Member& member : record.members) {
        const Disk& disk = *disks_[member.replica.value() - 1];
        if (in_sync(disk) && !std::ranges::equal(range_of(*primary.place), range_of(disk)))
            wrong("members differ in a range that is held");
    }
}

void World::check_cut_members(const Replica& primary, std::uint64_t cut) {
    const replication::Membership& record = *primary.node.record();
    cuts_[cut] = primary.place->cuts[cut];
    if (record.number != authority.in_force().number) return;
    for (const replication::Member& member : record.members) {
        Disk& disk = *disks_[member.replica.value() - 1];
        if (!in_sync(disk)) continue;
        if (!disk.cuts.contains(cut)) {
            wrong("member " + std::to_string(member.replica.value()) + " lacks a cut");
            return;
        }
        for (std::size_t sector = 0; sector < kSectors; ++sector) {
            if (Disk::value_in(disk.cuts[cut], sector) != Disk::value_in(cuts_[cut], sector))
                wrong("members preserved different contents, sector " + std::to_string(sector));
        }
    }
}

void World::check_cut(const Request& request, std::uint64_t end) {
    const std::vector<std::byte>& content = cuts_[request.cut];
    const bool confirmed = request.kind == replication::OpKind::kCutHolds;
    std::vector<std::uint64_t> values;
    for (std::size_t sector = 0; sector < kSectors; ++sector) {
        values.push_back(Disk::value_in(content, sector));
        if (!confirmed) history.read(sector, request.begin, end, values.back());
    }
    const std::uint64_t before = confirmed ? request.begin : history.last_begin(values);
    if (const std::string lacks = history.lacks(values, request.begin, before); !lacks.empty())
        wrong(lacks);
}

bool World::in_sync(const Disk& disk) const {
    const bool this_boot = disk.boot == processes_[disk.process]->boot && disk.ids_of_member;
    const bool kept = this_boot || disk.clean;
    return !disk.failed && disk.record && kept && authority.in_force().has(disk.member.replica);
}

/// The activity maps of in-sync members cover every difference between them.
void World::check_maps() {
    for (const auto& process : processes_) {
        for (const auto& open : process->replicas) {
            const Disk& disk = *open->place;
            if (open->node.in_sync() && open->store_ops.empty() && !disk.failed && !disk.clean &&
                disk.boot != process->boot)
                wrong("replica " + std::to_string(disk.member.replica.value()) +
                      " is in sync, and its superblock says that it is not");
        }
    }
    const Disk* first = nullptr;
    for (const auto& disk : disks_) {
        if (!in_sync(*disk)) continue;
        if (first == nullptr) {
            first = disk.get();
            continue;
        }
        if (first->now == disk->now) continue;
        for (std::size_t sector = 0; sector < kSectors; ++sector) {
            const auto region = static_cast<std::uint32_t>(sector * kSectorBytes / kRegion);
            if (first->activity.contains(region) || disk->activity.contains(region)) continue;
            if (std::memcmp(first->now.data() + sector * kSectorBytes,
                            disk->now.data() + sector * kSectorBytes, kSectorBytes) != 0)
                wrong("members differ where no activity bit is set, sector " +
                      std::to_string(sector));
        }
    }
}

bool World::busy() const {
    for (const auto& attachment : attachments_) {
        // A client of a record that is long over may never hear that it was forced off.
        if (attachment->forced_off) continue;
        if (attachment->open() > 0 || !attachment->client) return true;
    }
    for (const auto& process : processes_) {
        if (!process->running.up || process->running.paused) return true;
        for (const auto& open : process->replicas) {
            const replication::Node& node = open->node;
            if (!open->idle() || node.proposing() || node.joining() || node.regions_to_copy() > 0 ||
                node.role() == Role::kProbing || node.role() == Role::kPreparing)
                return true;
        }
    }
    if (detach_ || authority.frozen()) return true;
    return network.under_way() > 0;
}

std::string World::why_busy() const {
    std::string text = "record " + std::to_string(authority.record.number);
    for (const auto& attachment : attachments_) {
        text += ", client " + std::to_string(attachment->endpoint - kFirstClient) + " has " +
                std::to_string(attachment->open()) + " open, " +
                std::to_string(attachment->client->parked()) + " parked";
    }
    for (const auto& process : processes_) {
        if (!process->running.up) text += ", process " + std::to_string(process->index) + " down";
        for (const auto& open : process->replicas) {
            const replication::Node& node = open->node;
            text += "; replica " + std::to_string(open->place->member.replica.value()) + ": role " +
                    std::to_string(static_cast<int>(node.role())) + ", number " +
                    std::to_string(node.number()) + ", " + std::to_string(node.open_ops()) +
                    " requests" + (node.proposing() ? ", proposing" : "") +
                    (node.joining() ? ", a copy" : "") + (node.in_sync() ? "" : ", out of sync") +
                    ", regions " + std::to_string(node.regions_to_copy());
        }
    }
    return text + "; messages " + std::to_string(network.under_way());
}

void World::check_end() {
    const Replica* const primary = serving();
    if (primary == nullptr) {
        wrong("nobody serves at the end");
        return;
    }
    if (!scenario.scribble) {
        // A last read of everything.
        if (!primary->place->failed) {
            for (std::size_t sector = 0; sector < kSectors; ++sector) {
                const std::uint64_t begin = tick();
                history.read(sector, begin, tick(), primary->place->value(sector));
                check_read(primary->place->value(sector), begin);
            }
        }
        if (const std::string found = history.check(); !found.empty()) wrong(found);
    }
    const Disk* first = nullptr;
    for (const auto& disk : disks_) {
        if (!authority.record.has(disk->member.replica) || disk->failed) continue;
        if (first == nullptr) first = disk.get();
        for (std::size_t sector = 0; sector < kSectors; ++sector) {
            if (std::memcmp(first->now.data() + sector * kSectorBytes,
                            disk->now.data() + sector * kSectorBytes, kSectorBytes) != 0)
                wrong("members differ at the end in sector " + std::to_string(sector));
        }
    }
}

}  // namespace ublkd::sim
