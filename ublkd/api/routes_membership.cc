#include <limits>

#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {
namespace {

constexpr std::uint64_t kGreatestNumber = std::numeric_limits<std::int64_t>::max();

Json membership_json(const MembershipView& view) {
    Json json = Json::object();
    json.set("VolumeId", view.volume_id)
        .set("Number", view.number)
        .set("LossCount", view.loss_count);
    json.set("DataMayBeLost", view.data_may_be_lost).set("Primary", view.primary);
    Json members = Json::array();
    for (const auto& member : view.members) {
        members.push(Json::object()
                         .set("ReplicaId", member.replica_id)
                         .set("HostId", member.host_id)
                         .set("PoolId", member.pool_id));
    }
    Json attachments = Json::array();
    for (const auto& id : view.attachments) attachments.push(id);
    json.set("Members", std::move(members)).set("AttachmentIds", std::move(attachments));
    return json;
}

ApiResult<MembershipView> read_membership(const std::string& volume, const Json& body) {
    Fields fields(body);
    MembershipView made;
    made.volume_id = volume;
    if (fields.text("VolumeId", volume) != volume) {
        fields.refuse_field("InvalidParameterCombination",
                            "Membership.VolumeId is another volume than the path's");
    }
    made.number = fields.required_number("Number", 1, kGreatestNumber);
    made.loss_count = fields.number("LossCount", 0, 0, kGreatestNumber);
    made.data_may_be_lost = fields.flag("DataMayBeLost");
    made.primary = fields.required_text("Primary");
    made.attachments = fields.texts("AttachmentIds");
    for (const Json& item : body["Members"].items()) {
        Fields member(item);
        MemberView view;
        view.replica_id = member.required_text("ReplicaId");
        view.host_id = member.required_text("HostId");
        view.pool_id = member.required_text("PoolId");
        API_TRY(member.done());
        made.members.push_back(std::move(view));
    }
    if (!body["Members"].is_array() || made.members.empty()) {
        fields.refuse_field("MissingParameter",
                            "Members is needed: a list of {ReplicaId, HostId, PoolId}");
    }
    (void)fields.has("Members");
    API_TRY(fields.done());
    return made;
}

Json answer_json(const ProposalAnswer& answer) {
    Json json = Json::object().set("Verdict", answer.verdict);
    if (answer.current.number != 0) json.set("Membership", membership_json(answer.current));
    return json;
}

}  // namespace

void add_membership_routes(RouteTable& table, VolumeControl* volumes) {
    table.add({Method::kGet, "/v1/volumes/{volume}/membership", "DescribeMembership",
               [=](const Request& request) -> ApiResult<Json> {
                   return answer(volumes->membership(request.at("volume")), membership_json);
               }});
    table.add({Method::kPost, "/v1/volumes/{volume}/membership", "ProposeMembership",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   ProposalRequest wanted;
                   wanted.volume_id = request.at("volume");
                   wanted.proposer = fields.required_text("Proposer");
                   wanted.base_number = fields.number("BaseNumber", 0, 0, kGreatestNumber);
                   const Json& next = fields.object("Membership");
                   if (next.is_null())
                       fields.refuse_field("MissingParameter", "Membership is needed");
                   API_TRY(fields.done());
                   API_TRY_ASSIGN(wanted.next, read_membership(wanted.volume_id, next));
                   return answer(volumes->propose(wanted), answer_json);
               }});
}

}  // namespace ublkd::api
