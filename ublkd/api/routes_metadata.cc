#include <fmt/format.h>

#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

Json restored_json(const BackupView& view) {
    return Json::object()
        .set("HostName", view.host)
        .set("CreateTime", iso_time(view.create_time_ms))
        .set("Hosts", view.hosts)
        .set("Pools", view.pools)
        .set("Volumes", view.volumes);
}

Json backup_json(const BackupView& view) { return restored_json(view).set("Backup", view.text); }

ApiResult<RestoreRequest> read_restore(const Json& body) {
    Fields fields(body);
    RestoreRequest made;
    made.path = fields.required_text("Path");
    if (!made.path.empty() && made.path[0] != '/')
        fields.refuse_field("InvalidParameterValue",
                            fmt::format("Path must be absolute; '{}' was given", made.path));
    made.force = fields.flag("Force");
    made.dry_run = fields.flag("DryRun");
    API_TRY(fields.done());
    return made;
}

Json rebuilt_json(const RebuildView& view) {
    return Json::object()
        .set("HostId", view.host_id)
        .set("Pools", view.pools)
        .set("Volumes", view.volumes);
}

ApiResult<RebuildRequest> read_rebuild(const Json& body) {
    Fields fields(body);
    RebuildRequest made;
    made.pools = fields.texts("Paths");
    if (made.pools.empty())
        fields.refuse_field("MissingParameter",
                            "Paths is needed: the folders of this host's pools");
    for (const std::string& path : made.pools) {
        if (path.empty() || path[0] != '/')
            fields.refuse_field("InvalidParameterValue",
                                fmt::format("Paths must be absolute; '{}' was given", path));
    }
    made.dry_run = fields.flag("DryRun");
    API_TRY(fields.done());
    return made;
}

}  // namespace

void add_metadata_routes(RouteTable& table, MetadataControl* metadata) {
    table.add({Method::kGet, "/v1/metadata/backup", "BackUpMetadata",
               [=](const Request&) -> ApiResult<Json> {
                   return answer(metadata->backup(), backup_json);
               }});
    table.add({Method::kPost,
               "/v1/metadata/restore",
               "RestoreMetadata",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto wanted, read_restore(request.body));
                   if (wanted.dry_run) return answer(metadata->plan_restore(wanted), plan_json);
                   return answer(metadata->restore(wanted), restored_json);
               },
               {},
               true});
    table.add({Method::kPost,
               "/v1/metadata/rebuild",
               "RebuildMetadata",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto wanted, read_rebuild(request.body));
                   if (wanted.dry_run) return answer(metadata->plan_rebuild(wanted), plan_json);
                   return answer(metadata->rebuild(wanted), rebuilt_json);
               },
               {},
               true});
    table.add({Method::kPost, "/v1/volumes/{volume}/thaw", "ThawVolume",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   API_TRY(fields.done());
                   API_TRY(metadata->thaw(request.at("volume")));
                   return done_json();
               }});
}

}  // namespace ublkd::api
