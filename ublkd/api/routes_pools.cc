#include <fmt/format.h>

#include <limits>

#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"
#include "ublkd/base/units.h"

namespace ublkd::api {

Json pool_json(const PoolView& view) {
    Json json = Json::object();
    json.set("PoolId", view.id)
        .set("HostId", view.host_id)
        .set("HostName", view.host_name)
        .set("Path", view.path)
        .set("Domain", view.domain);
    json.set("State", view.state);
    if (!view.message.empty()) json.set("StateMessage", view.message);
    if (!view.warning.empty()) json.set("Warning", view.warning);
    if (view.draining) json.set("Draining", true).set("LeftBytes", view.left_bytes);
    if (view.limit_bytes != 0) json.set("LimitBytes", view.limit_bytes);
    if (view.measured)
        json.set("UsedBytes", view.used_bytes)
            .set("FreeBytes", view.free_bytes)
            .set("TotalBytes", view.total_bytes);
    Json others = Json::array();
    for (const auto& other : view.shares_space_with) others.push(other);
    json.set("SharesSpaceWith", std::move(others));
    json.set("Replicas", view.replicas)
        .set("LostReplicas", view.lost_replicas)
        .set("Buffered", view.buffered)
        .set("CreateTime", iso_time(view.create_time_ms));
    return json;
}

ApiResult<AddPoolRequest> read_pool_request(const Json& body, bool path_needed) {
    Fields fields(body);
    AddPoolRequest made;
    made.path = path_needed ? fields.required_text("Path") : fields.text("Path");
    if (!made.path.empty() && made.path[0] != '/') {
        fields.refuse_field("InvalidParameterValue",
                            fmt::format("Path must be absolute; '{}' was given", made.path));
    }
    made.domain = fields.text("Domain");
    made.limit_bytes =
        fields.number("SizeBytes", 0, kMiB, std::numeric_limits<std::int64_t>::max());
    made.buffered = fields.flag("Buffered");
    made.dry_run = fields.flag("DryRun");
    API_TRY(fields.done());
    return made;
}

void add_pool_routes(RouteTable& table, PoolControl* pools) {
    table.add(
        {Method::kPost, "/v1/pools", "AddPool", [=](const Request& request) -> ApiResult<Json> {
             API_TRY_ASSIGN(const auto wanted, read_pool_request(request.body, true));
             if (wanted.dry_run) return answer(pools->plan_pool(wanted), plan_json);
             return answer(pools->add_pool(wanted), pool_json);
         }});
    table.add({Method::kGet, "/v1/pools", "DescribePools", [=](const Request&) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto found, pools->pools());
                   return list_json("Pools", found, pool_json);
               }});
    table.add({Method::kGet, "/v1/pools/{pool}", "DescribePool",
               [=](const Request& request) -> ApiResult<Json> {
                   return answer(pools->pool(request.at("pool")), pool_json);
               }});
    table.add({Method::kDelete,
               "/v1/pools/{pool}",
               "RemovePool",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const bool dry_run, query_flag(request, "dry_run"));
                   const std::string pool = request.at("pool");
                   if (dry_run) return answer(pools->plan_pool_removal(pool), plan_json);
                   API_TRY(pools->remove_pool(pool));
                   return done_json();
               },
               {"dry_run"}});
}

}  // namespace ublkd::api
