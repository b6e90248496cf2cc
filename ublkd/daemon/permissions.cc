#include "ublkd/daemon/permissions.h"

#include <fmt/format.h>

#include "ublkd/daemon/names.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;

ApiResult<std::vector<api::PermissionView>> Permissions::permissions() {
    const auto records = core_.permissions->list();
    if (!records) return refuse(records.error(), "cannot list the permissions");
    std::vector<api::PermissionView> views;
    for (const auto& record : *records) {
        api::PermissionView view;
        view.resource_id = record.resource;
        view.state = metadata::name_of(record.state);
        view.generation = record.generation;
        view.time_ms = record.changed_ms;
        if (record.host) view.host_id = record.host.to_string();
        if (record.incarnation) view.incarnation = record.incarnation.to_string();
        const auto replica = core_.store->get<metadata::ReplicaRecord>(record.incarnation);
        if (replica && *replica) view.pool_id = (*replica)->pool.to_string();
        views.push_back(std::move(view));
    }
    return views;
}

ApiResult<api::PermissionAnswer> Permissions::request_permission(
    const api::PermissionRequest& request) {
    const auto host = HostId::parse(request.host_id);
    const auto incarnation = ReplicaId::parse(request.incarnation);
    if (!host)
        return refuse("InvalidParameterValue",
                      fmt::format("HostId is a host's whole id; '{}' was given",
                                  api::shown(request.host_id)));
    if (!incarnation)
        return refuse("InvalidParameterValue",
                      fmt::format("Incarnation is a replica's whole id; '{}' was given",
                                  api::shown(request.incarnation)));
    API_TRY(find_host(core_.store, host->to_string()));
    const auto result = core_.permissions->request(request.resource_id, {*host, *incarnation});
    if (!result)
        return refuse(result.error(),
                      fmt::format("permission for '{}'", api::shown(request.resource_id)));
    api::PermissionAnswer answer;
    answer.granted = result->answer == metadata::PermissionAnswer::kGranted;
    answer.reason = metadata::name_of(result->answer);
    answer.generation = result->generation;
    if (result->holder.host) answer.owner_host_id = result->holder.host.to_string();
    if (result->holder.incarnation)
        answer.owner_incarnation = result->holder.incarnation.to_string();
    return answer;
}

ApiResult<void> Permissions::revoke_permission(const std::string& resource) {
    const auto record = core_.store->get<metadata::PermissionRecord>(resource);
    if (!record) return refuse(record.error(), "cannot look up the permission");
    if (!*record || (*record)->state != metadata::PermissionState::kGranted) {
        return refuse("InvalidPermission.NotFound",
                      fmt::format("nobody holds a permission for '{}': 'ebs-cli permission list' "
                                  "shows who holds what",
                                  api::shown(resource)));
    }
    // Its copy would be for nothing: the authority never lets a past holder join.
    const auto replica = core_.store->get<metadata::ReplicaRecord>((*record)->incarnation);
    if (!replica) return refuse(replica.error(), "cannot look up the replica");
    if (*replica && ((*replica)->state == metadata::ReplicaState::kPreparing ||
                     (*replica)->state == metadata::ReplicaState::kReturning)) {
        return refuse("IncorrectState",
                      fmt::format("{} is being prepared for its volume: its permission can be "
                                  "revoked when it is no member and is not copied to",
                                  (*record)->incarnation.to_string()));
    }
    const auto revoked =
        core_.permissions->revoke(resource, {(*record)->host, (*record)->incarnation});
    if (!revoked && revoked.error().code == Errc::kBusy) {
        return refuse(
            "IncorrectState",
            fmt::format("{} is a member of its volume: it can be revoked when it has left",
                        (*record)->incarnation.to_string()));
    }
    if (!revoked) return refuse(revoked.error(), fmt::format("cannot revoke '{}'", resource));
    core_.events->add("permission.revoked", resource, (*record)->incarnation.to_string());
    return {};
}

}  // namespace ublkd::daemon
