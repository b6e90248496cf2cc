// Hosts that leave the cluster: drained, then forgotten; or forgotten as they are, where they are
// gone for good.
#include <fmt/format.h>

#include "ublkd/daemon/etcd_metadata.h"
#include "ublkd/daemon/host_records.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/system_control.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::InstanceRecord;
using metadata::PoolRecord;
using metadata::ReplicaRecord;
using metadata::Transaction;

ApiResult<api::HostView> SystemControl::drain_host(const std::string& name, bool drain) {
    API_TRY_ASSIGN(const auto host, find_host(core_.store, name));
    const auto records = core_.store->list<PoolRecord>(metadata::where("host", host.id));
    if (!records) return refuse(records.error(), "cannot list the host's pools");
    std::vector<PoolId> pools;
    for (const PoolRecord& pool : *records) pools.push_back(pool.id);
    API_TRY(core_.pools->set_draining(pools, drain));
    return view_of(host);
}

namespace {

/// `left`: what is attached to an instance of the host.
Result<void> check_nothing_attached(Transaction& tx, HostId host, std::string& left) {
    TRY_ASSIGN(const auto instances, tx.list<InstanceRecord>(metadata::where("host", host)));
    for (const auto& instance : instances) {
        TRY_ASSIGN(const auto attached,
                   tx.list<metadata::AttachmentRecord>(metadata::where("instance", instance.id)));
        for (const auto& attachment : attached)
            left = fmt::format("{} is attached to {} there: 'ebs-cli detach {} --force'",
                               attachment.volume.to_string(), instance.id.to_string(),
                               attachment.volume.to_string());
        if (!attached.empty()) return fail(Errc::kBusy, "attached");
    }
    return {};
}

/// Those in its pools, which are no members; `left`: what is a member there.
Result<void> erase_replicas(Transaction& tx, HostId host, std::string& left) {
    TRY_ASSIGN(const auto pools, tx.list<PoolRecord>(metadata::where("host", host)));
    for (const auto& pool : pools) {
        TRY_ASSIGN(const auto replicas, tx.list<ReplicaRecord>(metadata::where("pool", pool.id)));
        for (const auto& replica : replicas) {
            TRY_ASSIGN(const auto record, tx.get<metadata::MembershipRecord>(replica.volume));
            const bool frozen = record && record->frozen;  // it may be one in truth (R16)
            if (frozen || (record && record->membership && record->membership->has(replica.id))) {
                left = fmt::format(
                    "{} has its replica {} in {} there: 'ebs-cli why {}' tells "
                    "what it waits for",
                    replica.volume.to_string(), replica.id.to_string(), pool.path,
                    replica.volume.to_string());
                return fail(Errc::kBusy, "a member");
            }
            TRY(metadata::PermissionService::revoke_all(tx, replica.id));
            TRY(tx.erase(replica));
        }
    }
    return {};
}

/// What it was to carry out of volumes' creation and deletion is `heir`'s.
Result<void> hand_on_volumes(Transaction& tx, HostId host, HostId heir) {
    TRY_ASSIGN(auto volumes, tx.list<metadata::VolumeRecord>());
    for (auto& volume : volumes) {
        if (volume.home != host) continue;
        volume.home = heir;
        TRY(tx.put(volume));
    }
    return {};
}

}  // namespace

ApiResult<void> SystemControl::remove_host(const std::string& name, bool force) {
    API_TRY_ASSIGN(const auto host, find_host(core_.store, name));
    if (host.id == core_.identity->host())
        return refuse(
            "IncorrectState",
            fmt::format("{} is this host: remove it at another one, or, where it keeps the "
                        "metadata, not at all",
                        host.name));
    // Which one that is, only it knows: nobody else may forget it.
    const std::string& metadata = core_.configuration->metadata;
    if (!metadata.empty() && !is_in_etcd(*core_.configuration))
        return refuse(
            "IncorrectState",
            fmt::format("a host is removed at the one that keeps the metadata ({})", metadata));
    if (force && volumes_->answers(host.id))
        return refuse(
            "IncorrectState",
            fmt::format("{} answers: 'ebs-cli host drain {}', then remove its pools there "
                        "('ebs-cli pool remove'), then remove it without --force",
                        host.name, host.name));
    std::string left;
    const auto erased = core_.store->write([&](Transaction& tx) -> Result<void> {
        left.clear();
        TRY_ASSIGN(const auto pools, tx.list<PoolRecord>(metadata::where("host", host.id)));
        if (!pools.empty() && !force) {
            left = fmt::format(
                "it has {} pool{}: 'ebs-cli host drain {}', then 'ebs-cli pool "
                "remove' there; or --force where it is gone for good",
                pools.size(), pools.size() == 1 ? "" : "s", host.name);
            return fail(Errc::kBusy, "has pools");
        }
        TRY(check_nothing_attached(tx, host.id, left));
        TRY(erase_replicas(tx, host.id, left));
        TRY(hand_on_volumes(tx, host.id, core_.identity->host()));
        TRY(erase_host(tx, host.id));
        return EventLog::add_in(tx, "host.removed", host.id.to_string(),
                                force ? host.name + ", which did not answer" : host.name);
    });
    if (!left.empty())
        return refuse("HostInUse", fmt::format("host {} is not removed: {}", host.name, left));
    if (!erased) return refuse(erased.error(), "cannot remove the host " + host.name);
    core_.pools->learn(core_.identity->host());
    return {};
}

}  // namespace ublkd::daemon
