#include "ublkd/daemon/repair.h"

#include <pthread.h>

#include <chrono>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"

namespace ublkd::daemon {
namespace {

constexpr auto kRound = std::chrono::seconds(5);

}  // namespace

void Repair::start(const Core& core, Volumes* volumes) {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    core_ = core;
    volumes_ = volumes;
    thread_ = std::thread([this] {
        (void)pthread_setname_np(pthread_self(), "repair");
        serve();
    });
}

void Repair::wake() {
    {
        const std::lock_guard lock(mutex_);
        woken_ = true;
    }
    wake_.notify_one();
}

void Repair::stop() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
    steps_.wait();
}

void Repair::serve() {
    for (;;) {
        {
            std::unique_lock lock(mutex_);
            wake_.wait_for(lock, kRound, [this] { return woken_ || stopping_; });
            if (stopping_) return;
            woken_ = false;
        }
        if (core_.identity->initialized()) round();
    }
}

/// Of a replica whose record says "removing": whether its files stay for now, until its volume has
/// all members again, where the pool has room for another whole one. Were the last member lost
/// before, they would be all that is left.
bool Repair::is_kept(const metadata::ReplicaRecord& replica) {
    const auto volume = core_.store->get<metadata::VolumeRecord>(replica.volume);
    if (!volume) return true;  // it cannot be told now
    using enum metadata::VolumeState;
    if (!*volume || ((*volume)->state != kAvailable && (*volume)->state != kInUse)) return false;
    const auto membership = core_.authority->current(replica.volume);
    if (!membership) return true;
    return *membership && (*membership)->members.size() < (*volume)->replica_count &&
           core_.pools->available_bytes(replica.pool) >= (*volume)->size_bytes;
}

/// Folders of replicas that are nobody's any more: those whose record says so, and those of past
/// holders.
void Repair::remove_lost_replicas() {
    using metadata::ReplicaRecord;
    const auto removing = core_.store->list<ReplicaRecord>(
        metadata::where("state", metadata::ReplicaState::kRemoving));
    for (const auto& replica : removing ? *removing : std::vector<ReplicaRecord>()) {
        const auto membership = core_.authority->current(replica.volume);
        if (!membership) continue;
        // Its record may be behind: a proposal that was under way made it a member.
        if (*membership && (*membership)->has(replica.id) &&
            !faults::rule_off("rule.members_folder_kept")) {
            volumes_->reconcile(replica.volume);
            continue;
        }
        if (is_kept(replica)) continue;
        if (!core_.pools->remove_replica(replica.pool, replica.id)) {
            volumes_->close_replica(replica.volume, replica.id);
            continue;  // the next round tries again
        }
        const auto erased = core_.store->write([&](metadata::Transaction& tx) -> Result<void> {
            TRY_ASSIGN(const auto stored, tx.get<ReplicaRecord>(replica.id));
            if (!stored) return {};
            return tx.erase(*stored);
        });
        if (!erased) log::warn("replica {}: {}", replica.id.to_string(), to_string(erased.error()));
    }
    const HostId self = core_.identity->host();
    const auto swept =
        core_.permissions->sweep([&](const metadata::DeleteRequest& request) -> Result<void> {
            if (request.holder.host != self) return fail(Errc::kClosed, "another host's replica");
            TRY_ASSIGN(const auto replica,
                       core_.store->get<ReplicaRecord>(request.holder.incarnation));
            if (replica && replica->state == metadata::ReplicaState::kRemoving && is_kept(*replica))
                return fail(Errc::kBusy, "kept until its volume is whole");
            return core_.pools->remove_replica_anywhere(request.holder.incarnation);
        });
    if (!swept) log::warn("past holders of permissions: {}", to_string(swept.error()));
}

void Repair::look_at_pools() {
    core_.pools->learn(core_.identity->host());
    if (core_.pools->probe()) {
        volumes_->forget_failures();
        wake();
    }
    core_.pools->finish_changes();
}

void Repair::round() {
    steps_.run("nbd", [this] { core_.engine->retry_nbd_tcp(); });
    steps_.run("ublk", [this] {
        if (!core_.engine->retry_ublk()) return;
        volumes_->forget_failures();
        wake();
    });
    steps_.run("pools", [this] { look_at_pools(); });
    steps_.run("restored", [this] { volumes_->report_restored(); });
    steps_.run("others", [this] { volumes_->look_after_others(); });
    steps_.run("replicas", [this] { remove_lost_replicas(); });
    for (const VolumeId volume : volumes_->due()) {
        if (stopping_) return;
        steps_.run(volume.to_string(), [this, volume] { volumes_->look_after(volume); });
    }
}

}  // namespace ublkd::daemon
