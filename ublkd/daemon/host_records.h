// The records of a host in the metadata, made by `init` and where a host is admitted to a cluster.
// Inside of the caller's transaction.
#pragma once

#include <string>

#include "metadata/store.h"

namespace ublkd::daemon {

/// The host and the instance that it is, with its name. kExists: another host has that.
Result<void> put_host(metadata::Transaction& tx, HostId id, const std::string& name);
/// With its pools and instances. kBusy: a replica, or an attachment, is there.
Result<void> erase_host(metadata::Transaction& tx, HostId id);

}  // namespace ublkd::daemon
