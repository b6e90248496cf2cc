// What a new membership record changes, and why, as an operator reads it in the events. No state.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "ublkd/replication/membership.h"

namespace ublkd::daemon {

/// `before`: the record that was in force, where it is known. `causes`: why replicas were lost.
std::string what_changed(const std::optional<replication::Membership>& before,
                         const replication::Membership& now,
                         const std::map<ReplicaId, std::string>& causes);

}  // namespace ublkd::daemon
