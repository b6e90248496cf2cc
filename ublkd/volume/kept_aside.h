// A table of applied ids beside its replica (R8): what a clean stop leaves for the next start where
// attachments of other hosts stay. They may send again what was applied before, and the run folder
// ends with the boot. Whole by its checksum, and of the moment at which the superblock was marked
// clean.
#pragma once

#include <string>

#include "ublkd/base/result.h"
#include "ublkd/io/reactor.h"
#include "ublkd/replication/applied_ids.h"

namespace ublkd::volume {

/// Durable in the replica's folder when it has ended. Errors: the errno's.
io::Task<Result<void>> put_aside(io::Reactor* reactor, const std::string& folder,
                                 const replication::AppliedIds::Table* table);
/// Errors: the errno's (kNotFound: there is none), kCorrupt.
io::Task<Result<void>> take_aside(io::Reactor* reactor, const std::string& folder,
                                  replication::AppliedIds::Table* table);

}  // namespace ublkd::volume
