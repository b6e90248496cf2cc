#include <fmt/format.h>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/volumes.h"
#include "ublkd/volume/run_file.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::ReplicaRecord;
using metadata::Transaction;
using metadata::VolumeRecord;
using metadata::VolumeState;

ApiResult<void> Volumes::delete_volume(const std::string& name, bool dry_run) {
    API_TRY_ASSIGN(const auto found, find_volume(core_.store, name));
    const bool runs = [ref = slot(found.id)] {  // else it needs no reactor
        const std::lock_guard state(ref->state);
        return ref->running != nullptr;
    }();
    if (runs) {
        API_TRY(check_answers(found.id, false, "cannot delete " + name));
    }
    return unless_it_hangs<void>(
        found.id, false, "deletion of " + name,
        [this, id = found.id, name, dry_run] { return delete_one(id, name, dry_run); });
}

ApiResult<void> Volumes::delete_one(VolumeId volume, const std::string& name, bool dry_run) {
    const auto ref = slot(volume);
    API_TRY_ASSIGN(const auto operation, begin_operation(ref, name));
    API_TRY_ASSIGN(auto record, find_volume(core_.store, volume.to_string()));
    if (record.state == VolumeState::kInUse) {
        return refuse("VolumeInUse",
                      fmt::format("volume {} is attached: 'ebs-cli detach {}' first", name, name));
    }
    {
        const std::lock_guard state(ref->state);
        if (ref->users > (ref->joining ? 1u : 0u) + (ref->serves_others ? 1u : 0u))
            return refuse("IncorrectState",
                          fmt::format("the members of {} are being compared: wait for it", name));
        if (dry_run) return {};
        ref->deleting = true;
    }
    const auto known = core_.authority->current(volume);
    const auto deleted =
        known ? finish_delete(record) : refuse(known.error(), "cannot delete the volume " + name);
    const std::lock_guard state(ref->state);
    ref->deleting = false;
    return deleted;
}

/// Marks, stops, retires the record and the permissions, deletes the replicas. From the retirement
/// on nothing brings the volume back; a replica in a missing pool is deleted by the sweeper when
/// the pool is back.
ApiResult<void> Volumes::finish_delete(const VolumeRecord& record) {
    const auto ref = slot(record.id);
    const std::string id = record.id.to_string();
    const auto marked = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto stored, tx.get<VolumeRecord>(record.id));
        if (!stored) return fail(Errc::kNotFound, "the volume");
        stored->state = VolumeState::kDeleting;
        stored->home = core_.identity->host();
        return tx.put(*stored);
    });
    if (!marked) return refuse(marked.error(), "cannot delete the volume " + id);
    (void)faults::hit("daemon.delete.after_intent");
    const std::string begun =
        fmt::format("the deletion of {} has begun, but a step failed; that is tried again", id);
    end_deleted(record.id, ref);

    std::vector<ReplicaRecord> replicas;
    const auto erased = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto stored, tx.get<VolumeRecord>(record.id));
        if (!stored) return {};
        TRY_ASSIGN(replicas, tx.list<ReplicaRecord>(metadata::where("volume", record.id)));
        for (unsigned place = 0; place < metadata::place_limit(*stored); ++place) {
            TRY(metadata::PermissionService::delete_resource(tx, place_name(record.id, place)));
        }
        TRY(metadata::Authority::retire(tx, record.id));
        for (auto& replica : replicas) {
            replica.state = metadata::ReplicaState::kRemoving;
            TRY(tx.put(replica));
        }
        TRY(erase_tags(tx, id));
        TRY_ASSIGN(const auto tokens,
                   tx.list<metadata::ClientTokenRecord>(metadata::where("resource", id)));
        for (const auto& token : tokens) {
            TRY(tx.erase(token));
        }
        return {};
    });
    if (!erased) return refuse(erased.error(), begun);
    (void)faults::hit("daemon.delete.after_record");
    for (const auto& replica : replicas) discard_replica(core_, replica.id, replica.pool);
    const auto gone = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto left, tx.list<ReplicaRecord>(metadata::where("volume", record.id)));
        for (const auto& replica : left) {
            TRY(tx.erase(replica));
        }
        TRY_ASSIGN(const auto stored, tx.get<VolumeRecord>(record.id));
        if (stored) {
            TRY(tx.erase(*stored));
        }
        return EventLog::add_in(tx, "volume.deleted", id, "");
    });
    if (!gone) return refuse(gone.error(), begun);
    volume::RunFile::remove_all(core_.configuration->run_dir, record.id);
    core_.events->announce();
    changed_();  // the sweeper confirms the deletes, now or when a missing pool is back
    {
        const std::lock_guard lock(mutex_);
        slots_.erase(record.id);
    }
    return {};
}

}  // namespace ublkd::daemon
