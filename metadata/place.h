// The places of a volume's replicas: the resources "vol-…/replica/N", N below its replica count,
// whose permission (permission.h) a replica needs before it may become a member (authority.h).
// While one of its replicas moves out of a pool that is drained there is one place more, for who
// comes before that one goes. What is a candidate for a place, and who holds one, is read from the
// records in the caller's transaction. No state.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "metadata/permission.h"
#include "metadata/store.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/replication/membership.h"

namespace ublkd::metadata {

struct Place {
    VolumeId volume;
    unsigned index = 0;
    friend bool operator==(const Place&, const Place&) = default;
};

/// The permission service's name for the place `index` of a volume.
std::string place_name(VolumeId volume, unsigned index);
/// nullopt for any other resource.
std::optional<Place> parse_place(std::string_view resource);

/// How many there may be at any time, that of a move included: below kMaxMembers.
unsigned place_limit(const VolumeRecord& volume);
/// Whether a replica of the volume is to move, and there is a place for who comes in its stead.
Result<bool> has_place_to_move(Transaction& tx, const VolumeRecord& volume);

/// Whether `asker` has prepared a replica of the place's volume in a pool of its host, and the
/// volume has that place.
Result<bool> is_candidate(Transaction& tx, const Place& place, const Holder& asker);

/// Whether `member` is a replica of `volume` in the pool that it names, and its host holds a place
/// of the volume for it.
Result<bool> holds_place(Transaction& tx, VolumeId volume, const replication::Member& member);

/// A replica that is no member returns no more: its place is taken from it, and its files are to be
/// removed. kBusy as PermissionService::revoke().
Result<void> give_up(Transaction& tx, ReplicaRecord replica);

}  // namespace ublkd::metadata
