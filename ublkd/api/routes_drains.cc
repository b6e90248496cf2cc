// Pools and hosts that are drained: how far they are, what a drain would do, begin and cancel.
#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

struct DrainRequest {
    bool cancel = false, dry_run = false;
};

ApiResult<DrainRequest> read_drain(const Json& body) {
    Fields fields(body);
    DrainRequest made;
    made.cancel = fields.flag("Cancel");
    made.dry_run = fields.flag("DryRun");
    if (made.cancel && made.dry_run)
        fields.refuse_field("InvalidParameterCombination", "Cancel moves nothing: it has no plan");
    API_TRY(fields.done());
    return made;
}

Json drain_json(const DrainView& view) {
    Json json = Json::object();
    json.set("PoolId", view.pool_id)
        .set("Path", view.path)
        .set("HostId", view.host_id)
        .set("HostName", view.host_name)
        .set("State", view.state)
        .set("Replicas", view.replicas)
        .set("LeftBytes", view.left_bytes)
        .set("Message", view.message);
    if (!view.fix.empty()) json.set("Fix", view.fix);
    return json;
}

}  // namespace

void add_drain_routes(RouteTable& table, const Controls& controls) {
    auto* const volumes = controls.volumes;
    table.add(
        {Method::kGet, "/v1/drains", "DescribeDrains", [=](const Request&) -> ApiResult<Json> {
             API_TRY_ASSIGN(const auto found, volumes->drains());
             return list_json("Drains", found, drain_json);
         }});
    table.add({Method::kPost, "/v1/pools/{pool}/drain", "DrainPool",
               [=, pools = controls.pools](const Request& request) -> ApiResult<Json> {
                   const std::string pool = request.at("pool");
                   API_TRY_ASSIGN(const auto wanted, read_drain(request.body));
                   if (wanted.dry_run) return answer(volumes->plan_pool_drain(pool), plan_json);
                   return answer(pools->drain_pool(pool, !wanted.cancel), pool_json);
               }});
    table.add({Method::kPost, "/v1/hosts/{host}/drain", "DrainHost",
               [=, system = controls.system](const Request& request) -> ApiResult<Json> {
                   const std::string host = request.at("host");
                   API_TRY_ASSIGN(const auto wanted, read_drain(request.body));
                   if (wanted.dry_run) return answer(volumes->plan_host_drain(host), plan_json);
                   return answer(system->drain_host(host, !wanted.cancel), host_json);
               }});
}

}  // namespace ublkd::api
