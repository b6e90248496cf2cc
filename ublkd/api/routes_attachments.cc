#include <fmt/format.h>

#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {

Json attachment_json(const AttachmentView& view) {
    Json json = Json::object();
    json.set("AttachmentId", view.id)
        .set("VolumeId", view.volume_id)
        .set("InstanceId", view.instance_id);
    json.set("HostId", view.host_id)
        .set("HostName", view.host_name)
        .set("State", view.state)
        .set("Device", view.device);
    if (!view.link.empty()) json.set("Link", view.link);
    if (!view.label.empty()) json.set("Label", view.label);
    json.set("Frontend", view.frontend).set("AttachTime", iso_time(view.attach_time_ms));
    json.set("Boot", view.boot)
        .set("DeleteOnTermination", view.delete_on_termination)
        .set("ReadOnly", view.read_only);
    if (!view.message.empty()) json.set("StateMessage", view.message);
    return json;
}

namespace {

ApiResult<AttachRequest> read_attach(const std::string& volume, const Json& body) {
    Fields fields(body);
    AttachRequest made;
    made.volume = volume;
    made.instance = fields.text("InstanceId");
    made.label = fields.text("Device");
    made.frontend = fields.choice("Frontend", {"auto", "ublk", "nbd"}, "auto");
    const auto queues = fields.optional_number("Queues", 1, 32);
    const auto depth = fields.optional_number("Depth", 1, kMaxTags);
    made.queues = static_cast<unsigned>(queues.value_or(made.queues));
    made.depth = static_cast<unsigned>(depth.value_or(made.depth));
    if (made.frontend == "nbd" && (queues || depth)) {
        fields.refuse_field("InvalidParameterCombination",
                            "Queues and Depth are those of /dev/ublkbN: leave them out for NBD");
    }
    if (made.queues * made.depth > kMaxTags) {
        fields.refuse_field("InvalidParameterCombination",
                            fmt::format("Queues times Depth is at most {}; {} times {} was given",
                                        kMaxTags, made.queues, made.depth));
    }
    made.boot = fields.flag("Boot");
    made.delete_on_termination = fields.flag("DeleteOnTermination");
    made.read_only = fields.flag("ReadOnly");
    made.dry_run = fields.flag("DryRun");
    API_TRY(fields.done());
    return made;
}

}  // namespace

void add_attachment_routes(RouteTable& table, VolumeControl* volumes) {
    table.add({Method::kPost, "/v1/volumes/{volume}/attach", "AttachVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto wanted,
                                  read_attach(request.at("volume"), request.body));
                   if (wanted.dry_run) return answer(volumes->plan_attach(wanted), plan_json);
                   return answer(volumes->attach(wanted), attachment_json);
               }});
    table.add({Method::kPost, "/v1/volumes/{volume}/detach", "DetachVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   const std::string instance = fields.text("InstanceId");
                   const bool force = fields.flag("Force");
                   const bool dry_run = fields.flag("DryRun");
                   API_TRY(fields.done());
                   const std::string volume = request.at("volume");
                   if (dry_run)
                       return answer(volumes->plan_detach(volume, instance, force), plan_json);
                   return answer(volumes->detach(volume, instance, force), attachment_json);
               }});
    table.add({Method::kGet, "/v1/attachments", "DescribeAttachments",
               [=](const Request&) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto found, volumes->attachments());
                   return list_json("Attachments", found, attachment_json);
               }});
}

}  // namespace ublkd::api
