// The pools of this host, and what the metadata says of those of others: opened at start (those
// that are not there are tried again), added and removed on request, put aside when a disk fails
// and taken back after it has passed a probe. Knows folders and space, not volumes. Parts:
// pools.cc, pools_change.cc (add, remove), pools_drain.cc, pools_found.cc.
//
// Crash safety: the intent is in the metadata before the disk is touched (PoolState adding,
// removing); open_all() and finish_changes() finish or roll back. A disk that hangs holds up nobody
// for longer than a call's limit: each pool has threads for the calls of its disk (disk_thread.h),
// and no lock is held over one. Thread-safe; calls wait for disks all the same, so none is made on
// a reactor. Owner: Daemon. Fault points: daemon.pool_add.after_intent,
// daemon.pool_add.after_folder, daemon.pool_remove.after_intent, daemon.pool_remove.after_folder;
// in the disk's threads: daemon.pool.look, daemon.pool.probe, daemon.pool.create,
// daemon.pool.remove_replica.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "metadata/store.h"
#include "ublkd/api/control.h"
#include "ublkd/daemon/disk_thread.h"
#include "ublkd/daemon/event_log.h"
#include "ublkd/daemon/identity.h"
#include "ublkd/store/pool.h"
#include "ublkd/store/superblock.h"
#include "ublkd/volume/volume_types.h"

namespace ublkd::daemon {

/// A pool that may take a new replica.
struct UsablePool {
    PoolId id;
    std::string domain;
    std::uint64_t available_bytes = 0;
    dev_t file_system = 0;  // whose free space that is
    HostId host = {};
};

/// A replica that lies in a pool, whatever the metadata say.
struct FoundReplica {
    PoolId pool;
    ReplicaId id;
    store::Superblock superblock;
};
/// Those of one pool.
Result<std::vector<FoundReplica>> replicas_found_in(const store::Pool& pool);

/// What lies in a pool of a replica.
struct ReplicaLook {
    bool is_there = false;
    std::uint64_t allocated_bytes = 0;
};

class Pools final : public api::PoolControl {
  public:
    /// `came_back`: called when a request has put a pool back; probe() tells of it then. `answers`:
    /// whether another host does.
    Pools(metadata::MetadataStore* store, EventLog* events, Identity* identity,
          std::function<void()> came_back, std::function<bool(HostId)> answers)
        : store_(store),
          events_(events),
          identity_(identity),
          came_back_(std::move(came_back)),
          answers_(std::move(answers)) {}

    /// Opens all pools of `host`; finishes what a crash left, where that takes no time.
    Result<void> open_all(HostId host);
    /// Tries the missing and the failed ones again, looks at the others. True where one came back,
    /// by itself or by add_pool().
    bool probe();
    /// Additions and removals of which a step failed, or whose disk did not answer.
    void finish_changes();
    /// A replica of the pool failed by its disk.
    void mark_failed(PoolId pool, const Error& cause);

    /// Which pools other hosts have, and which are drained, from the metadata: blocks on it.
    void learn(HostId self);

    /// Open and in service, and not drained; most space first. Then those of other hosts, whose
    /// space is not known.
    std::vector<UsablePool> usable();
    /// Its replicas are to move elsewhere.
    bool is_draining(PoolId pool);
    /// Those of all hosts that are drained.
    std::set<PoolId> draining();
    /// Where the replica lives or would live, in a missing pool too (it cannot be opened then).
    /// nullopt: no such pool. Blocks on the metadata, so not within a transaction.
    std::optional<volume::ReplicaPlace> place(PoolId pool, ReplicaId replica);
    std::string domain_of_pool(PoolId pool);
    /// None: no such pool.
    HostId host_of_pool(PoolId pool);
    /// 0 where it is missing, or its disk does not answer.
    std::uint64_t available_bytes(PoolId pool);
    /// Known, but not there: its disk may be mounted later.
    bool is_missing(PoolId pool);
    /// Whether a replica that it lost may be found in it again: not where it is being removed.
    bool may_come_back(PoolId pool);
    /// Why its replicas cannot be used now; "": they can.
    std::string trouble_of(PoolId pool);
    /// kClosed where the pool is not open, kTimedOut where its disk does not answer.
    Result<ReplicaLook> look(PoolId pool, ReplicaId replica);
    /// ok where there is none. kClosed where the pool is not open; kTimedOut: it may still be done.
    Result<void> remove_replica(PoolId pool, ReplicaId replica);
    /// Looks in all pools. kClosed where it is in none of the open ones, and a pool is missing.
    Result<void> remove_replica_anywhere(ReplicaId replica);
    /// All replicas in all pools of this host, with what their superblocks say (pools_found.cc).
    /// An error where not all can be known: a pool is not there, its disk does not answer, a
    /// superblock cannot be read; `*where` is the pool's folder then.
    Result<std::vector<FoundReplica>> find_replicas(std::string* where);
    /// What the superblock of one says now.
    Result<store::Superblock> superblock_of(PoolId pool, ReplicaId replica);

    api::ApiResult<api::PoolView> add_pool(const api::AddPoolRequest& request) override;
    /// The same while this host is not initialized yet.
    api::ApiResult<api::PoolView> add_pool_to(HostId host, const api::AddPoolRequest& request);
    api::ApiResult<api::PlanView> plan_pool(const api::AddPoolRequest& request) override;
    /// This host's first, then the others'.
    api::ApiResult<std::vector<api::PoolView>> pools() override;
    std::vector<api::PoolView> own_pools();
    api::ApiResult<api::PoolView> pool(const std::string& name) override;
    api::ApiResult<void> remove_pool(const std::string& name) override;
    api::ApiResult<api::PlanView> plan_pool_removal(const std::string& name) override;
    /// Of any host. Those that were changed.
    api::ApiResult<std::vector<metadata::PoolRecord>> set_draining(const std::vector<PoolId>& pools,
                                                                   bool drain);
    api::ApiResult<api::PoolView> drain_pool(const std::string& name, bool drain) override;
    /// Removes pools, folders and records without replicas: `init` is undone.
    void forget_all();

  private:
    using Clock = std::chrono::steady_clock;
    // Until a failed pool is probed: at first, and at most.
    static constexpr Clock::duration kFirstBackoff = std::chrono::seconds(30);
    static constexpr Clock::duration kLongestBackoff = std::chrono::minutes(10);
    struct Entry {
        explicit Entry(const metadata::PoolRecord& given);
        const metadata::PoolRecord record;  // as it was when this was made
        DiskThread looks;                   // for what takes no time where a disk answers
        DiskThread work;                    // for everything else
        /// Of stores, for calls that may block on the disk (volume::ReplicaPlace).
        const std::shared_ptr<io::Worker> worker =
            std::make_shared<io::Worker>("pool", io::Worker::AtEnd::kLeave);
        std::mutex turn;                    // of who tries to bring it back, or removes it
        std::mutex mutex;                   // of what follows; never held over a disk's call
        std::shared_ptr<store::Pool> pool;  // none: missing
        bool failed = false;
        unsigned failures = 0;
        std::string trouble;
        Clock::time_point next_probe{};
        Clock::duration backoff = kFirstBackoff;
        std::optional<Clock::time_point> came_back;
    };
    using EntryRef = std::shared_ptr<Entry>;

    Result<void> set_state(PoolId pool, metadata::PoolState state);
    static std::shared_ptr<store::Pool> pool_of(const EntryRef& entry);
    static std::shared_ptr<store::Pool> taken_from(const EntryRef& entry);
    static Result<std::shared_ptr<store::Pool>> open_pool(const std::string& path);
    static void open_entry(const EntryRef& entry);
    bool comes_back(const EntryRef& entry);
    bool passes_probe(const EntryRef& entry);
    bool is_in_place(const EntryRef& entry);
    void tell_back(const EntryRef& entry);
    static std::optional<store::PoolSpace> space_of(const EntryRef& entry);
    std::vector<std::string> others_on_its_file_system(const EntryRef& entry);
    api::PoolView view_of(const EntryRef& entry);
    api::PoolView view_of_other(const metadata::PoolRecord& record, bool answers);
    api::PoolView view_of_record(const metadata::PoolRecord& record);
    std::uint64_t volumes_bytes(const std::vector<metadata::ReplicaRecord>& replicas);
    EntryRef find(PoolId pool);
    std::optional<metadata::PoolRecord> find_other(PoolId pool);
    std::vector<EntryRef> all();

    // pools_change.cc
    class Change;
    struct Site {
        std::string path;
        std::string domain;
    };
    api::ApiResult<Site> look_at_site(const api::AddPoolRequest& request);
    EntryRef in_trouble_at(const std::string& path);
    EntryRef in_trouble_behind(const std::string& path);
    static api::ApiResult<void> check_same(const EntryRef& entry,
                                           const api::AddPoolRequest& request);
    api::ApiResult<api::PoolView> put_back(const EntryRef& entry);
    EntryRef changing(const metadata::PoolRecord& record);
    void put_in_service(const EntryRef& entry, std::shared_ptr<store::Pool> pool);
    void finish_changes_within(std::chrono::milliseconds limit);
    Result<void> finish_adding(const metadata::PoolRecord& record, std::chrono::milliseconds limit);
    Result<void> finish_removing(const metadata::PoolRecord& record,
                                 std::chrono::milliseconds limit);
    static Result<void> find_given_up(metadata::Transaction& tx, PoolId pool,
                                      std::vector<metadata::ReplicaRecord>& given_up,
                                      std::string& users);
    api::ApiResult<void> carry_out_removal(const EntryRef& entry);

    metadata::MetadataStore* store_;
    EventLog* events_;
    Identity* identity_;
    std::function<void()> came_back_;
    std::function<bool(HostId)> answers_;
    std::atomic<bool> put_back_ = false;   // since probe() told of it
    std::mutex mutex_;                     // of what follows; never held over a disk's call
    std::map<PoolId, EntryRef> entries_;   // in service
    std::map<PoolId, EntryRef> changing_;  // being added or removed
    std::map<PoolId, metadata::PoolRecord> others_;  // of other hosts
    std::set<PoolId> draining_;                      // of all hosts
    std::set<PoolId> requested_;                     // those that a request is about
};

}  // namespace ublkd::daemon
