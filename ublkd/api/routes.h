// All routes, a function per noun (routes_<noun>.cc): JSON to the plain structs of views.h and
// back, nothing more. The controls must outlive the table. docs/openapi.yaml describes each route.
#pragma once

#include "ublkd/api/control.h"
#include "ublkd/api/route_table.h"

namespace ublkd::api {

/// Every route of the daemon.
void add_routes(RouteTable& table, const Controls& controls);

void add_system_routes(RouteTable& table, SystemControl* system);
void add_drain_routes(RouteTable& table, const Controls& controls);
void add_cluster_routes(RouteTable& table, ClusterControl* cluster);
void add_volume_routes(RouteTable& table, VolumeControl* volumes);
void add_attachment_routes(RouteTable& table, VolumeControl* volumes);
void add_membership_routes(RouteTable& table, VolumeControl* volumes);
void add_instance_routes(RouteTable& table, InstanceControl* instances);
void add_pool_routes(RouteTable& table, PoolControl* pools);
void add_permission_routes(RouteTable& table, PermissionControl* permissions);
void add_tag_routes(RouteTable& table, TagControl* tags);
void add_metadata_routes(RouteTable& table, MetadataControl* metadata);

Json attachment_json(const AttachmentView& view);
Json pool_json(const PoolView& view);
Json host_json(const HostView& view);
Json plan_json(const PlanView& view);
Json finding_json(const FindingView& view);
/// {key: [item, ...]} by `make`.
template <class T>
Json list_json(const char* key, const std::vector<T>& items, Json (*make)(const T&)) {
    Json list = Json::array();
    for (const T& item : items) list.push(make(item));
    return Json::object().set(key, std::move(list));
}
/// `result` as JSON by `make`, or its error.
template <class T>
ApiResult<Json> answer(const ApiResult<T>& result, Json (*make)(const T&)) {
    if (!result) return refuse(result.error());
    return make(*result);
}
/// {"Return": true}: what an operation without a result answers.
Json done_json();
/// What the request for a pool says (init and pool add).
ApiResult<AddPoolRequest> read_pool_request(const Json& body, bool path_needed);

}  // namespace ublkd::api
