#include "metadata/place.h"

#include <algorithm>
#include <charconv>

namespace ublkd::metadata {
namespace {

constexpr std::string_view kMiddle = "/replica/";

/// Whether the records say that `replica` is one of `volume`, in a pool of `host`.
Result<std::optional<ReplicaRecord>> replica_of(Transaction& tx, VolumeId volume, ReplicaId replica,
                                                HostId host) {
    TRY_ASSIGN(auto record, tx.get<ReplicaRecord>(replica));
    if (!record || record->volume != volume) return std::optional<ReplicaRecord>();
    TRY_ASSIGN(const auto pool, tx.get<PoolRecord>(record->pool));
    if (!pool || pool->host != host) return std::optional<ReplicaRecord>();
    return record;
}

}  // namespace

std::string place_name(VolumeId volume, unsigned index) {
    return volume.to_string().append(kMiddle).append(std::to_string(index));
}

std::optional<Place> parse_place(std::string_view resource) {
    const std::size_t middle = resource.find(kMiddle);
    if (middle == std::string_view::npos) return std::nullopt;
    const auto volume = VolumeId::parse(resource.substr(0, middle));
    const std::string_view number = resource.substr(middle + kMiddle.size());
    Place place;
    const auto parsed = std::from_chars(number.begin(), number.end(), place.index);
    if (!volume || parsed.ec != std::errc() || parsed.ptr != number.end()) return std::nullopt;
    place.volume = *volume;
    if (place_name(place.volume, place.index) != resource) return std::nullopt;  // "…/replica/00"
    return place;
}

unsigned place_limit(const VolumeRecord& volume) {
    return std::min(volume.replica_count + 1, static_cast<unsigned>(replication::kMaxMembers));
}

Result<bool> has_place_to_move(Transaction& tx, const VolumeRecord& volume) {
    if (place_limit(volume) == volume.replica_count) return false;
    TRY_ASSIGN(const auto replicas, tx.list<ReplicaRecord>(where("volume", volume.id)));
    for (const auto& replica : replicas) {
        if (replica.state != ReplicaState::kReady) continue;
        TRY_ASSIGN(const auto pool, tx.get<PoolRecord>(replica.pool));
        if (pool && pool->draining) return true;
    }
    return false;
}

Result<bool> is_candidate(Transaction& tx, const Place& place, const Holder& asker) {
    TRY_ASSIGN(const auto volume, tx.get<VolumeRecord>(place.volume));
    if (!volume || place.index >= place_limit(*volume)) return false;
    TRY_ASSIGN(const auto stored, tx.get<MembershipRecord>(place.volume));
    if (stored && stored->frozen) return false;  // who has it in truth is not known yet
    if (place.index >= volume->replica_count) {
        TRY_ASSIGN(const bool moves, has_place_to_move(tx, *volume));
        if (!moves) return false;
    }
    TRY_ASSIGN(const auto replica, replica_of(tx, place.volume, asker.incarnation, asker.host));
    return replica && replica->state == ReplicaState::kPreparing;
}

Result<bool> holds_place(Transaction& tx, VolumeId volume, const replication::Member& member) {
    TRY_ASSIGN(const auto record, tx.get<VolumeRecord>(volume));
    TRY_ASSIGN(const auto replica, replica_of(tx, volume, member.replica, member.host));
    if (!record || !replica || replica->pool != member.pool) return false;
    for (unsigned index = 0; index < place_limit(*record); ++index) {
        TRY_ASSIGN(const auto held, tx.get<PermissionRecord>(place_name(volume, index)));
        if (held && held->state == PermissionState::kGranted && held->host == member.host &&
            held->incarnation == member.replica)
            return true;
    }
    return false;
}

Result<void> give_up(Transaction& tx, ReplicaRecord replica) {
    TRY(PermissionService::revoke_all(tx, replica.id));
    if (replica.state == ReplicaState::kRemoving) return {};
    replica.state = ReplicaState::kRemoving;
    return tx.put(replica);
}

}  // namespace ublkd::metadata
