#include <fmt/format.h>

#include <limits>

#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"
#include "ublkd/base/units.h"

namespace ublkd::api {
namespace {

Json replica_json(const ReplicaView& view) {
    Json json = Json::object();
    json.set("ReplicaId", view.id).set("PoolId", view.pool_id).set("HostId", view.host_id);
    json.set("Domain", view.domain).set("Role", view.role);
    if (!view.cause.empty()) json.set("Cause", view.cause);
    if (!view.waits_for.empty()) json.set("WaitsFor", view.waits_for);
    if (view.leaving) json.set("Leaving", true);
    if (!view.leaving_waits_for.empty()) json.set("LeavingWaitsFor", view.leaving_waits_for);
    if (view.role == "returning")
        json.set("DifferingBytes", view.differing_bytes).set("CopiedBytes", view.copied_bytes);
    return json;
}

Json health_json(const HealthView& view) {
    Json json = Json::object();
    json.set("State", view.state).set("InSync", view.in_sync).set("Wanted", view.wanted);
    if (view.sync_total_bytes != 0) {
        json.set("SyncDoneBytes", view.sync_done_bytes)
            .set("SyncTotalBytes", view.sync_total_bytes);
    }
    if (view.verified_bytes) json.set("VerifiedBytes", *view.verified_bytes);
    if (!view.blocked_by.empty()) json.set("BlockedBy", view.blocked_by);
    if (!view.reason.empty()) json.set("Reason", view.reason);
    return json;
}

Json volume_json(const VolumeView& view) {
    Json json = Json::object();
    json.set("VolumeId", view.id).set("Name", view.name).set("State", view.state);
    json.set("Size", divide_up(view.size_bytes, kGiB)).set("SizeBytes", view.size_bytes);
    json.set("UsedBytes", view.used_bytes).set("BlockSize", view.block_bytes);
    json.set("CreateTime", iso_time(view.create_time_ms));
    json.set("Durability", view.durability).set("OnFull", view.on_full);
    json.set("MultiAttachEnabled", view.multi_attach);
    if (!view.durability_in_force.empty()) json.set("DurabilityInForce", view.durability_in_force);
    json.set("Number", view.number)
        .set("LossCount", view.loss_count)
        .set("DataMayBeLost", view.data_may_be_lost);
    json.set("Health", health_json(view.health));
    Json replicas = Json::array();
    for (const auto& replica : view.replicas) replicas.push(replica_json(replica));
    json.set("Replicas", std::move(replicas));
    Json attachments = Json::array();
    for (const auto& attachment : view.attachments) attachments.push(attachment_json(attachment));
    json.set("Attachments", std::move(attachments)).set("Tags", tags_json(view.tags));
    return json;
}

Json verify_json(const VerifyView& view) {
    Json json = Json::object();
    json.set("VolumeId", view.volume_id)
        .set("Equal", view.differing_bytes == 0)
        .set("Members", view.members);
    json.set("ComparedBytes", view.compared_bytes)
        .set("DifferingBytes", view.differing_bytes)
        .set("RepairedBytes", view.repaired_bytes);
    if (view.first_difference_bytes) json.set("FirstDifference", *view.first_difference_bytes);
    return json;
}

/// Size in GiB (AWS's field) or SizeBytes in whole MiB; one of the two.
std::uint64_t read_size(Fields& fields) {
    constexpr std::uint64_t kMostGiB = 64 * 1024;  // 64 TiB, as io2 Block Express
    const auto size = fields.optional_number("Size", 1, kMostGiB);
    const auto bytes = fields.optional_number("SizeBytes", kMiB, kMostGiB * kGiB);
    if (size && bytes) {
        fields.refuse_field("InvalidParameterCombination",
                            "give Size (GiB) or SizeBytes, not both");
        return 0;
    }
    if (!size && !bytes) {
        fields.refuse_field("MissingParameter", "Size (GiB) or SizeBytes is needed");
        return 0;
    }
    if (bytes && *bytes % kMiB != 0) {
        fields.refuse_field(
            "InvalidParameterValue",
            fmt::format("SizeBytes must be whole MiB (a multiple of {}); '{}' was given", kMiB,
                        *bytes));
    }
    return bytes ? *bytes : *size * kGiB;
}

ApiResult<CreateVolumeRequest> read_create(const Json& body) {
    Fields fields(body);
    CreateVolumeRequest made;
    made.size_bytes = read_size(fields);
    made.name = fields.text("Name");
    made.tags = fields.tags("Tags");
    if (const auto replicas = fields.optional_number("Replicas", 1, 3))
        made.replicas = static_cast<unsigned>(*replicas);
    made.block_bytes = static_cast<std::uint32_t>(fields.number_of("BlockSize", {512, 4096}, 512));
    made.durability = fields.choice("Durability", {"flush", "write"}, "flush");
    made.on_full = fields.choice("OnFull", {"wait", "fail"}, "wait");
    made.multi_attach = fields.flag("MultiAttachEnabled");
    made.client_token = fields.text("ClientToken");
    if (made.client_token.size() > 64) {
        fields.refuse_field("InvalidParameterValue",
                            fmt::format("ClientToken has at most 64 bytes; {} were given",
                                        made.client_token.size()));
    }
    made.dry_run = fields.flag("DryRun");
    API_TRY(fields.done());
    return made;
}

ApiResult<ModifyVolumeRequest> read_modify(const Json& body) {
    Fields fields(body);
    ModifyVolumeRequest made;
    made.name = fields.optional_text("Name");
    made.durability = fields.optional_choice("Durability", {"flush", "write"});
    made.on_full = fields.optional_choice("OnFull", {"wait", "fail"});
    made.delete_on_termination = fields.optional_flag("DeleteOnTermination");
    API_TRY(fields.done());
    if (!made.name && !made.durability && !made.on_full && !made.delete_on_termination) {
        return refuse("MissingParameter",
                      "nothing to change: give Name, Durability, OnFull or DeleteOnTermination");
    }
    return made;
}

}  // namespace

void add_volume_routes(RouteTable& table, VolumeControl* volumes) {
    table.add({Method::kPost, "/v1/volumes", "CreateVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto wanted, read_create(request.body));
                   if (wanted.dry_run) return answer(volumes->plan_volume(wanted), plan_json);
                   return answer(volumes->create_volume(wanted), volume_json);
               }});
    table.add(
        {Method::kGet, "/v1/volumes", "DescribeVolumes", [=](const Request&) -> ApiResult<Json> {
             API_TRY_ASSIGN(const auto found, volumes->volumes());
             return list_json("Volumes", found, volume_json);
         }});
    table.add({Method::kGet, "/v1/volumes/{volume}", "DescribeVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   return answer(volumes->volume(request.at("volume")), volume_json);
               }});
    table.add({Method::kPatch, "/v1/volumes/{volume}", "ModifyVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto wanted, read_modify(request.body));
                   return answer(volumes->modify_volume(request.at("volume"), wanted), volume_json);
               }});
    table.add({Method::kDelete,
               "/v1/volumes/{volume}",
               "DeleteVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const bool dry_run, query_flag(request, "dry_run"));
                   API_TRY(volumes->delete_volume(request.at("volume"), dry_run));
                   return done_json();
               },
               {"dry_run"}});
    table.add({Method::kPost, "/v1/volumes/{volume}/verify", "VerifyVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   const bool repair = fields.flag("Repair");
                   API_TRY(fields.done());
                   return answer(volumes->verify_volume(request.at("volume"), repair), verify_json);
               }});
    table.add({Method::kGet, "/v1/volumes/{volume}/why", "ExplainVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto findings, volumes->why(request.at("volume")));
                   return list_json("Findings", findings, finding_json);
               }});
}

}  // namespace ublkd::api
