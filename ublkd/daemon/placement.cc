#include "ublkd/daemon/placement.h"

#include <map>

namespace ublkd::daemon {

std::set<std::string> domains_of(const std::vector<UsablePool>& pools) {
    std::set<std::string> domains;
    for (const auto& pool : pools) domains.insert(pool.domain);
    return domains;
}

std::vector<UsablePool> choose_candidates(const std::vector<UsablePool>& pools,
                                          const std::set<std::string>& taken, unsigned wanted) {
    std::set<std::string> used = taken;
    std::map<dev_t, unsigned> on;  // candidates on a file system
    std::vector<UsablePool> chosen;
    const auto share_of = [&on](const UsablePool& pool) {
        return pool.available_bytes / (on[pool.file_system] + 1);
    };
    while (chosen.size() <= wanted) {
        const UsablePool* best = nullptr;
        for (const auto& pool : pools) {
            if (used.contains(pool.domain)) continue;
            if (best == nullptr || share_of(pool) > share_of(*best)) best = &pool;
        }
        if (best == nullptr) break;
        used.insert(best->domain);
        ++on[best->file_system];
        chosen.push_back(*best);
    }
    return chosen;
}

}  // namespace ublkd::daemon
