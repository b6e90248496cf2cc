#include <fmt/format.h>

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

struct MemberLook {
    std::string trouble;  // why it cannot be used now; "": it can
    std::uint64_t allocated_bytes = 0;
};

MemberLook look_at(Pools* pools, const replication::Member& member) {
    const auto found = pools->look(member.pool, member.replica);
    MemberLook look;
    look.trouble = pools->trouble_of(member.pool);
    if (found) look.allocated_bytes = found->allocated_bytes;
    if (look.trouble.empty() && !found) look.trouble = to_string(found.error());
    if (look.trouble.empty() && !found->is_there) look.trouble = "its folder is not in the pool";
    return look;
}

/// Whether a guest was told of the attachment and nobody serves it.
bool lacks_front(const AttachmentRecord& record, const std::optional<Front>& front) {
    if (record.state != metadata::AttachmentState::kAttached &&
        record.state != metadata::AttachmentState::kBusy)
        return false;
    return !front || front->stopped_by_others;
}

std::string role_of(const volume::MemberStatus& member, ReplicaId returning) {
    if (member.is_primary) return "primary";
    if (member.is_member) return "secondary";
    if (member.is_joining && member.member.replica == returning) return "returning";
    return member.is_joining ? "joining" : "lost";
}

}  // namespace

api::AttachmentView Volumes::attachment_view(const AttachmentRecord& record) {
    api::AttachmentView view;
    view.id = record.id.to_string();
    view.volume_id = record.volume.to_string();
    view.instance_id = record.instance.to_string();
    HostId host = core_.identity->host();
    view.host_name = core_.configuration->host_name;
    if (is_clustered()) {
        const auto instance = core_.store->get<metadata::InstanceRecord>(record.instance);
        if (instance && *instance && (*instance)->host != host) {
            host = (*instance)->host;
            view.host_name = name_of_host(host);
        }
    }
    view.host_id = host.to_string();
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
    } else if (host == core_.identity->host()) {
        view.device = fmt::format("nbd+unix:///{}?socket={}", view.volume_id,
                                  core_.configuration->nbd_socket);
    }
    if (host != core_.identity->host()) return view;  // that host knows more
    const auto ref = slot(record.volume);
    const std::lock_guard state(ref->state);
    view.message = ref->trouble;
    if (record.state == metadata::AttachmentState::kAttached && !ref->front)
        view.state = metadata::name_of(metadata::AttachmentState::kAttaching);
    if (record.state == metadata::AttachmentState::kAttached && ref->front &&
        ref->front->stopped_by_others) {
        view.state = metadata::name_of(metadata::AttachmentState::kBusy);
    }
    if (view.message.empty() && lacks_front(record, ref->front))
        view.message = "it is being brought back";
    return view;
}

/// The volume's members may be in sync, but its guest waits. Not one that is attached for the first
/// time: nobody knows of its device yet.
void Volumes::add_health_of_attachment(const AttachmentRecord& record,
                                       const api::AttachmentView& attachment,
                                       api::VolumeView& view) {
    if (attachment.host_id != core_.identity->host().to_string()) return;
    const bool lacking = [&] {
        const auto ref = slot(record.volume);
        const std::lock_guard state(ref->state);
        return lacks_front(record, ref->front);
    }();
    if (!lacking || view.health.state == "blocked") return;
    view.health.state = "blocked";
    view.health.blocked_by = "attachment";
    view.health.reason = attachment.message;
}

std::string Volumes::trouble_of(const replication::Member& member) {
    return look_at(core_.pools, member).trouble;
}

/// Of a volume that nobody uses: from its record, and from what is there of its members.
void Volumes::add_health_at_rest(const replication::Membership& record, api::VolumeView& view) {
    std::vector<std::string> troubles;
    for (const auto& member : record.members) {
        const MemberLook look = look_at(core_.pools, member);
        if (look.trouble.empty()) {
            ++view.health.in_sync;
        } else {
            troubles.push_back(fmt::format("{}: {}", member.replica.to_string(), look.trouble));
        }
        view.replicas.push_back({member.replica.to_string(), member.pool.to_string(),
                                 member.host.to_string(), core_.pools->domain_of_pool(member.pool),
                                 member.replica == record.primary ? "primary" : "secondary",
                                 look.trouble});
        view.used_bytes = std::max(view.used_bytes, look.allocated_bytes);
    }
    view.health.reason = fmt::format("{}", fmt::join(troubles, "; "));
    view.health.state = view.health.in_sync < view.health.wanted ? "degraded" : "ok";
    if (view.health.in_sync == 0) {
        view.health.state = "blocked";
        view.health.blocked_by = "disk";
    }
}

/// Asks no disk where one hangs: this answers all the same.
void Volumes::add_health_running(const volume::VolumeStatus& status, ReplicaId returning,
                                 api::VolumeView& view) {
    view.number = status.number;
    view.loss_count = status.loss_count;
    view.data_may_be_lost = status.data_may_be_lost;
    for (const auto& member : status.replicas) {
        view.health.in_sync += member.is_member ? 1 : 0;
        view.replicas.push_back(
            {member.member.replica.to_string(), member.member.pool.to_string(),
             member.member.host.to_string(), core_.pools->domain_of_pool(member.member.pool),
             role_of(member, returning), member.failure ? to_string(*member.failure) : ""});
        if (view.replicas.back().role == "returning") {
            view.replicas.back().differing_bytes = status.sync_total_bytes;
            view.replicas.back().copied_bytes = status.sync_done_bytes;
        }
        if (!member.is_member || status.blocked_by == "disk") continue;
        if (const auto look = core_.pools->look(member.member.pool, member.member.replica))
            view.used_bytes = std::max(view.used_bytes, look->allocated_bytes);
    }
    view.health.blocked_by = status.blocked_by;
    view.health.reason = status.blocked_why;
    view.health.sync_done_bytes = status.sync_done_bytes;
    view.health.sync_total_bytes = status.sync_total_bytes;
    view.health.verified_bytes = status.verified_bytes;
    view.health.state = view.health.in_sync < view.health.wanted ? "degraded" : "ok";
    if (status.state == volume::VolumeState::kSyncing) view.health.state = "syncing";
    if (status.state == volume::VolumeState::kBlocked) view.health.state = "blocked";
}

void Volumes::add_health(const VolumeRecord& record, api::VolumeView& view) {
    view.health.wanted = record.replica_count;
    ReplicaId returning;
    const auto running = [&] {
        const auto ref = slot(record.id);
        const std::lock_guard state(ref->state);
        if (ref->returning) returning = ref->joining;
        return ref->running;
    }();
    const auto membership = core_.authority->current(record.id);
    const auto status = running
                            ? running->status()
                            : Result<volume::VolumeStatus>(fail(Errc::kClosed, "it does not run"));
    if (running && running->durability() != record.durability)
        view.durability_in_force = metadata::name_of(running->durability());
    // Where the primary is elsewhere the record says more than what was heard here last.
    const bool elsewhere = membership && *membership && !has_primary_here(**membership);
    if (status && !elsewhere) {
        add_health_running(*status, returning, view);
        if (membership && *membership) add_lost(record, **membership, view);
        return;
    }
    if (!membership) {
        view.health.reason = waits_after_restore(record.id);
        if (!view.health.reason.empty()) view.health.state = "blocked";
        if (!view.health.reason.empty()) view.health.blocked_by = "R16";
    }
    if (!membership || !*membership) return;
    view.number = (*membership)->number;
    view.loss_count = (*membership)->loss_count;
    view.data_may_be_lost = (*membership)->data_may_be_lost;
    add_health_at_rest(**membership, view);
    add_lost(record, **membership, view);
    if (status && status->state == volume::VolumeState::kBlocked) {
        view.health.state = "blocked";
        view.health.blocked_by = status->blocked_by;
        view.health.reason = status->blocked_why;
    }
    if (status || status.error().code != Errc::kTimedOut) return;
    view.health.state = "blocked";
    view.health.blocked_by = "reactor";
    view.health.reason = kReactorTrouble;
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
    view.multi_attach = record.multi_attach;
    add_health(record, view);
    for (auto& replica : view.replicas) {
        const auto pool = PoolId::parse(replica.pool_id);
        replica.leaving = pool && core_.pools->is_draining(*pool);
    }
    for (const auto& attachment : attachments) {
        view.attachments.push_back(attachment_view(attachment));
        add_health_of_attachment(attachment, view.attachments.back(), view);
    }
    return view;
}

ApiResult<std::vector<api::VolumeView>> Volumes::volumes() {
    const auto records = core_.store->list<VolumeRecord>();
    if (!records) return refuse(records.error(), "cannot list the volumes");
    core_.engine->look_at_reactors();
    std::vector<api::VolumeView> views;
    for (const auto& record : *records) {
        API_TRY_ASSIGN(auto view, view_of(record));
        views.push_back(std::move(view));
    }
    api::sort_by_age(views);
    return views;
}

ApiResult<api::VolumeView> Volumes::volume(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_volume(core_.store, name));
    core_.pools->learn(core_.identity->host());  // whether its pools are drained now
    API_TRY_ASSIGN(auto view, view_of(record));
    add_drains(record, view);
    return view;
}

ApiResult<std::vector<api::AttachmentView>> Volumes::attachments() {
    const auto records = core_.store->list<AttachmentRecord>();
    if (!records) return refuse(records.error(), "cannot list the attachments");
    std::vector<api::AttachmentView> views;
    for (const auto& record : *records) views.push_back(attachment_view(record));
    return views;
}

}  // namespace ublkd::daemon
