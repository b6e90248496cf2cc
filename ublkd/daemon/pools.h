// The pools of this host: opened at start (those that are not there are tried again), added and
// removed on request, put aside when a disk fails and taken back after it has passed a probe. Knows
// folders and space, not volumes.
//
// Crash safety: the intent is in the metadata before the disk is touched (PoolState adding,
// removing); open_all() finishes or rolls back. Thread-safe; every call may block on a disk, so
// none is made on a reactor. Owner: Daemon. Fault points: daemon.pool_add.after_intent,
// daemon.pool_add.after_folder, daemon.pool_remove.after_intent, daemon.pool_remove.after_folder.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "metadata/store.h"
#include "ublkd/api/control.h"
#include "ublkd/daemon/event_log.h"
#include "ublkd/daemon/identity.h"
#include "ublkd/store/pool.h"
#include "ublkd/volume/volume_types.h"

namespace ublkd::daemon {

/// A pool that may take a new replica.
struct UsablePool {
    PoolId id;
    std::string domain;
    std::uint64_t available_bytes = 0;
};

class Pools final : public api::PoolControl {
  public:
    Pools(metadata::MetadataStore* store, EventLog* events, Identity* identity)
        : store_(store), events_(events), identity_(identity) {}

    /// Opens all pools of `host`; finishes what a crash left.
    Result<void> open_all(HostId host);
    /// Tries the missing ones again and probes the failed ones whose time has come. True where one
    /// came back.
    bool probe();
    /// Removals of which a step failed.
    void finish_removals();
    /// A replica of the pool failed by its disk.
    void mark_failed(PoolId pool, const Error& cause);

    /// Open and in service; most space first.
    std::vector<UsablePool> usable();
    /// Where the replica lives or would live, in a missing pool too (it cannot be opened then).
    /// nullopt: no such pool.
    std::optional<volume::ReplicaPlace> place(PoolId pool, ReplicaId replica);
    std::string domain_of_pool(PoolId pool);
    /// Why its replicas cannot be used now; "": they can.
    std::string trouble_of(PoolId pool);
    /// ok where there is none. kClosed where the pool is not open.
    Result<void> remove_replica(PoolId pool, ReplicaId replica);
    /// Looks in all pools. kClosed where it is in none of the open ones, and a pool is missing.
    Result<void> remove_replica_anywhere(ReplicaId replica);

    api::ApiResult<api::PoolView> add_pool(const api::AddPoolRequest& request) override;
    /// The same while this host is not initialized yet.
    api::ApiResult<api::PoolView> add_pool_to(HostId host, const api::AddPoolRequest& request);
    api::ApiResult<api::PlanView> plan_pool(const api::AddPoolRequest& request) override;
    api::ApiResult<std::vector<api::PoolView>> pools() override;
    api::ApiResult<api::PoolView> pool(const std::string& name) override;
    api::ApiResult<void> remove_pool(const std::string& name) override;
    /// Removes pools, folders and records without replicas: `init` is undone.
    void forget_all();

  private:
    using Clock = std::chrono::steady_clock;
    struct Entry {
        std::mutex mutex;  // of `pool`; held over its disk's calls
        metadata::PoolRecord record;
        std::unique_ptr<store::Pool> pool;  // none: missing
        bool failed = false;
        std::string trouble;
        Clock::time_point next_probe{};
        Clock::duration backoff = std::chrono::seconds(30);
    };
    using EntryRef = std::shared_ptr<Entry>;

    api::ApiResult<std::string> check_request(const api::AddPoolRequest& request);
    void open_entry(Entry& entry);
    Result<void> finish_adding(metadata::PoolRecord record);
    Result<void> finish_removing(const metadata::PoolRecord& record);
    api::ApiResult<void> carry_out_removal(const metadata::PoolRecord& found,
                                           const EntryRef& entry);
    Result<void> set_state(metadata::PoolRecord& record, metadata::PoolState state);
    api::PoolView view_of(const EntryRef& entry);
    EntryRef find(PoolId pool);
    std::vector<EntryRef> all();
    bool probe_failed(Entry& entry);

    metadata::MetadataStore* store_;
    EventLog* events_;
    Identity* identity_;
    std::mutex mutex_;  // of the map; never held over a disk's call
    std::map<PoolId, EntryRef> entries_;
    std::set<PoolId> removing_;  // by a request that is under way
};

}  // namespace ublkd::daemon
