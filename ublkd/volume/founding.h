// The replicas of a new volume: each is made empty, and once the volume's first record is
// authorized it is given to those that are members. Asking the authority in between is the
// caller's. On the volume's reactor, before it is started. Arguments live until the end of the
// call.
#pragma once

#include "ublkd/volume/volume_types.h"

namespace ublkd::io {
class BufferPool;
class Reactor;
}  // namespace ublkd::io

namespace ublkd::volume {

/// An empty replica of the volume in `place`, closed and clean. Errors: as ReplicaStore::create.
io::Task<Result<void>> make_replica(io::Reactor* reactor, io::BufferPool* buffers,
                                    const VolumeConfig* volume, const ReplicaPlace* place);
/// Writes the record into the superblock of the member in `place` and closes it in order.
io::Task<Result<void>> seal_member(io::Reactor* reactor, io::BufferPool* buffers,
                                   const ReplicaPlace* place,
                                   const replication::Membership* record);

}  // namespace ublkd::volume
