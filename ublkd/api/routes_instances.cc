#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

Json instance_json(const InstanceView& view) {
    Json json = Json::object();
    json.set("InstanceId", view.id).set("Name", view.name).set("HostId", view.host_id);
    json.set("IsHost", view.is_host).set("LaunchTime", iso_time(view.create_time_ms));
    Json attachments = Json::array();
    for (const auto& attachment : view.attachments) attachments.push(attachment_json(attachment));
    json.set("Attachments", std::move(attachments)).set("Tags", tags_json(view.tags));
    return json;
}

}  // namespace

void add_instance_routes(RouteTable& table, InstanceControl* instances) {
    table.add({Method::kPost, "/v1/instances", "CreateInstance",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   const std::string name = fields.text("Name");
                   const Tags tags = fields.tags("Tags");
                   API_TRY(fields.done());
                   return answer(instances->create_instance(name, tags), instance_json);
               }});
    table.add({Method::kGet, "/v1/instances", "DescribeInstances",
               [=](const Request&) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto found, instances->instances());
                   return list_json("Instances", found, instance_json);
               }});
    table.add({Method::kGet, "/v1/instances/{instance}", "DescribeInstance",
               [=](const Request& request) -> ApiResult<Json> {
                   return answer(instances->instance(request.at("instance")), instance_json);
               }});
    table.add({Method::kDelete, "/v1/instances/{instance}", "DeleteInstance",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY(instances->delete_instance(request.at("instance")));
                   return done_json();
               }});
}

}  // namespace ublkd::api
