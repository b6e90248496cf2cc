#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/placement.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using metadata::PermissionRecord;
using metadata::PermissionState;
using metadata::ReplicaRecord;
using metadata::ReplicaState;
using metadata::Transaction;
using metadata::VolumeRecord;
using replication::Member;
using replication::Membership;

namespace {

constexpr std::chrono::seconds kLook{60};  // at a volume at rest, of which no pool is in trouble

}  // namespace

/// Takes the place back from a replica that is no member: the next candidate may have it, and the
/// sweeper asks the past holder to delete what it has.
void Volumes::revoke_permission_of(ReplicaId replica) {
    const auto revoked = core_.store->write(
        [&](Transaction& tx) { return metadata::PermissionService::revoke_all(tx, replica); });
    if (!revoked) log::warn("replica {}: {}", replica.to_string(), to_string(revoked.error()));
}

/// A copy of `replica` has ended, or was given up: its use of the volume ends.
void Volumes::finish_joining(VolumeId volume, ReplicaId replica) {
    const auto ref = slot(volume);
    {
        const std::lock_guard state(ref->state);
        if (!replica || ref->joining != replica) return;
        ref->joining = ReplicaId();
        ref->returning = false;
    }
    if (const auto released = release(ref); !released)
        log::warn("volume {}: {}", volume.to_string(), to_string(released.error()));
    changed_();
}

void Volumes::give_up_replica(const VolumeRecord& volume, ReplicaId replica, PoolId pool) {
    revoke_permission_of(replica);
    const auto record = core_.authority->current(volume.id);
    if (!record || (*record && (*record)->has(replica))) {
        reconcile(volume.id);  // it became a member meanwhile: its permission could not be revoked
        return;
    }
    discard_replica(core_, replica, pool);
}

/// A replica that was being brought in when the daemon or the copy ended; not where its disk was
/// why.
std::optional<Candidate> Volumes::resume_candidate(const VolumeRecord& volume,
                                                   const Membership& record,
                                                   const std::set<std::string>& taken,
                                                   PoolId failed_target) {
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume.id));
    for (const auto& replica : replicas ? *replicas : std::vector<ReplicaRecord>()) {
        if (replica.state != ReplicaState::kPreparing || record.has(replica.id)) continue;
        auto place = core_.pools->place(replica.pool, replica.id);
        const bool alone = !taken.contains(core_.pools->domain_of_pool(replica.pool));
        if (place && alone && core_.pools->trouble_of(replica.pool).empty() &&
            replica.pool != failed_target && holds_a_place(volume.id, replica)) {
            return Candidate{std::move(*place), {}, {}, false};
        }
        give_up_replica(volume, replica.id, replica.pool);
    }
    return std::nullopt;
}

std::set<std::string> Volumes::domains_of_members(const std::vector<Member>& members) {
    std::set<std::string> domains;
    for (const Member& member : members) domains.insert(core_.pools->domain_of_pool(member.pool));
    return domains;
}

/// Pools in free domains; that where the last copy failed only where there is no other. Not the
/// pool of a lost replica, which may be back by now: then that one returns.
std::vector<UsablePool> Volumes::targets(VolumeId volume, const std::set<std::string>& taken,
                                         PoolId failed_target) {
    auto usable = usable_pools();
    for (const ReplicaRecord& lost : lost_replicas(volume))
        std::erase_if(usable, [&](const UsablePool& pool) { return pool.id == lost.pool; });
    auto others = usable;
    std::erase_if(others, [&](const UsablePool& pool) { return pool.id == failed_target; });
    auto chosen = choose_candidates(others, taken, 1);
    return chosen.empty() ? choose_candidates(usable, taken, 1) : chosen;
}

/// The targets prepare and ask; who is granted is the one. Where a lost replica holds the last
/// place it is given up when another one is prepared, and not before: the new one comes first,
/// since nobody knows whether the lost one's pool ever comes back.
std::optional<Candidate> Volumes::new_candidate(const VolumeRecord& volume,
                                                const Membership& record,
                                                const std::set<std::string>& taken,
                                                PoolId failed_target) {
    std::vector<Candidate> candidates;
    if (places_to_have(volume, record).empty()) return std::nullopt;
    for (const auto& pool : targets(volume.id, taken, failed_target)) {
        if (auto place = core_.pools->place(pool.id, ReplicaId::random()))
            candidates.push_back({std::move(*place), {}, {}, false});
    }
    if (candidates.empty()) return std::nullopt;
    auto stored = core_.store->write_for<std::vector<Candidate>>(
        [&](Transaction& tx) { return store_candidates(tx, volume.id, candidates); });
    if (!stored) return std::nullopt;
    candidates = std::move(*stored);
    prepare_candidates(core_, volume, candidates);
    if (std::ranges::any_of(candidates, [](const auto& made) { return !made.error; }) ||
        faults::rule_off("rule.given_up_last")) {
        const auto place = make_place_free(volume, record);
        if (place) ask_for_places(core_, volume, {*place}, candidates);
        if (place) await_places(volume, candidates);
    }
    std::optional<Candidate> winner;
    for (Candidate& candidate : candidates) {
        if (candidate.granted) {
            winner = std::move(candidate);
        } else {
            if (candidate.error)
                log::warn("pool {}: {}", candidate.place.member.pool.to_string(),
                          to_string(*candidate.error));
            discard_replica(core_, candidate.place.member.replica, candidate.place.member.pool);
        }
    }
    return winner;
}

std::vector<UsablePool> Volumes::usable_pools() {
    auto pools = core_.pools->usable();
    std::map<HostId, bool> away;
    for (const UsablePool& pool : pools) {
        if (!away.contains(pool.host)) away[pool.host] = is_away(pool.host);
    }
    std::erase_if(pools, [&](const UsablePool& pool) { return away[pool.host]; });
    return pools;
}

/// Whether members cannot be used now, while others (`usable`) can, and a pool in a free domain
/// could take a replica.
bool Volumes::lost_a_member(const Membership& record, const std::vector<Member>& usable) {
    return !usable.empty() && usable.size() < record.members.size() &&
           !choose_candidates(usable_pools(), domains_of_members(usable), 1).empty();
}

/// Of a volume at rest, which is looked at now: whether members have been lost for so long that
/// they are to be replaced.
bool Volumes::has_lasted(const SlotRef& slot, bool lost) {
    const auto now = Backoff::Clock::now();
    const std::chrono::seconds replace_after(core_.configuration->replace_after_s);
    const std::lock_guard state(slot->state);
    slot->next_look = now + std::min<Backoff::Clock::duration>(replace_after, kLook);
    if (!lost || slot->running || !boot_wait_.is_over()) {
        slot->lost_since.reset();
        return false;
    }
    if (!slot->lost_since) slot->lost_since = now;
    return now - *slot->lost_since >= replace_after;
}

/// A volume that nobody uses does not notice that a member's disk has died. Where that has lasted,
/// it is started once, without that member: who starts proposes out who is not there, and the next
/// round finds a degraded volume.
Result<void> Volumes::replace_lost_member(const SlotRef& slot, const VolumeRecord& volume,
                                          const Membership& record) {
    std::vector<Member> usable = record.members;
    std::erase_if(usable, [this](const Member& member) {
        return !trouble_of(member).empty() || is_away(member.host);
    });
    const bool lost = lost_a_member(record, usable);
    const std::lock_guard life(slot->life);
    if (!has_lasted(slot, lost)) return {};
    TRY_ASSIGN(const auto running, RunningVolume::start(core_, volume, places_of(usable), this));
    return running->stop();
}

/// Whether something is to be done for the volume, or a volume at rest is to be looked at.
bool Volumes::is_due(const VolumeRecord& volume) {
    const auto ref = slot(volume.id);
    bool running = false;
    bool look = false;
    {
        const std::lock_guard state(ref->state);
        if (ref->joining || !ref->repair.is_due()) return false;
        running = ref->running != nullptr;
        look = ref->lost_since || Backoff::Clock::now() >= ref->next_look;
        if (running) ref->lost_since.reset();
    }
    using enum metadata::VolumeState;
    if (!is_mine(volume)) return false;
    if (volume.state == kCreating || volume.state == kDeleting) return true;
    if (volume.state != kAvailable && volume.state != kInUse) return false;
    const auto record = core_.authority->current(volume.id);
    if (!record || !*record) return false;
    if ((*record)->members.size() < volume.replica_count) return true;
    if (leaving_member(volume, **record)) return true;
    if (running || volume.state != kAvailable) return false;
    return look || std::ranges::any_of((*record)->members, [&](const auto& member) {
               return !core_.pools->trouble_of(member.pool).empty();
           });
}

bool Volumes::repair_one(const SlotRef& slot, const VolumeRecord& volume) {
    const auto record = core_.authority->current(volume.id);
    if (!record || !*record) return false;
    const PoolId failed_target = [&] {
        const std::lock_guard state(slot->state);
        return slot->failed_target;
    }();
    if (const auto leaving = leaving_member(volume, **record))
        return move_replica(slot, volume, **record, *leaving, failed_target);
    if ((*record)->members.size() >= volume.replica_count) {
        const auto replaced = replace_lost_member(slot, volume, **record);
        if (!replaced)
            log::warn("volume {}: {}", volume.id.to_string(), to_string(replaced.error()));
        return replaced.has_value();
    }
    if (is_behind(volume.id, **record)) reconcile(volume.id);
    const auto taken = domains_of_members((*record)->members);
    auto candidate = returning_candidate(slot, volume, **record);
    if (!candidate) candidate = resume_candidate(volume, **record, taken, failed_target);
    if (!candidate && !waits_for_a_host(slot, volume.id))
        candidate = new_candidate(volume, **record, taken, failed_target);
    return !candidate || add_replica(slot, volume, *candidate);
}

/// A lost replica whose host is away may come back with it, and lacks little then: for so long as
/// is configured no other one is made.
bool Volumes::waits_for_a_host(const SlotRef& slot, VolumeId volume) {
    const auto lost = lost_replicas(volume);
    const bool away = std::ranges::any_of(lost, [this](const ReplicaRecord& replica) {
        return is_away(core_.pools->host_of_pool(replica.pool));
    });
    const auto now = Backoff::Clock::now();
    const std::lock_guard state(slot->state);
    if (!away) {
        slot->away_since.reset();
        return false;
    }
    if (!slot->away_since) slot->away_since = now;
    return now - *slot->away_since < std::chrono::seconds(core_.configuration->replace_after_s);
}

bool Volumes::add_replica(const SlotRef& slot, const VolumeRecord& volume,
                          const Candidate& candidate) {
    const ReplicaId replica = candidate.place.member.replica;
    const PoolId pool = candidate.place.member.pool;
    auto running = acquire(slot, volume);  // for the call; and once more for the copy
    Result<void> begun = running ? Result<void>() : Result<void>(fail(running.error()));
    bool at_disk = false;
    if (running) {
        const std::lock_guard state(slot->state);
        ++slot->users;
        slot->joining = replica;
        slot->returning = candidate.returning;
    }
    if (running && candidate.returning) begun = set_returning(replica);
    if (running && begun) {
        begun = tell_host(candidate.place.member.host, volume.id);  // it opens the replica
        if (begun) begun = (*running)->add_replica(candidate.place);
        at_disk = !begun && is_of_its_disk(begun.error());
    }
    if (running && !begun) finish_joining(volume.id, replica);
    if (running) (void)release(slot);
    if (begun) {
        core_.events->add(
            candidate.returning ? "member.returning" : "member.joining", volume.id.to_string(),
            fmt::format("{} in {} is being copied", replica.to_string(), pool.to_string()));
        return true;
    }
    {
        const std::lock_guard state(slot->state);
        if (candidate.returning && at_disk) ++slot->failed_returns[replica];
        if (candidate.returning && begun.error().code == Errc::kBusy) slot->busy_return = replica;
    }
    if (candidate.returning && at_disk) core_.pools->mark_failed(pool, begun.error());
    could_not_begin(volume, candidate, begun.error());
    return false;
}

void Volumes::could_not_begin(const VolumeRecord& volume, const Candidate& candidate,
                              const Error& error) {
    const PoolId pool = candidate.place.member.pool;
    if (candidate.returning) reconcile(volume.id);  // it is lost again, and waits
    if (error.code == Errc::kBusy) return;  // a copy runs already; this replica waits, prepared
    core_.events->add(
        "volume.trouble", volume.id.to_string(),
        fmt::format("a replica in {} could not be begun: {}", pool.to_string(), to_string(error)));
    if (!candidate.returning) give_up_replica(volume, candidate.place.member.replica, pool);
}

}  // namespace ublkd::daemon
