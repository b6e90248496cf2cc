// Lost metadata, made anew from what lies in the pools: hosts, pools, and volumes with the newest
// record that their superblocks have, frozen as after a restore (R16) until all hosts of it have
// told what they know. Not in superblocks, and so not made: names, tags, attachments, block sizes
// and policies. Blocking; no state. docs/metadata.md, "Metadata that are lost".
#pragma once

#include <string>
#include <vector>

#include "ublkd/api/errors.h"
#include "ublkd/daemon/core.h"

namespace ublkd::daemon {

struct FoundPool {
    metadata::PoolRecord record;
    std::vector<FoundReplica> replicas;
};

struct FoundVolume {
    replication::Membership newest;
    std::uint64_t size_bytes = 0;
    unsigned replicas = 0;  // that lie here
};

/// What is in the pools of one host.
struct FoundHost {
    HostId id;  // as its replicas' records name it; none: they do not
    std::vector<FoundPool> pools;
    std::vector<FoundVolume> volumes;
};

/// The pools are open meanwhile alone. A refusal names the folder.
api::ApiResult<FoundHost> look_in_pools(const std::vector<std::string>& folders);
/// Makes the records that the metadata lack. `host`: its record is made where it is not there.
Result<void> make_records(metadata::Transaction& tx, const FoundHost& found,
                          metadata::HostRecord host);

}  // namespace ublkd::daemon
