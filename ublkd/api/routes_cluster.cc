#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

constexpr std::uint64_t kLongestSeconds = 7 * 24 * 3600;

Json cluster_json(const ClusterView& view) {
    return Json::object()
        .set("HostName", view.host_name)
        .set("Listen", view.listen)
        .set("Metadata", view.metadata)
        .set("Authority", view.authority);
}

Json token_json(const JoinTokenView& view) {
    return Json::object()
        .set("Token", view.token)
        .set("Address", view.address)
        .set("EndTime", iso_time(view.ends_ms));
}

}  // namespace

void add_cluster_routes(RouteTable& table, ClusterControl* cluster) {
    constexpr bool kBeforeInit = true;
    table.add({Method::kPost,
               "/v1/cluster",
               "InitializeCluster",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   InitClusterRequest wanted;
                   wanted.listen = fields.required_text("Listen");
                   wanted.metadata_listen = fields.text("MetadataListen");
                   wanted.name = fields.text("Name");
                   API_TRY(fields.done());
                   return answer(cluster->init_cluster(wanted), cluster_json);
               },
               {},
               kBeforeInit});
    table.add({Method::kPost, "/v1/cluster/tokens", "CreateJoinToken",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   const auto seconds = fields.number("ExpiresSeconds", 3600, 1, kLongestSeconds);
                   API_TRY(fields.done());
                   return answer(cluster->make_token(seconds), token_json);
               }});
    table.add({Method::kPost,
               "/v1/cluster/join",
               "JoinCluster",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   JoinClusterRequest wanted;
                   wanted.token = fields.required_text("Token");
                   wanted.listen = fields.required_text("Listen");
                   wanted.name = fields.text("Name");
                   API_TRY(fields.done());
                   return answer(cluster->join(wanted), cluster_json);
               },
               {},
               kBeforeInit});
}

}  // namespace ublkd::api
