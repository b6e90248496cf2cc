// What keeps a volume's requests waiting, its replicas from being as many as wanted, or its
// attachment from being served, by which rule, and the next safe command. Made from what `volume
// show` tells, so that the two never disagree.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::FindingView;
using api::VolumeView;

namespace {

/// By what Health says blocks it: the rule behind that, and what may be done ({0}: the volume).
struct Advice {
    std::string_view blocked_by, rule, fix;
};
constexpr std::array kAdvice{
    Advice{"R4", "who is a member is settled before a change counts",
           "it goes on by itself; 'ebs-cli doctor' says what is wrong with the state folder"},
    Advice{"R7", "after a death members are made equal before they are read",
           "it goes on by itself; 'ebs-cli volume show {0} --wait ok' waits for it"},
    Advice{"R14", "the last member is never removed, so its disk's errors go to the guest",
           "do not delete it: bring the disk of its primary back, then 'ebs-cli detach {0}' and "
           "'ebs-cli attach {0}'"},
    Advice{"disk", "a change is acknowledged when every member has it (R2)",
           "it goes on when the disk answers; one that never will has to be made to fail (pull "
           "it, or remove its device), then it leaves (R5)"},
    Advice{"on-full", "a member that is full stays one, so that no copy falls behind",
           "free space where its pools lie ('ebs-cli pool list'), or 'ebs-cli volume modify {0} "
           "--on-full fail': such writes end with ENOSPC then"},
    Advice{"reactor", "the thread that serves it does not answer", "ebs-cli doctor"},
    Advice{"attachment", "nobody serves its device now",
           "it is tried again by itself; 'ebs-cli attachment list' says since when"},
};

FindingView io_finding(const VolumeView& volume) {
    if (volume.health.state != "blocked") return {"io", "ok", "nothing waits", ""};
    const auto* const advice =
        std::ranges::find(kAdvice, volume.health.blocked_by, &Advice::blocked_by);
    FindingView made{"io", "problem", volume.health.reason, ""};
    if (advice == kAdvice.end()) return made;
    made.message += fmt::format(" [{}: {}]", advice->blocked_by, advice->rule);
    made.fix = fmt::format(fmt::runtime(advice->fix), volume.id);
    return made;
}

FindingView data_finding(const VolumeView& volume) {
    if (volume.data_may_be_lost)
        return {"data", "problem", "an operator's force may have lost acknowledged data", ""};
    if (volume.loss_count == 0)
        return {"data", "ok", "no member ever lost what was acknowledged", ""};
    return {"data", "ok",
            fmt::format("all members lost their power at once, {} times: what was not flushed then "
                        "may be gone (R9)",
                        volume.loss_count),
            ""};
}

FindingView attachment_finding(const VolumeView& volume) {
    if (volume.state == "creating" || volume.state == "deleting")
        return {"attachment", "warning", "the volume is " + volume.state, ""};
    if (volume.attachments.empty())
        return {"attachment", "ok", "not attached", "ebs-cli attach " + volume.id};
    const auto& attachment = volume.attachments.front();
    // The device of an NBD client is known to its host alone.
    const std::string where =
        attachment.device.empty()
            ? fmt::format("{} to {} over {} at host {}", attachment.state, attachment.instance_id,
                          attachment.frontend, attachment.host_name)
            : fmt::format("{} to {} as {}", attachment.state, attachment.instance_id,
                          attachment.device);
    if (attachment.message.empty()) return {"attachment", "ok", where, ""};
    return {"attachment", "warning", where + ": " + attachment.message, ""};
}

}  // namespace

/// Of a replica that is no member, or a member that cannot be used.
FindingView Volumes::replica_finding(const api::ReplicaView& replica) {
    const auto pool = core_.pools->pool(replica.pool_id);
    const std::string where = pool ? pool->path : replica.pool_id;
    FindingView made{"replica", "warning", fmt::format("{} in {}", replica.id, where), ""};
    if (replica.role == "joining") {
        made.message += " is being copied, and is no member until then (R12)";
    } else if (replica.role == "returning") {
        made.message += fmt::format(" is back: {} of {} bytes that differ are copied (R12)",
                                    replica.copied_bytes, replica.differing_bytes);
    } else {
        made.message += fmt::format(
            " is {}{}", replica.role == "lost" ? "lost (R5)" : "a member that cannot be used",
            replica.cause.empty() ? "" : ": " + replica.cause);
        if (!replica.waits_for.empty())
            made.message += "; it returns, and waits: " + replica.waits_for;
        if (pool && pool->state != "ok")
            made.fix = fmt::format(
                "bring its disk back, mount it, then 'ebs-cli pool add {}'; or "
                "'ebs-cli pool add DIR --domain NEW' for another replica",
                where);
    }
    return made;
}

ApiResult<std::vector<FindingView>> Volumes::why(const std::string& name) {
    API_TRY_ASSIGN(const auto view, volume(name));
    std::vector<FindingView> findings{io_finding(view)};
    const auto& health = view.health;
    FindingView redundancy{
        "redundancy", health.in_sync < health.wanted ? "warning" : "ok",
        fmt::format("{} of {} replicas are in sync", health.in_sync, health.wanted), ""};
    const bool comes = std::ranges::any_of(view.replicas, [](const auto& replica) {
        return replica.is_copied_to() || !replica.waits_for.empty();
    });
    if (health.in_sync < health.wanted && !comes)
        redundancy.fix = "'ebs-cli pool add DIR --domain NEW': a pool in a free failure domain";
    findings.push_back(redundancy);
    for (const auto& replica : view.replicas) {
        const bool member = replica.role == "primary" || replica.role == "secondary";
        if (!member || !replica.cause.empty()) findings.push_back(replica_finding(replica));
        if (replica.leaving) findings.push_back(drain_finding(replica));
    }
    findings.push_back(attachment_finding(view));
    findings.push_back(data_finding(view));
    return findings;
}

}  // namespace ublkd::daemon
