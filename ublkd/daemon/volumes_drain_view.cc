// What is told of pools that are drained: how much still lies there, what a replica that is to
// leave waits for, and where each would go. By the same choice as volumes_drain.cc makes; nothing
// is changed here.
#include <fmt/format.h>

#include <algorithm>

#include "ublkd/daemon/names.h"
#include "ublkd/daemon/placement.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::DrainView;
using api::refuse;
using metadata::PoolRecord;
using metadata::ReplicaRecord;
using metadata::ReplicaState;
using metadata::VolumeRecord;
using replication::Member;
using replication::Membership;

namespace {

std::string counted(std::size_t count, const char* noun) {
    return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string named(const DrainView& view) {
    return fmt::format("pool {} of host {}", view.path, view.host_name);
}

std::string left_in(const DrainView& view) {
    return fmt::format("{} is draining, {} ({} MiB) left", named(view),
                       counted(view.replicas, "replica"), view.left_bytes / kMiB);
}

std::string no_pool_outside(const std::set<std::string>& taken) {
    if (taken.empty()) return "there is no other usable pool";
    return fmt::format(
        "there is no usable pool outside of the failure domain{} {}, where its "
        "other replica{} already",
        taken.size() == 1 ? "" : "s", fmt::join(taken, " and "),
        taken.size() == 1 ? " is" : "s are");
}

std::string add_pool_outside(const std::set<std::string>& taken) {
    if (taken.empty()) return "'ebs-cli pool add DIR --domain NAME' for another pool";
    return fmt::format("'ebs-cli pool add DIR --domain NEW' for a pool outside of {}",
                       fmt::join(taken, " and "));
}

std::string cancel_of(const PoolRecord& pool) {
    return fmt::format("'ebs-cli pool drain {} --cancel'", pool.id.to_string());
}

}  // namespace

/// What is the same for all replicas that one request looks at: other hosts are asked once.
Volumes::DrainLook Volumes::look_for_drains(std::set<PoolId> drained) {
    DrainLook look{.drained = std::move(drained), .usable = usable_pools(), .away = {}};
    std::erase_if(look.usable,
                  [&](const UsablePool& pool) { return look.drained.contains(pool.id); });
    return look;
}

bool Volumes::is_away(DrainLook& look, HostId host) {
    if (!look.away.contains(host)) look.away[host] = is_away(host);
    return look.away[host];
}

/// "/p of host one (domain a) or /q of host two (domain b)".
std::string Volumes::places_text(const std::vector<UsablePool>& pools) {
    std::vector<std::string> places;
    for (const UsablePool& pool : pools) {
        const auto record = core_.store->get<PoolRecord>(pool.id);
        places.push_back(fmt::format("{} of host {} (domain {})",
                                     record && *record ? (*record)->path : pool.id.to_string(),
                                     name_of_host(pool.host), pool.domain));
    }
    return fmt::format("{}", fmt::join(places, " or "));
}

/// Of a member in a pool that is drained. Only where the primary is, it is known that a copy
/// failed.
Volumes::Move Volumes::move_of(DrainLook& look, const VolumeRecord& volume,
                               const Membership& record) {
    const bool whole = record.members.size() >= volume.replica_count;
    std::vector<Member> staying = record.members;
    std::erase_if(
        staying, [&](const Member& member) { return whole && look.drained.contains(member.pool); });
    const auto taken = domains_of_members(staying);
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("volume", volume.id));
    auto usable = look.usable;
    bool copying = record.members.size() > volume.replica_count;
    for (const auto& replica : replicas ? *replicas : std::vector<ReplicaRecord>()) {
        if (replica.state == ReplicaState::kPreparing) copying = true;
        if (replica.state == ReplicaState::kLost || replica.state == ReplicaState::kReturning)
            std::erase_if(usable, [&](const UsablePool& pool) { return pool.id == replica.pool; });
    }
    Move move{.to = choose_candidates(usable, taken, 1), .waits_for = "", .next = ""};
    const HostId keeper = host_of_primary(record);
    const auto [failed, failed_copy] = [&] {
        const auto ref = slot(volume.id);
        const std::lock_guard state(ref->state);
        return std::pair(ref->failed_target, ref->failed_copy);
    }();
    const bool no_other =
        std::ranges::all_of(move.to, [&](const UsablePool& pool) { return pool.id == failed; });
    if (is_away(look, keeper)) {
        move.waits_for =
            fmt::format("host {}, which has its primary, does not answer", name_of_host(keeper));
        move.next = "start ublkd at host " + name_of_host(keeper);
    } else if (move.to.empty() && !copying) {
        move.waits_for = no_pool_outside(taken);
        move.next = add_pool_outside(taken);
    } else if (const auto used = used_bytes(record); !copying && with_room(move.to, used).empty()) {
        move.waits_for = fmt::format("the pools that may have it have no room for its {} MiB: {}",
                                     used / kMiB + 1, places_text(move.to));
        move.next = "make room there, or " + add_pool_outside(taken);
    } else if (no_other && !failed_copy.empty()) {
        move.waits_for = fmt::format("the copy to {} failed ({}), and is tried again",
                                     places_text(move.to), failed_copy);
        move.next = "make room there, or " + add_pool_outside(taken);
    }
    return move;
}

/// One replica of a pool that is drained. Of one that is no member only the files are left.
Volumes::Move Volumes::move_of(DrainLook& look, const ReplicaRecord& replica) {
    const auto volume = core_.store->get<VolumeRecord>(replica.volume);
    const auto record = core_.authority->current(replica.volume);
    if (volume && *volume && record && *record && (*record)->has(replica.id))
        return move_of(look, **volume, **record);
    const HostId host = core_.pools->host_of_pool(replica.pool);
    if (!is_away(look, host)) return {};
    return {.to = {},
            .waits_for =
                fmt::format("host {}, where its files are, does not answer", name_of_host(host)),
            .next = "start ublkd at host " + name_of_host(host)};
}

DrainView Volumes::drain_view(DrainLook& look, const PoolRecord& pool) {
    DrainView view{.pool_id = pool.id.to_string(),
                   .path = pool.path,
                   .host_id = pool.host.to_string(),
                   .host_name = name_of_host(pool.host),
                   .state = "moving",
                   .message = {},
                   .fix = {}};
    const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("pool", pool.id));
    std::vector<std::string> waiting;  // volumes
    Move first;
    for (const auto& replica : replicas ? *replicas : std::vector<ReplicaRecord>()) {
        ++view.replicas;
        const auto volume = core_.store->get<VolumeRecord>(replica.volume);
        if (volume && *volume) view.left_bytes += (*volume)->size_bytes;
        Move move = move_of(look, replica);
        if (move.waits_for.empty()) continue;
        if (waiting.empty()) first = std::move(move);
        waiting.push_back(replica.volume.to_string());
    }
    view.message = left_in(view);
    if (!replicas) {
        view.message = named(view) + " is draining; what lies there cannot be read now";
    } else if (view.replicas == 0) {
        view.state = "drained";
        view.message = named(view) + " is drained: nothing is left there";
        view.fix = fmt::format("'ebs-cli pool remove {}' at host {}", view.pool_id, view.host_name);
    } else if (!waiting.empty()) {
        view.state = "blocked";
        view.message +=
            fmt::format("; {}{} cannot move: {}", waiting.front(),
                        waiting.size() == 1 ? "" : " and " + counted(waiting.size() - 1, "other"),
                        first.waits_for);
        view.fix =
            fmt::format("{}; or {}: what has moved stays where it is", first.next, cancel_of(pool));
    }
    return view;
}

ApiResult<std::vector<DrainView>> Volumes::drains() {
    core_.pools->learn(core_.identity->host());
    auto pools = core_.store->list<PoolRecord>();
    if (!pools) return refuse(pools.error(), "cannot list the pools");
    std::erase_if(*pools, [](const PoolRecord& pool) { return !pool.draining; });
    std::vector<DrainView> views;
    if (pools->empty()) return views;
    std::set<PoolId> drained;
    for (const auto& pool : *pools) drained.insert(pool.id);
    auto look = look_for_drains(std::move(drained));
    for (const auto& pool : *pools) views.push_back(drain_view(look, pool));
    return views;
}

/// To one volume's view: what its replicas in pools that are drained wait for.
void Volumes::add_drains(const VolumeRecord& volume, api::VolumeView& view) {
    if (std::ranges::none_of(view.replicas, &api::ReplicaView::leaving)) return;
    const auto record = core_.authority->current(volume.id);
    if (!record || !*record) return;
    auto look = look_for_drains(core_.pools->draining());
    const Move move = move_of(look, volume, **record);
    for (auto& replica : view.replicas) {
        if (!replica.leaving || (replica.role != "primary" && replica.role != "secondary"))
            continue;
        replica.leaving_waits_for = move.waits_for;
    }
}

/// Of a volume with a replica in a pool that is drained: the pool's drain, and what this one waits
/// for.
api::FindingView Volumes::drain_finding(const api::ReplicaView& replica) {
    api::FindingView made{"drain", "ok", replica.id + " is to leave", ""};
    const auto now = drains();
    const auto drain = now ? std::ranges::find(*now, replica.pool_id, &DrainView::pool_id)
                           : std::vector<DrainView>::const_iterator();
    if (!now || drain == now->end()) return made;
    const std::string& waits_for = replica.leaving_waits_for;
    if (!waits_for.empty() && drain->message.find(waits_for) == std::string::npos)
        made.message += ", and cannot: " + waits_for;
    made.message += ": " + drain->message;
    made.state = drain->state == "blocked" ? "warning" : "ok";
    made.fix = drain->fix;
    return made;
}

/// For errors about a lack of pools: "" where none is drained.
std::string Volumes::drained_text() {
    std::vector<std::string> names;
    std::string cancel;
    for (const PoolId id : core_.pools->draining()) {
        const auto pool = core_.store->get<PoolRecord>(id);
        if (!pool || !*pool) continue;
        names.push_back(fmt::format("{} of host {}", (*pool)->path, name_of_host((*pool)->host)));
        cancel = cancel_of(**pool);
    }
    if (names.empty()) return "";
    return fmt::format(" (draining, so taking none: {}; {} ends that)", fmt::join(names, ", "),
                       cancel);
}

ApiResult<api::PlanView> Volumes::plan_drain(const std::vector<PoolRecord>& pools) {
    core_.pools->learn(core_.identity->host());
    std::set<PoolId> drained = core_.pools->draining();
    for (const auto& pool : pools) drained.insert(pool.id);
    auto look = look_for_drains(std::move(drained));
    api::PlanView plan;
    for (const auto& pool : pools) {
        const auto replicas = core_.store->list<ReplicaRecord>(metadata::where("pool", pool.id));
        if (!replicas) return refuse(replicas.error(), "cannot list the replicas of " + pool.path);
        for (const auto& replica : *replicas) {
            const Move move = move_of(look, replica);
            const std::string what = fmt::format("{} of {} in {}", replica.id.to_string(),
                                                 replica.volume.to_string(), pool.path);
            if (!move.waits_for.empty())
                plan.steps.push_back(fmt::format("leave {} where it is: {}", what, move.waits_for));
            else if (move.to.empty())
                plan.steps.push_back(fmt::format("wait for {}, which leaves already", what));
            else
                plan.steps.push_back(fmt::format("move {} to {}", what, places_text(move.to)));
        }
        if (replicas->empty())
            plan.steps.push_back(fmt::format("move nothing: {} has no replica", pool.path));
    }
    if (pools.empty()) plan.steps.emplace_back("move nothing: the host has no pool");
    return plan;
}

ApiResult<api::PlanView> Volumes::plan_pool_drain(const std::string& name) {
    API_TRY_ASSIGN(const auto pool, find_pool(core_.store, name));
    return plan_drain({pool});
}

ApiResult<api::PlanView> Volumes::plan_host_drain(const std::string& name) {
    API_TRY_ASSIGN(const auto host, find_host(core_.store, name));
    const auto pools = core_.store->list<PoolRecord>(metadata::where("host", host.id));
    if (!pools) return refuse(pools.error(), "cannot list the host's pools");
    return plan_drain(*pools);
}

}  // namespace ublkd::daemon
