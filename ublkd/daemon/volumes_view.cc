#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "ublkd/daemon/names.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::AttachmentRecord;
using metadata::Transaction;
using metadata::VolumeRecord;

namespace {

/// What a replica takes on its disk.
std::uint64_t allocated_bytes(const std::string& folder) {
    struct stat status{};
    if (stat((folder + "/data").c_str(), &status) != 0) return 0;
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

bool is_there(const std::optional<volume::ReplicaPlace>& place) {
    struct stat status{};
    return place && stat((place->folder + "/superblock").c_str(), &status) == 0;
}

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

std::string role_of(const volume::MemberStatus& member) {
    if (member.is_primary) return "primary";
    if (member.is_member) return "secondary";
    return member.is_joining ? "joining" : "lost";
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

}  // namespace

api::AttachmentView Volumes::attachment_view(const AttachmentRecord& record) {
    api::AttachmentView view;
    view.id = record.id.to_string();
    view.volume_id = record.volume.to_string();
    view.instance_id = record.instance.to_string();
    view.host_id = core_.identity->host().to_string();
    view.host_name = core_.configuration->host_name;
    view.state = metadata::name_of(record.state);
    view.frontend = metadata::name_of(record.frontend);
    view.label = record.device.value_or("");
    view.attach_time_ms = record.created_ms;
    view.boot = record.boot;
    view.delete_on_termination = record.delete_on_termination;
    view.read_only = record.read_only;
    if (record.frontend == metadata::Frontend::kUblk) {
        if (record.ublk_number) view.device = fmt::format("/dev/ublkb{}", *record.ublk_number);
        view.link = "/dev/ebs/" + view.volume_id;
    } else {
        view.device = fmt::format("nbd+unix:///{}?socket={}", view.volume_id,
                                  core_.configuration->nbd_socket);
    }
    const auto ref = slot(record.volume);
    const std::lock_guard state(ref->state);
    view.message = ref->trouble;
    if (record.state == metadata::AttachmentState::kAttached && !ref->front) {
        view.state = metadata::name_of(metadata::AttachmentState::kAttaching);
        if (view.message.empty()) view.message = "it is being brought back";
    }
    if (record.state == metadata::AttachmentState::kAttached && ref->front &&
        ref->front->stopped_by_others) {
        view.state = metadata::name_of(metadata::AttachmentState::kBusy);
    }
    return view;
}

std::string Volumes::trouble_of(const replication::Member& member) {
    std::string trouble = core_.pools->trouble_of(member.pool);
    if (trouble.empty() && !is_there(core_.pools->place(member.pool, member.replica)))
        trouble = "its folder is not in the pool";
    return trouble;
}

/// Of a volume that nobody uses: from its record, and from what is there of its members.
void Volumes::add_health_at_rest(const replication::Membership& record, api::VolumeView& view) {
    std::vector<std::string> troubles;
    for (const auto& member : record.members) {
        const auto place = core_.pools->place(member.pool, member.replica);
        const std::string trouble = trouble_of(member);
        if (trouble.empty()) {
            ++view.health.in_sync;
        } else {
            troubles.push_back(fmt::format("{}: {}", member.replica.to_string(), trouble));
        }
        view.replicas.push_back({member.replica.to_string(), member.pool.to_string(),
                                 member.host.to_string(), core_.pools->domain_of_pool(member.pool),
                                 member.replica == record.primary ? "primary" : "secondary",
                                 trouble});
        if (place) view.used_bytes = std::max(view.used_bytes, allocated_bytes(place->folder));
    }
    view.health.reason = fmt::format("{}", fmt::join(troubles, "; "));
    view.health.state = view.health.in_sync < view.health.wanted ? "degraded" : "ok";
    if (view.health.in_sync == 0) {
        view.health.state = "blocked";
        view.health.blocked_by = "disk";
    }
}

/// Asks no disk where one hangs: this answers all the same.
void Volumes::add_health_running(const volume::VolumeStatus& status, api::VolumeView& view) {
    view.number = status.number;
    view.loss_count = status.loss_count;
    view.data_may_be_lost = status.data_may_be_lost;
    for (const auto& member : status.replicas) {
        view.health.in_sync += member.is_member ? 1 : 0;
        view.replicas.push_back({member.member.replica.to_string(), member.member.pool.to_string(),
                                 member.member.host.to_string(),
                                 core_.pools->domain_of_pool(member.member.pool), role_of(member),
                                 member.failure ? to_string(*member.failure) : ""});
        if (!member.is_member || status.blocked_by == "disk") continue;
        if (const auto place = core_.pools->place(member.member.pool, member.member.replica))
            view.used_bytes = std::max(view.used_bytes, allocated_bytes(place->folder));
    }
    view.health.blocked_by = status.blocked_by;
    view.health.reason = status.blocked_why;
    view.health.sync_done_bytes = status.sync_done_bytes;
    view.health.sync_total_bytes = status.sync_total_bytes;
    view.health.state = view.health.in_sync < view.health.wanted ? "degraded" : "ok";
    if (status.state == volume::VolumeState::kSyncing) view.health.state = "syncing";
    if (status.state == volume::VolumeState::kBlocked) view.health.state = "blocked";
}

void Volumes::add_health(const VolumeRecord& record, api::VolumeView& view) {
    view.health.wanted = record.replica_count;
    const auto running = [&] {
        const auto ref = slot(record.id);
        const std::lock_guard state(ref->state);
        return ref->running;
    }();
    if (const auto status = running ? running->status() : std::nullopt) {
        if (running->durability() != record.durability)
            view.durability_in_force = metadata::name_of(running->durability());
        add_health_running(*status, view);
        return;
    }
    const auto stored = core_.authority->current(record.id);
    if (!stored || !*stored) return;
    view.number = (*stored)->number;
    view.loss_count = (*stored)->loss_count;
    view.data_may_be_lost = (*stored)->data_may_be_lost;
    add_health_at_rest(**stored, view);
}

ApiResult<api::VolumeView> Volumes::view_of(const VolumeRecord& record) {
    api::VolumeView view;
    view.id = record.id.to_string();
    std::vector<AttachmentRecord> attachments;
    const auto read = core_.store->read([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(view.tags, tags_of(tx, view.id));
        TRY_ASSIGN(attachments, tx.list<AttachmentRecord>(metadata::where("volume", record.id)));
        return {};
    });
    if (!read) return refuse(read.error(), "cannot read the volume " + view.id);
    if (const auto name = view.tags.find("Name"); name != view.tags.end()) view.name = name->second;
    view.state = metadata::name_of(record.state);
    view.size_bytes = record.size_bytes;
    view.block_bytes = record.block_bytes;
    view.create_time_ms = record.created_ms;
    view.durability = metadata::name_of(record.durability);
    view.on_full = metadata::name_of(record.on_full);
    for (const auto& attachment : attachments)
        view.attachments.push_back(attachment_view(attachment));
    add_health(record, view);
    return view;
}

ApiResult<std::vector<api::VolumeView>> Volumes::volumes() {
    const auto records = core_.store->list<VolumeRecord>();
    if (!records) return refuse(records.error(), "cannot list the volumes");
    std::vector<api::VolumeView> views;
    for (const auto& record : *records) {
        API_TRY_ASSIGN(auto view, view_of(record));
        views.push_back(std::move(view));
    }
    std::ranges::sort(views, {}, [](const api::VolumeView& view) {
        return std::pair(view.create_time_ms, view.id);
    });
    return views;
}

ApiResult<api::VolumeView> Volumes::volume(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_volume(core_.store, name));
    return view_of(record);
}

ApiResult<std::vector<api::AttachmentView>> Volumes::attachments() {
    const auto records = core_.store->list<AttachmentRecord>();
    if (!records) return refuse(records.error(), "cannot list the attachments");
    std::vector<api::AttachmentView> views;
    for (const auto& record : *records) views.push_back(attachment_view(record));
    return views;
}

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

ApiResult<api::ProposalAnswer> Volumes::propose(const api::ProposalRequest& request) {
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
    if (const auto valid = replication::validate(proposal.next); !valid)
        return refuse(valid.error(), "the proposed membership");
    const auto outcome = core_.authority->propose(proposal);
    if (!outcome) return refuse(outcome.error(), "the authority could not decide");
    api::ProposalAnswer answer;
    answer.verdict = verdict_name(outcome->verdict);
    if (outcome->current) answer.current = membership_view(*outcome->current);
    return answer;
}

}  // namespace ublkd::daemon
