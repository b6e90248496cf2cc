// Replicas that leave pools which are drained, while their volumes serve: another one is made
// first, in the place that there is for a move (metadata/place.h), and when it is a member the one
// that leaves is let go, or, where that is the primary, another member takes over from it. A volume
// of as many replicas as there can be lets one go first, where another pool could take one. Steps
// of Repair's rounds: what a crash or a failure leaves is seen by the next one.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "ublkd/base/log.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using metadata::VolumeRecord;
using replication::Member;
using replication::Membership;

namespace {

constexpr auto kLeaveLimit = std::chrono::seconds(10);
constexpr auto kLookAgain = std::chrono::milliseconds(20);

std::set<ReplicaId> all_but(const Membership& record, ReplicaId one) {
    std::set<ReplicaId> others;
    for (const Member& member : record.members) {
        if (member.replica != one) others.insert(member.replica);
    }
    return others;
}

}  // namespace

/// Of a volume that is whole: in a pool that is drained, or, where a drain was cancelled, one too
/// many. The primary comes last.
std::optional<Member> Volumes::leaving_member(const VolumeRecord& volume,
                                              const Membership& record) {
    if (record.members.size() < volume.replica_count) return std::nullopt;
    std::optional<Member> leaving;
    std::optional<Member> other;
    for (const Member& member : record.members) {
        const bool primary = member.replica == record.primary;
        if (core_.pools->is_draining(member.pool) && (!leaving || !primary)) leaving = member;
        if (!primary) other = member;
    }
    const bool too_many = record.members.size() > volume.replica_count;
    return leaving || !too_many ? leaving : other;
}

/// Of these the first one becomes primary where the primary leaves.
std::vector<Member> Volumes::staying_members(const Membership& record) {
    auto members = record.members;
    std::erase_if(members,
                  [this](const Member& member) { return core_.pools->is_draining(member.pool); });
    return members;
}

/// What the volume takes, as far as members here tell; 0: not known.
std::uint64_t Volumes::used_bytes(const Membership& record) {
    std::uint64_t used = 0;
    for (const Member& member : record.members) {
        if (member.host != core_.identity->host()) continue;
        if (const auto look = core_.pools->look(member.pool, member.replica))
            used = std::max(used, look->allocated_bytes);
    }
    return used;
}

/// Without those that are known to have no room for a copy; of other hosts' it is not known.
std::vector<UsablePool> Volumes::with_room(std::vector<UsablePool> pools,
                                           std::uint64_t used_bytes) {
    std::erase_if(pools, [&](const UsablePool& pool) {
        return pool.host == core_.identity->host() && pool.available_bytes < used_bytes;
    });
    return pools;
}

/// Whether a member may leave before another one comes.
bool Volumes::may_leave(const VolumeRecord& volume, const Membership& record) {
    if (record.members.size() > volume.replica_count) return true;
    if (record.members.size() < replication::kMaxMembers) return false;
    const auto pools = targets(volume.id, domains_of_members(staying_members(record)), PoolId());
    return !with_room(pools, used_bytes(record)).empty();
}

bool Volumes::move_replica(const SlotRef& slot, const VolumeRecord& volume,
                           const Membership& record, const Member& leaving, PoolId failed_target) {
    if (may_leave(volume, record)) {
        const auto gone = let_go(slot, volume, record, leaving);
        if (!gone) log::warn("volume {}: {}", volume.id.to_string(), to_string(gone.error()));
        return gone.has_value();
    }
    if (record.members.size() == replication::kMaxMembers) return true;  // nowhere to go
    const auto taken = domains_of_members(staying_members(record));
    auto candidate = resume_candidate(volume, record, taken, failed_target);
    if (!candidate) candidate = new_candidate(volume, record, taken, failed_target);
    return !candidate || add_replica(slot, volume, *candidate);
}

/// Ends when the authority's record is without it.
Result<void> Volumes::let_go(const SlotRef& slot, const VolumeRecord& volume,
                             const Membership& record, const Member& leaving) {
    const auto staying = staying_members(record);
    if (staying.empty() && leaving.replica == record.primary)
        return fail(Errc::kBusy, "no member stays that could be primary");
    TRY_ASSIGN(const auto running, acquire(slot, volume));
    const auto deadline = std::chrono::steady_clock::now() + kLeaveLimit;
    Result<void> done;
    if (leaving.replica != record.primary) {
        done = running->let_go(leaving.replica, record.number);
    } else {
        const Member& heir = staying.front();
        if (heir.host != core_.identity->host())
            (void)tell_host(heir.host, volume.id);
        else
            running->take_over(all_but(record, heir.replica));
    }
    while (done) {
        const auto now = core_.authority->current(volume.id);
        if (now && *now && !(*now)->has(leaving.replica)) break;
        if (ending_ || std::chrono::steady_clock::now() >= deadline)
            done = fail(Errc::kTimedOut, "a replica in a drained pool did not leave yet");
        else
            std::this_thread::sleep_for(kLookAgain);
    }
    if (done) reconcile(volume.id);
    if (done)
        core_.events->add(
            "member.moved", volume.id.to_string(),
            fmt::format("{} has left {}", leaving.replica.to_string(), leaving.pool.to_string()));
    const auto released = release(slot);
    return done ? released : done;
}

void Volumes::close_replica(VolumeId volume, ReplicaId replica) {
    const auto ref = slot(volume);
    const auto running = [&] {
        const std::lock_guard state(ref->state);
        return ref->running;
    }();
    if (running) running->close_replica(replica);
}

/// A member here is to be primary in place of one elsewhere whose pool is drained: the first one
/// that stays, since of two that ask at a time one would leave the other out.
void Volumes::take_over_from_drained(const SlotRef& slot, const VolumeRecord& volume) {
    const auto record = core_.authority->current(volume.id);
    if (!record || !*record) return;
    const auto leaving = leaving_member(volume, **record);
    if (!leaving || leaving->replica != (*record)->primary || !may_leave(volume, **record)) return;
    const auto staying = staying_members(**record);
    if (staying.empty() || staying.front().host != core_.identity->host()) return;
    const auto running = try_to_serve(slot, volume);
    if (!running) return;
    running->take_over(all_but(**record, staying.front().replica));
}

}  // namespace ublkd::daemon
