#include "ublkd/api/routes.h"

namespace ublkd::api {

void add_routes(RouteTable& table, const Controls& controls) {
    add_system_routes(table, controls.system);
    add_cluster_routes(table, controls.cluster);
    add_volume_routes(table, controls.volumes);
    add_attachment_routes(table, controls.volumes);
    add_membership_routes(table, controls.volumes);
    add_instance_routes(table, controls.instances);
    add_pool_routes(table, controls.pools);
    add_drain_routes(table, controls);
    add_permission_routes(table, controls.permissions);
    add_tag_routes(table, controls.tags);
    add_metadata_routes(table, controls.metadata);
}

Json done_json() { return Json::object().set("Return", true); }

Json finding_json(const FindingView& view) {
    Json json = Json::object()
                    .set("Check", view.check)
                    .set("State", view.state)
                    .set("Message", view.message);
    if (!view.fix.empty()) json.set("Fix", view.fix);
    return json;
}

Json plan_json(const PlanView& view) {
    Json steps = Json::array();
    for (const std::string& step : view.steps) steps.push(step);
    return Json::object().set("DryRun", true).set("Plan", std::move(steps));
}

}  // namespace ublkd::api
