// Who hosts a replica: several pools prepare one each, each asks the permission service for a free
// place of the volume
// ("vol-…/replica/0"…), the first to ask gets it, and who gets none deletes what it prepared. For a
// new volume and for a degraded one. Blocking; candidates work side by side, each on a thread of
// its own. No state.
//
// Crash safety: a candidate's ReplicaRecord (preparing) is stored before its folder is made.
// Fault points: daemon.hosting.after_prepare, daemon.hosting.after_permission.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "metadata/place.h"
#include "ublkd/daemon/core.h"
#include "ublkd/volume/volume_types.h"

namespace ublkd::daemon {

using metadata::place_name;

struct Candidate {
    volume::ReplicaPlace place;
    std::optional<unsigned> granted;  // which place
    std::optional<Error> error;       // could not prepare or ask
    bool returning = false;           // was lost, holds its place, and keeps what it has
};

/// Stores the candidates' ReplicaRecords in the caller's transaction. Gives those that still are
/// candidates: not where the pool is being removed, or has failed, since it was chosen.
Result<std::vector<Candidate>> store_candidates(metadata::Transaction& tx, VolumeId volume,
                                                const std::vector<Candidate>& candidates);

/// Each candidate makes an empty replica and asks for one of `places`, in an order of its own.
/// Waits for all.
void prepare_and_ask(const Core& core, const metadata::VolumeRecord& volume,
                     const std::vector<unsigned>& places, std::vector<Candidate>& candidates);

/// The same in two steps, for who has to make a place free in between. Those that have an error by
/// then do not ask.
void prepare_candidates(const Core& core, const metadata::VolumeRecord& volume,
                        std::vector<Candidate>& candidates);
void ask_for_places(const Core& core, const metadata::VolumeRecord& volume,
                    const std::vector<unsigned>& places, std::vector<Candidate>& candidates);

/// Deletes a replica's folder and its record; where that is not possible now, the record says
/// "removing" and the sweeper (repair.h) does it later.
void discard_replica(const Core& core, ReplicaId replica, PoolId pool);
/// Writes the first record into the superblock of a new member, which has none, and closes it in
/// order.
Result<void> seal_member(const Core& core, VolumeId volume, const volume::ReplicaPlace& place,
                         const replication::Membership& record);

}  // namespace ublkd::daemon
