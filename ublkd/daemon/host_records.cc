#include "ublkd/daemon/host_records.h"

#include "ublkd/daemon/names.h"

namespace ublkd::daemon {

using metadata::HostRecord;
using metadata::InstanceRecord;
using metadata::Transaction;

Result<void> put_host(Transaction& tx, HostId id, const std::string& name) {
    HostRecord host;
    host.id = id;
    host.name = name;
    host.created_ms = metadata::now_ms();
    InstanceRecord instance;
    instance.id = InstanceId::random();
    instance.host = id;
    instance.is_host = true;
    instance.created_ms = host.created_ms;
    TRY(tx.put(host));
    TRY(tx.put(instance));
    return put_tag(tx, instance.id.to_string(), "Name", name);
}

Result<void> erase_host(Transaction& tx, HostId id) {
    TRY_ASSIGN(const auto pools, tx.list<metadata::PoolRecord>(metadata::where("host", id)));
    for (const auto& pool : pools) {
        TRY(tx.erase(pool));
    }
    TRY_ASSIGN(const auto instances, tx.list<InstanceRecord>(metadata::where("host", id)));
    for (const auto& instance : instances) {
        TRY(erase_tags(tx, instance.id.to_string()));
        TRY(tx.erase(instance));
    }
    TRY_ASSIGN(const auto stored, tx.get<HostRecord>(id));
    return stored ? tx.erase(*stored) : Result<void>();
}

}  // namespace ublkd::daemon
