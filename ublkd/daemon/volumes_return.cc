// Replicas that were lost: they keep their records and places while their pools may come back,
// return when they do, and are given up where that is not needed or not possible any more.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "ublkd/base/log.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using metadata::PermissionRecord;
using metadata::PermissionState;
using metadata::ReplicaRecord;
using metadata::ReplicaState;
using metadata::Transaction;
using metadata::VolumeRecord;
using replication::Membership;

namespace {

constexpr unsigned kReturns = 3;  // that may fail by the replica's own disk
constexpr unsigned kBusyNow = ~0U;

std::string name_in_pool(const ReplicaRecord& replica) {
    return fmt::format("{} in {}", replica.id.to_string(), replica.pool.to_string());
}

}  // namespace

ReplicaState Volumes::state_without(const ReplicaRecord& replica, bool whole, ReplicaId joining) {
    switch (replica.state) {
        case ReplicaState::kReady:
        case ReplicaState::kLost:
            return !whole && core_.pools->may_come_back(replica.pool) ? ReplicaState::kLost
                                                                      : ReplicaState::kRemoving;
        case ReplicaState::kReturning:
            return replica.id == joining ? replica.state : ReplicaState::kLost;
        default:
            return replica.state;
    }
}

void Volumes::reconcile(VolumeId volume) {
    const auto ref = slot(volume);
    std::vector<ReplicaRecord> given_up;
    const auto done = core_.store->write([&](Transaction& tx) -> Result<void> {
        given_up.clear();
        TRY_ASSIGN(const auto record, tx.get<VolumeRecord>(volume));
        TRY_ASSIGN(const auto membership, tx.get<metadata::MembershipRecord>(volume));
        if (!record || !membership || !membership->membership || membership->retired) return {};
        if (membership->frozen) return {};
        const Membership& members = *membership->membership;
        const bool whole = members.members.size() >= record->replica_count;
        // Here: set_returning() comes after it was set.
        const ReplicaId joining = [&] {
            const std::lock_guard state(ref->state);
            return ref->joining;
        }();
        TRY_ASSIGN(auto replicas, tx.list<ReplicaRecord>(metadata::where("volume", volume)));
        for (auto& replica : replicas) {
            // Also one that was given up while the proposal that added it was under way.
            const ReplicaState next = members.has(replica.id)
                                          ? ReplicaState::kReady
                                          : state_without(replica, whole, joining);
            if (next == ReplicaState::kRemoving && replica.state == ReplicaState::kLost)
                given_up.push_back(replica);
            if (next == ReplicaState::kRemoving) {
                TRY(metadata::give_up(tx, replica));
                continue;
            }
            if (next == replica.state) continue;
            replica.state = next;
            TRY(tx.put(replica));
        }
        return {};
    });
    if (!done) {
        log::warn("volume {}: {}", volume.to_string(), to_string(done.error()));
        return;
    }
    for (const auto& replica : given_up)
        core_.events->add("member.given-up", volume.to_string(),
                          fmt::format("{}: the volume is whole without it", name_in_pool(replica)));
    changed_();
}

std::vector<ReplicaRecord> Volumes::lost_replicas(VolumeId volume) {
    auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume));
    if (!replicas) return {};
    std::erase_if(*replicas, [](const ReplicaRecord& replica) {
        return replica.state != ReplicaState::kLost && replica.state != ReplicaState::kReturning;
    });
    return std::move(*replicas);
}

std::string Volumes::waits_for(const ReplicaRecord& replica, const std::set<std::string>& taken) {
    if (std::string trouble = core_.pools->trouble_of(replica.pool); !trouble.empty())
        return trouble;
    return taken.contains(core_.pools->domain_of_pool(replica.pool))
               ? "another replica is in its failure domain"
               : "";
}

/// Where that cannot be told it does.
bool Volumes::holds_a_place(VolumeId volume, const ReplicaRecord& replica) {
    const replication::Member member{replica.id, core_.pools->host_of_pool(replica.pool),
                                     replica.pool};
    const auto holds = core_.store->read_for<bool>(
        [&](Transaction& tx) { return metadata::holds_place(tx, volume, member); });
    return holds.value_or(true);
}

/// A lost replica whose pool is back. One that cannot return is given up here.
std::optional<Candidate> Volumes::returning_candidate(const SlotRef& slot,
                                                      const VolumeRecord& volume,
                                                      const Membership& record) {
    const auto taken = domains_of_members(record.members);
    for (const ReplicaRecord& replica : lost_replicas(volume.id)) {
        auto place = core_.pools->place(replica.pool, replica.id);
        if (replica.state != ReplicaState::kLost || !place || record.has(replica.id) ||
            !waits_for(replica, taken).empty())
            continue;
        const auto look = core_.pools->look(replica.pool, replica.id);
        if (!look) continue;  // its disk does not answer
        const unsigned failed = [&] {
            const std::lock_guard state(slot->state);
            if (slot->busy_return == replica.id) return kBusyNow;
            const auto found = slot->failed_returns.find(replica.id);
            return found == slot->failed_returns.end() ? 0 : found->second;
        }();
        if (failed == kBusyNow) {
            const std::lock_guard state(slot->state);
            slot->busy_return = ReplicaId();
            continue;
        }
        if (!look->is_there) {
            give_up_lost(replica, "its folder is not in the pool");
        } else if (!holds_a_place(volume.id, replica)) {
            give_up_lost(replica, "its permission was revoked");
        } else if (failed >= kReturns) {
            give_up_lost(replica, fmt::format("it could not be copied to {} times", failed));
        } else if (!is_away(place->member.host)) {
            return Candidate{std::move(*place), {}, {}, true};
        }
    }
    return std::nullopt;
}

void Volumes::give_up_lost(const ReplicaRecord& replica, const std::string& why) {
    const auto given_up = core_.store->write_for<bool>([&](Transaction& tx) -> Result<bool> {
        TRY_ASSIGN(const auto stored, tx.get<ReplicaRecord>(replica.id));
        if (!stored || stored->state != ReplicaState::kLost) return false;
        TRY(metadata::give_up(tx, *stored));
        return true;
    });
    if (!given_up) log::warn("replica {}: {}", replica.id.to_string(), to_string(given_up.error()));
    if (!given_up || !*given_up) return;
    core_.events->add("member.given-up", replica.volume.to_string(),
                      fmt::format("{}: {}", name_in_pool(replica), why));
    changed_();
}

bool Volumes::is_behind(VolumeId volume, const Membership& record) {
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume));
    return replicas && std::ranges::any_of(*replicas, [&](const ReplicaRecord& replica) {
               const ReplicaState state = replica.state;
               return record.has(replica.id)
                          ? state != ReplicaState::kReady
                          : state == ReplicaState::kReady || state == ReplicaState::kReturning;
           });
}

/// Places that a new replica may have: those that nobody holds, or, where there is none, those of
/// holders that may be given up: lost, or without a record since their pool was removed. The place
/// for a move counts only where one is to be made.
std::vector<unsigned> Volumes::places_to_have(const VolumeRecord& volume,
                                              const Membership& record) {
    std::vector<unsigned> free;
    std::vector<unsigned> held;
    const unsigned limit = places_now(volume);
    for (unsigned place = 0; place < metadata::place_limit(volume); ++place) {
        const auto stored = core_.store->get<PermissionRecord>(place_name(volume.id, place));
        if (!stored) continue;
        if (!*stored || (*stored)->state == PermissionState::kRevoked) {
            free.push_back(place);
        } else if ((*stored)->state == PermissionState::kGranted &&
                   !record.has((*stored)->incarnation)) {
            const auto replica = core_.store->get<ReplicaRecord>((*stored)->incarnation);
            if (replica && (!*replica || (*replica)->state == ReplicaState::kLost ||
                            (*replica)->state == ReplicaState::kRemoving))
                held.push_back(place);
        }
    }
    const std::size_t holders = metadata::place_limit(volume) - free.size();
    return holders >= limit ? held : free;
}

unsigned Volumes::places_now(const VolumeRecord& volume) {
    const auto moves = core_.store->read_for<bool>(
        [&](Transaction& tx) { return metadata::has_place_to_move(tx, volume); });
    return moves.value_or(false) ? metadata::place_limit(volume) : volume.replica_count;
}

/// A place that a new replica may have, free; its holder has been given up then.
std::optional<unsigned> Volumes::make_place_free(const VolumeRecord& volume,
                                                 const Membership& record) {
    const auto places = places_to_have(volume, record);
    if (places.empty()) return std::nullopt;
    const auto held = core_.store->get<PermissionRecord>(place_name(volume.id, places.front()));
    if (held && *held && (*held)->state == PermissionState::kGranted) {
        const auto replica = core_.store->get<ReplicaRecord>((*held)->incarnation);
        if (replica && *replica && (*replica)->state == ReplicaState::kLost) {
            give_up_lost(**replica, "a new replica takes its place");
        } else {
            revoke_permission_of((*held)->incarnation);
        }
    }
    return places.front();
}

Result<void> Volumes::set_returning(ReplicaId replica) {
    return core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto stored, tx.get<ReplicaRecord>(replica));
        if (!stored || stored->state != ReplicaState::kLost)
            return fail(Errc::kConflict, "the replica was given up");
        stored->state = ReplicaState::kReturning;
        return tx.put(*stored);
    });
}

/// Those that may return, with what they wait for.
void Volumes::add_lost(const VolumeRecord& record, const Membership& membership,
                       api::VolumeView& view) {
    const auto taken = domains_of_members(membership.members);
    const bool other_copy = std::ranges::any_of(view.replicas, &api::ReplicaView::is_copied_to);
    for (const ReplicaRecord& replica : lost_replicas(record.id)) {
        if (membership.has(replica.id) || !holds_a_place(record.id, replica)) continue;
        const auto known =
            std::ranges::find(view.replicas, replica.id.to_string(), &api::ReplicaView::id);
        api::ReplicaView* shown = known == view.replicas.end() ? nullptr : &*known;
        if (shown == nullptr) {
            view.replicas.push_back({replica.id.to_string(), replica.pool.to_string(),
                                     core_.pools->host_of_pool(replica.pool).to_string(),
                                     core_.pools->domain_of_pool(replica.pool), "lost", ""});
            shown = &view.replicas.back();
        }
        if (shown->role != "lost") continue;
        shown->waits_for = waits_for(replica, taken);
        if (shown->waits_for.empty())
            shown->waits_for = replica.state == ReplicaState::kReturning ? "it is being opened"
                               : other_copy ? "another replica is being copied"
                                            : "it is tried again within seconds";
    }
}

}  // namespace ublkd::daemon
