#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

Json permission_json(const PermissionView& view) {
    Json json = Json::object();
    json.set("ResourceId", view.resource_id)
        .set("State", view.state)
        .set("Generation", view.generation);
    json.set("HostId", view.host_id).set("Incarnation", view.incarnation);
    if (!view.pool_id.empty()) json.set("PoolId", view.pool_id);
    json.set("Time", iso_time(view.time_ms));
    return json;
}

Json answer_json(const PermissionAnswer& answer) {
    Json json = Json::object();
    json.set("Granted", answer.granted)
        .set("Answer", answer.reason)
        .set("Generation", answer.generation);
    if (!answer.owner_host_id.empty()) {
        json.set("HostId", answer.owner_host_id).set("Incarnation", answer.owner_incarnation);
    }
    return json;
}

}  // namespace

void add_permission_routes(RouteTable& table, PermissionControl* permissions) {
    table.add({Method::kGet, "/v1/permissions", "DescribePermissions",
               [=](const Request&) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto found, permissions->permissions());
                   return list_json("Permissions", found, permission_json);
               }});
    table.add({Method::kPost, "/v1/permissions", "RequestPermission",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   PermissionRequest wanted;
                   wanted.resource_id = fields.required_text("ResourceId");
                   wanted.host_id = fields.required_text("HostId");
                   wanted.incarnation = fields.required_text("Incarnation");
                   API_TRY(fields.done());
                   return answer(permissions->request_permission(wanted), answer_json);
               }});
    // A resource's name may hold a slash: %2F in the path.
    table.add({Method::kDelete, "/v1/permissions/{resource}", "RevokePermission",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY(permissions->revoke_permission(request.at("resource")));
                   return done_json();
               }});
}

}  // namespace ublkd::api
