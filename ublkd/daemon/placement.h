// Which pools are asked to prepare a replica. Pure: pools in, candidates out.
//
// Replicas of a volume never share a failure domain, so there is at most one candidate per domain:
// its pool with the most space. Candidates on one file system share what is free there. One
// candidate more than replicas wanted prepares where there is one; the permission service decides
// who of them hosts (the first to ask), so a slow disk loses and a broken one does not hold up the
// volume.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "ublkd/daemon/pools.h"

namespace ublkd::daemon {

/// The failure domains that have a usable pool.
std::set<std::string> domains_of(const std::vector<UsablePool>& pools);
/// Candidates for `wanted` replicas outside of the domains `taken`, most space first, of equal ones
/// in the order of `pools`; fewer where there are fewer domains.
std::vector<UsablePool> choose_candidates(const std::vector<UsablePool>& pools,
                                          const std::set<std::string>& taken, unsigned wanted);

}  // namespace ublkd::daemon
