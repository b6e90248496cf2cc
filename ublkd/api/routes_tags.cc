#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

Json tag_json(const TagView& view) {
    return Json::object()
        .set("ResourceId", view.resource_id)
        .set("Key", view.key)
        .set("Value", view.value);
}

}  // namespace

void add_tag_routes(RouteTable& table, TagControl* tags) {
    table.add({Method::kGet,
               "/v1/tags",
               "DescribeTags",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto found, tags->tags(request.query_value("resource")));
                   return list_json("Tags", found, tag_json);
               },
               {"resource"}});
    table.add({Method::kPost, "/v1/tags/{resource}", "CreateTags",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   const Tags wanted = fields.tags("Tags");
                   if (wanted.empty())
                       fields.refuse_field("MissingParameter",
                                           "Tags is needed: a list of {Key, Value}");
                   API_TRY(fields.done());
                   API_TRY(tags->add_tags(request.at("resource"), wanted));
                   return done_json();
               }});
    table.add({Method::kDelete, "/v1/tags/{resource}/{key}", "DeleteTags",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY(tags->remove_tags(request.at("resource"), {request.at("key")}));
                   return done_json();
               }});
}

}  // namespace ublkd::api
