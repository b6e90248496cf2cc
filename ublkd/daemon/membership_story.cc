#include "ublkd/daemon/membership_story.h"

#include <fmt/format.h>

#include <vector>

namespace ublkd::daemon {
namespace {

std::string named(const replication::Member& member) {
    return fmt::format("{} in {}", member.replica.to_string(), member.pool.to_string());
}

std::vector<std::string> changes(const replication::Membership& before,
                                 const replication::Membership& now,
                                 const std::map<ReplicaId, std::string>& causes) {
    std::vector<std::string> told;
    for (const auto& member : before.members) {
        if (now.has(member.replica)) continue;
        const auto cause = causes.find(member.replica);
        told.push_back(named(member) + " left" +
                       (cause == causes.end() ? "" : fmt::format(" ({})", cause->second)));
    }
    for (const auto& member : now.members) {
        if (!before.has(member.replica)) told.push_back(named(member) + " joined");
    }
    if (now.primary != before.primary) told.emplace_back("another primary");
    if (now.loss_count != before.loss_count)
        told.emplace_back("all restarted, what was not flushed may be lost");
    if (now.attachments.size() > before.attachments.size()) told.emplace_back("one attached more");
    if (now.attachments.size() < before.attachments.size()) told.emplace_back("one attached less");
    if (told.empty()) told.emplace_back("the same members");
    return told;
}

}  // namespace

std::string what_changed(const std::optional<replication::Membership>& before,
                         const replication::Membership& now,
                         const std::map<ReplicaId, std::string>& causes) {
    const std::string why =
        before ? fmt::format(": {}", fmt::join(changes(*before, now, causes), ", ")) : "";
    return fmt::format("number {}{}; {} member{}, primary {}", now.number, why, now.members.size(),
                       now.members.size() == 1 ? "" : "s", now.primary.to_string());
}

}  // namespace ublkd::daemon
