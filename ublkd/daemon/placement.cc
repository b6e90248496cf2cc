#include "ublkd/daemon/placement.h"

namespace ublkd::daemon {

std::set<std::string> domains_of(const std::vector<UsablePool>& pools) {
    std::set<std::string> domains;
    for (const auto& pool : pools) domains.insert(pool.domain);
    return domains;
}

std::vector<UsablePool> choose_candidates(const std::vector<UsablePool>& pools,
                                          const std::set<std::string>& taken, unsigned wanted) {
    std::set<std::string> used = taken;
    std::vector<UsablePool> chosen;
    for (const auto& pool : pools) {  // most space first
        if (chosen.size() == wanted + 1) break;
        if (used.insert(pool.domain).second) chosen.push_back(pool);
    }
    return chosen;
}

}  // namespace ublkd::daemon
