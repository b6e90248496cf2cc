// R16: after a restore of the metadata this host tells what its disks and its running volumes know
// of each volume that is frozen; when all hosts have told, it goes on (metadata/restored.h).
#include <fmt/format.h>

#include <algorithm>

#include "metadata/restored.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/volumes.h"
#include "ublkd/replication/node.h"

namespace ublkd::daemon {

using metadata::MembershipRecord;
using metadata::Transaction;

namespace {

/// Adds what a superblock says to a report.
Result<void> add_superblock(const store::Superblock& superblock, replication::HostReport& report) {
    for (const store::RecordBytes* bytes : {&superblock.record, &superblock.left_by}) {
        if (bytes->empty()) continue;
        TRY_ASSIGN(auto record, replication::decode_membership(bytes->span()));
        report.records.push_back(std::move(record));
    }
    if (superblock.pending.empty()) return {};
    TRY_ASSIGN(auto pending, replication::decode_proposal(superblock.pending.span()));
    report.pending.push_back(std::move(pending));
    return {};
}

}  // namespace

/// Neither starts nor stops the volume meanwhile: what is being started knows what is seen nowhere.
Result<void> Volumes::report_volume(VolumeId volume, const std::vector<FoundReplica>& found) {
    const auto ref = slot(volume);
    const std::unique_lock life(ref->life, std::try_to_lock);
    if (!life.owns_lock()) return fail(Errc::kBusy, "the volume starts or stops");
    const auto running = [&] {
        const std::lock_guard state(ref->state);
        return ref->running;
    }();
    metadata::VolumeReport report;
    if (running) {
        TRY_ASSIGN(report.known, running->known());
    }
    report.known.host = core_.identity->host();
    for (const auto& replica : found) {
        if (replica.superblock.volume != volume) continue;
        report.replicas.push_back({replica.id, replica.pool});
        // Again, now that nothing of the volume begins or ends: what a member has stored and left
        // since it was asked is there.
        TRY_ASSIGN(const auto now, core_.pools->superblock_of(replica.pool, replica.id));
        TRY(add_superblock(now, report.known));
    }
    TRY_ASSIGN(const auto confirmation,
               core_.store->write_for<metadata::Confirmation>(
                   [&](Transaction& tx) { return metadata::confirm(tx, volume, report); }));
    if (confirmation.frozen) return {};
    core_.events->announce();
    changed_();
    return {};
}

std::string Volumes::waits_after_restore(VolumeId volume) {
    const auto confirmation = core_.store->read_for<metadata::Confirmation>(
        [&](Transaction& tx) { return metadata::confirmation_of(tx, volume); });
    if (!confirmation || !confirmation->frozen) return "";
    const std::string own = [&] {
        const std::lock_guard lock(mutex_);
        return report_trouble_.empty() ? "" : fmt::format(" (here: {})", report_trouble_);
    }();
    return fmt::format(
        "after a restore of the metadata nothing is decided before all hosts have "
        "told what they know of it: {}{}",
        confirmation->waits_for.empty() ? "the next round" : confirmation->waits_for, own);
}

void Volumes::report_restored() {
    if (ending_) return;
    const auto frozen = core_.store->list<MembershipRecord>(metadata::where("frozen", true));
    if (!frozen || frozen->empty()) return;
    // Before anything is read: what the store said earlier is not listened to any more.
    core_.authority_client->promise();
    std::string where;
    const auto found = core_.pools->find_replicas(&where);
    const std::string trouble = found ? "" : fmt::format("{}: {}", where, to_string(found.error()));
    {
        const std::lock_guard lock(mutex_);
        if (!found && report_trouble_ != trouble)
            log::warn("the metadata were restored, and what the replicas know is not known: {}",
                      trouble);
        report_trouble_ = trouble;
    }
    if (!found) return;
    for (const auto& record : *frozen) {
        if (const auto done = report_volume(record.volume, *found); !done)
            log::info("volume {}: its report after a restore: {}", record.volume.to_string(),
                      to_string(done.error()));
    }
}

}  // namespace ublkd::daemon
