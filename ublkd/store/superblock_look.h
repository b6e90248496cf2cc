// What a replica's superblock says, without opening the replica: a store of this process or of
// another one may have it open, and be writing the other copy. Blocking; for threads that may wait
// for a disk. No state.
#pragma once

#include <string>

#include "ublkd/store/superblock.h"

namespace ublkd::store {

/// The newer valid copy. `folder` is the replica's, and named by its incarnation. Errors:
/// kNotFound, kCorrupt (none is valid), kUnsupported (one is of another format version), kIo.
Result<Superblock> look_at_superblock(const std::string& folder, ReplicaId incarnation);

}  // namespace ublkd::store
