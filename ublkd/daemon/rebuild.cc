#include "ublkd/daemon/rebuild.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "ublkd/daemon/names.h"
#include "ublkd/daemon/system.h"
#include "ublkd/store/pool.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::Transaction;
using replication::Membership;

namespace {

Result<FoundPool> look_in(const std::string& folder) {
    TRY_ASSIGN(const auto pool, store::Pool::open(folder));
    TRY_ASSIGN(const auto space, pool->space());
    FoundPool found;
    found.record.id = pool->id();
    found.record.path = folder;
    found.record.domain = pool->domain();
    if (space.cap_bytes != 0) found.record.size_bytes = space.cap_bytes;
    if (found.record.domain.empty()) {
        TRY_ASSIGN(found.record.domain, domain_of(folder));
    }
    found.record.buffered = pool->buffered();
    TRY_ASSIGN(found.replicas, replicas_found_in(*pool));
    return found;
}

/// What the superblock's record and the one by which it left say.
Result<std::vector<Membership>> records_of(const store::Superblock& superblock) {
    std::vector<Membership> records;
    for (const store::RecordBytes* bytes : {&superblock.record, &superblock.left_by}) {
        if (bytes->empty()) continue;
        TRY_ASSIGN(auto record, replication::decode_membership(bytes->span()));
        records.push_back(std::move(record));
    }
    return records;
}

struct Found {
    std::map<VolumeId, FoundVolume> volumes;
    std::set<HostId> hosts;  // that the records name for replicas here
};

Result<void> add_replica_to(Found& found, const FoundReplica& replica) {
    TRY_ASSIGN(const auto records, records_of(replica.superblock));
    for (const Membership& record : records) {
        FoundVolume& volume = found.volumes[record.volume];
        if (record.number > volume.newest.number) volume.newest = record;
        volume.size_bytes = replica.superblock.size_bytes;
        const auto* const member = record.find(replica.id);
        if (member != nullptr && member->pool == replica.pool) found.hosts.insert(member->host);
    }
    if (!records.empty()) ++found.volumes[replica.superblock.volume].replicas;
    return {};
}

Result<void> make_volume(Transaction& tx, const FoundVolume& found, HostId host) {
    const VolumeId id = found.newest.volume;
    TRY_ASSIGN(const auto known, tx.get<metadata::MembershipRecord>(id));
    if (known) return {};  // of another host already, or it was deleted
    metadata::VolumeRecord volume;
    volume.id = id;
    volume.state = metadata::VolumeState::kAvailable;
    volume.size_bytes = found.size_bytes;
    volume.replica_count = static_cast<std::uint32_t>(found.newest.members.size());
    volume.created_ms = metadata::now_ms();
    volume.home = host;
    TRY(tx.put(volume));
    metadata::MembershipRecord membership;
    membership.volume = id;
    membership.greatest_number = found.newest.number;
    membership.membership = found.newest;
    membership.frozen = true;
    return tx.put(membership);
}

Result<void> make_host(Transaction& tx, metadata::HostRecord host) {
    TRY_ASSIGN(const auto known, tx.get<metadata::HostRecord>(host.id));
    if (known) return {};
    host.revision = 0;
    TRY(tx.put(host));
    metadata::InstanceRecord instance;
    instance.id = InstanceId::random();
    instance.host = host.id;
    instance.is_host = true;
    instance.created_ms = host.created_ms;
    TRY(tx.put(instance));
    return put_tag(tx, instance.id.to_string(), "Name", host.name);
}

}  // namespace

ApiResult<FoundHost> look_in_pools(const std::vector<std::string>& folders) {
    FoundHost host;
    Found found;
    for (const std::string& folder : folders) {
        auto pool = look_in(folder);
        if (!pool) return refuse(pool.error(), "cannot use the pool in " + folder);
        for (const auto& replica : pool->replicas) {
            if (const auto added = add_replica_to(found, replica); !added)
                return refuse(added.error(),
                              fmt::format("cannot read {} in {}", replica.id.to_string(), folder));
        }
        host.pools.push_back(std::move(*pool));
    }
    if (found.hosts.size() > 1)
        return refuse("InvalidParameterValue",
                      "these pools are of several hosts: name those of this host alone");
    if (!found.hosts.empty()) host.id = *found.hosts.begin();
    for (auto& [id, volume] : found.volumes) host.volumes.push_back(std::move(volume));
    return host;
}

Result<void> make_records(Transaction& tx, const FoundHost& found, metadata::HostRecord host) {
    TRY(make_host(tx, host));
    for (const FoundPool& pool : found.pools) {
        TRY_ASSIGN(const auto known, tx.get<metadata::PoolRecord>(pool.record.id));
        if (known) continue;
        metadata::PoolRecord record = pool.record;
        record.host = host.id;
        record.created_ms = metadata::now_ms();
        TRY(tx.put(record));
    }
    for (const FoundVolume& volume : found.volumes) {
        TRY(make_volume(tx, volume, host.id));
    }
    return {};
}

}  // namespace ublkd::daemon
