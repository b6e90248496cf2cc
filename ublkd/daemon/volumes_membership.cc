#include <fmt/format.h>

#include "ublkd/daemon/names.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;

namespace {

std::string verdict_name(replication::Verdict verdict) {
    switch (verdict) {
        case replication::Verdict::kAuthorized:
            return "authorized";
        case replication::Verdict::kAlreadyYours:
            return "already-yours";
        case replication::Verdict::kBarred:
            return "barred";
        case replication::Verdict::kDeclined:
            break;
    }
    return "declined";
}

api::MembershipView membership_view(const replication::Membership& record) {
    api::MembershipView view;
    view.volume_id = record.volume.to_string();
    view.primary = record.primary.to_string();
    view.number = record.number;
    view.loss_count = record.loss_count;
    view.data_may_be_lost = record.data_may_be_lost;
    for (const auto& member : record.members)
        view.members.push_back(
            {member.replica.to_string(), member.host.to_string(), member.pool.to_string()});
    for (const auto& attachment : record.attachments)
        view.attachments.push_back(attachment.to_string());
    return view;
}

/// The proposal with its ids read: whether they name what there is, the authority looks.
ApiResult<replication::Proposal> read_proposal(const api::ProposalRequest& request) {
    const auto malformed = [](const char* field, const std::string& example,
                              const std::string& given) {
        return refuse("InvalidParameterValue",
                      fmt::format("{} is a whole id such as {}; '{}' was given", field, example,
                                  api::shown(given)));
    };
    replication::Proposal proposal;
    const auto volume = VolumeId::parse(request.volume_id);
    const auto proposer = ReplicaId::parse(request.proposer);
    const auto primary = ReplicaId::parse(request.next.primary);
    if (!volume)
        return refuse("InvalidVolumeID.Malformed",
                      fmt::format("a proposal names the volume by its whole id; '{}' was given",
                                  api::shown(request.volume_id)));
    const std::string a_replica = ReplicaId(1).to_string();
    if (!proposer) return malformed("Proposer", a_replica, request.proposer);
    if (!primary) return malformed("Primary", a_replica, request.next.primary);
    proposal.proposer = *proposer;
    proposal.base_number = request.base_number;
    proposal.next.volume = *volume;
    proposal.next.number = request.next.number;
    proposal.next.loss_count = request.next.loss_count;
    proposal.next.data_may_be_lost = request.next.data_may_be_lost;
    proposal.next.primary = *primary;
    for (const auto& member : request.next.members) {
        const auto replica = ReplicaId::parse(member.replica_id);
        const auto host = HostId::parse(member.host_id);
        const auto pool = PoolId::parse(member.pool_id);
        if (!replica) return malformed("ReplicaId", a_replica, member.replica_id);
        if (!host) return malformed("HostId", HostId(1).to_string(), member.host_id);
        if (!pool) return malformed("PoolId", PoolId(1).to_string(), member.pool_id);
        proposal.next.members.push_back({*replica, *host, *pool});
    }
    for (const auto& text : request.next.attachments) {
        const auto attachment = AttachmentId::parse(text);
        if (!attachment) return malformed("AttachmentIds", AttachmentId(1).to_string(), text);
        proposal.next.attachments.push_back(*attachment);
    }
    return proposal;
}

}  // namespace

ApiResult<api::MembershipView> Volumes::membership(const std::string& volume) {
    // By its whole id also where there is no such volume (any more): the authority's records
    // outlive volumes.
    auto id = VolumeId::parse(volume);
    if (!id) {
        API_TRY_ASSIGN(const auto found, find_volume(core_.store, volume));
        id = found.id;
    }
    const auto record = core_.authority->current(*id);
    if (!record) return refuse(record.error(), "the authority could not be asked");
    if (!*record) {
        return refuse("InvalidVolume.NotFound", fmt::format("volume {} has no membership", volume));
    }
    return membership_view(**record);
}

/// A volume that runs here has a primary that proposes; a record that comes from elsewhere
/// meanwhile would count without its knowing. Held, the volume neither starts nor stops.
ApiResult<Volumes::AtRest> Volumes::keep_at_rest(VolumeId volume) {
    const auto record = core_.store->get<metadata::VolumeRecord>(volume);
    if (!record) return refuse(record.error(), "cannot look up the volume");
    if (!*record) return AtRest();  // the authority declines
    const std::string id = volume.to_string();
    AtRest at_rest{slot(volume), {}, {}};
    API_TRY_ASSIGN(at_rest.operation, begin_operation(at_rest.slot, id));
    at_rest.life = std::unique_lock(at_rest.slot->life, std::try_to_lock);
    if (!at_rest.life.owns_lock() || at_rest.slot->running)
        return refuse("IncorrectState",
                      fmt::format("volume {} runs on this host: its primary proposes its "
                                  "membership, nobody else",
                                  id));
    return at_rest;
}

ApiResult<api::ProposalAnswer> Volumes::propose(const api::ProposalRequest& request) {
    API_TRY_ASSIGN(const auto proposal, read_proposal(request));
    if (const auto valid = replication::validate(proposal.next); !valid)
        return refuse(valid.error(), "the proposed membership");
    API_TRY_ASSIGN(const auto at_rest, keep_at_rest(proposal.next.volume));
    const auto outcome = core_.authority->propose(proposal);
    if (!outcome) return refuse(outcome.error(), "the authority could not decide");
    api::ProposalAnswer answer;
    answer.verdict = verdict_name(outcome->verdict);
    if (outcome->current) answer.current = membership_view(*outcome->current);
    return answer;
}

}  // namespace ublkd::daemon
