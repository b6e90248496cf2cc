// Draining a pool of any host: said in the metadata, from where the hosts that look after its
// volumes know it (volumes_drain.cc moves the replicas).
#include <fmt/format.h>

#include "ublkd/daemon/names.h"
#include "ublkd/daemon/pools.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::PoolRecord;
using metadata::PoolState;
using metadata::Transaction;

ApiResult<std::vector<PoolRecord>> Pools::set_draining(const std::vector<PoolId>& pools,
                                                       bool drain) {
    std::vector<PoolRecord> changed;
    const auto stored = store_->write([&](Transaction& tx) -> Result<void> {
        changed.clear();
        for (const PoolId id : pools) {
            TRY_ASSIGN(auto record, tx.get<PoolRecord>(id));
            if (!record || record->state == PoolState::kAdding ||
                record->state == PoolState::kRemoving || record->draining == drain)
                continue;
            record->draining = drain;
            TRY(tx.put(*record));
            changed.push_back(*record);
        }
        return {};
    });
    if (!stored) return refuse(stored.error(), "cannot store that the pool is drained");
    for (const PoolRecord& record : changed)
        events_->add(drain ? "pool.draining" : "pool.drain-cancelled", record.id.to_string(),
                     fmt::format("pool {}", record.path));
    learn(identity_->host());
    came_back_();  // volumes are looked at soon
    return changed;
}

ApiResult<api::PoolView> Pools::drain_pool(const std::string& name, bool drain) {
    API_TRY_ASSIGN(const auto record, find_pool(store_, name));
    API_TRY(set_draining({record.id}, drain));
    return pool(record.id.to_string());
}

}  // namespace ublkd::daemon
