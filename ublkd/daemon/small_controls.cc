#include "ublkd/daemon/small_controls.h"

#include <fmt/format.h>

#include <algorithm>

#include "ublkd/base/fault_injection.h"
#include "ublkd/daemon/names.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::Transaction;

// ---- instances

ApiResult<api::InstanceView> Instances::create_instance(const std::string& name,
                                                        const api::Tags& given) {
    api::Tags tags = given;
    if (!name.empty()) tags["Name"] = name;
    API_TRY(check_tags(tags));
    metadata::InstanceRecord record;
    record.id = InstanceId::random();
    record.host = core_.identity->host();
    record.created_ms = metadata::now_ms();
    const std::string id = record.id.to_string();
    const auto stored = core_.store->write([&](Transaction& tx) -> Result<void> {
        record.revision = 0;
        TRY(tx.put(record));
        for (const auto& [key, value] : tags) {
            if (key == "Name") {
                TRY(check_name_free(tx, id, value));
            }
            TRY(put_tag(tx, id, key, value));
        }
        return EventLog::add_in(tx, "instance.created", id, name);
    });
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another instance has the name '{}'", tags["Name"]));
    if (!stored) return refuse(stored.error(), "cannot store the instance");
    core_.events->announce();
    return view_of(record);
}

ApiResult<api::InstanceView> Instances::view_of(const metadata::InstanceRecord& record) {
    api::InstanceView view;
    view.id = record.id.to_string();
    view.host_id = record.host.to_string();
    view.is_host = record.is_host;
    view.create_time_ms = record.created_ms;
    const auto tags =
        core_.store->read_for<api::Tags>([&](Transaction& tx) { return tags_of(tx, view.id); });
    if (!tags) return refuse(tags.error(), "cannot read the instance " + view.id);
    view.tags = *tags;
    if (const auto name = view.tags.find("Name"); name != view.tags.end()) view.name = name->second;
    API_TRY_ASSIGN(const auto attachments, volumes_->attachments());
    for (const auto& attachment : attachments) {
        if (attachment.instance_id == view.id) view.attachments.push_back(attachment);
    }
    return view;
}

ApiResult<std::vector<api::InstanceView>> Instances::instances() {
    const auto records = core_.store->list<metadata::InstanceRecord>();
    if (!records) return refuse(records.error(), "cannot list the instances");
    std::vector<api::InstanceView> views;
    for (const auto& record : *records) {
        API_TRY_ASSIGN(auto view, view_of(record));
        views.push_back(std::move(view));
    }
    std::ranges::sort(views, {}, [](const api::InstanceView& view) {
        return std::pair(view.create_time_ms, view.id);
    });
    return views;
}

ApiResult<api::InstanceView> Instances::instance(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_instance(core_.store, name));
    return view_of(record);
}

ApiResult<void> Instances::delete_instance(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_instance(core_.store, name));
    const std::string id = record.id.to_string();
    if (record.is_host)
        return refuse("IncorrectState",
                      fmt::format("{} is this host itself, and stays while the host does", id));
    // All are looked at before the first is detached, and detached before the first is deleted.
    API_TRY(volumes_->check_detach_all(record.id));
    const auto attachments =
        core_.store->list<metadata::AttachmentRecord>(metadata::where("instance", record.id));
    if (!attachments) return refuse(attachments.error(), "cannot look up the attachments");
    for (const auto& attachment : *attachments) {
        API_TRY(volumes_->detach_terminating(attachment.volume, record.id));
        (void)faults::hit("daemon.instance_delete.after_detach");
    }
    const auto going =
        core_.store->list<metadata::VolumeRecord>(metadata::where("delete_with", record.id));
    if (!going) return refuse(going.error(), "cannot look up the volumes");
    for (const auto& volume : *going) {
        API_TRY(volumes_->delete_volume(volume.id.to_string(), false));
        (void)faults::hit("daemon.instance_delete.after_delete");
    }
    const auto erased = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto stored, tx.get<metadata::InstanceRecord>(record.id));
        if (!stored) return {};
        TRY(erase_tags(tx, id));
        TRY(tx.erase(*stored));
        return EventLog::add_in(tx, "instance.deleted", id, "");
    });
    if (!erased && erased.error().code == Errc::kBusy)
        return refuse("InstanceInUse",
                      fmt::format("a volume was attached to {} meanwhile: detach it first", id));
    if (!erased) return refuse(erased.error(), "cannot delete the instance");
    core_.events->announce();
    return {};
}

// ---- permissions

ApiResult<std::vector<api::PermissionView>> Permissions::permissions() {
    const auto records = core_.permissions->list();
    if (!records) return refuse(records.error(), "cannot list the permissions");
    std::vector<api::PermissionView> views;
    for (const auto& record : *records) {
        api::PermissionView view;
        view.resource_id = record.resource;
        view.state = metadata::name_of(record.state);
        view.generation = record.generation;
        view.time_ms = record.changed_ms;
        if (record.host) view.host_id = record.host.to_string();
        if (record.incarnation) view.incarnation = record.incarnation.to_string();
        const auto replica = core_.store->get<metadata::ReplicaRecord>(record.incarnation);
        if (replica && *replica) view.pool_id = (*replica)->pool.to_string();
        views.push_back(std::move(view));
    }
    return views;
}

ApiResult<api::PermissionAnswer> Permissions::request_permission(
    const api::PermissionRequest& request) {
    const auto host = HostId::parse(request.host_id);
    const auto incarnation = ReplicaId::parse(request.incarnation);
    if (!host)
        return refuse("InvalidParameterValue",
                      fmt::format("HostId is a host's whole id; '{}' was given",
                                  api::shown(request.host_id)));
    if (!incarnation)
        return refuse("InvalidParameterValue",
                      fmt::format("Incarnation is a replica's whole id; '{}' was given",
                                  api::shown(request.incarnation)));
    API_TRY(find_host(core_.store, host->to_string()));
    const auto result = core_.permissions->request(request.resource_id, {*host, *incarnation});
    if (!result)
        return refuse(result.error(),
                      fmt::format("permission for '{}'", api::shown(request.resource_id)));
    api::PermissionAnswer answer;
    answer.granted = result->answer == metadata::PermissionAnswer::kGranted;
    answer.reason = metadata::name_of(result->answer);
    answer.generation = result->generation;
    if (result->holder.host) answer.owner_host_id = result->holder.host.to_string();
    if (result->holder.incarnation)
        answer.owner_incarnation = result->holder.incarnation.to_string();
    return answer;
}

ApiResult<void> Permissions::revoke_permission(const std::string& resource) {
    const auto record = core_.store->get<metadata::PermissionRecord>(resource);
    if (!record) return refuse(record.error(), "cannot look up the permission");
    if (!*record || (*record)->state != metadata::PermissionState::kGranted) {
        return refuse("InvalidPermission.NotFound",
                      fmt::format("nobody holds a permission for '{}': 'ebs-cli permission list' "
                                  "shows who holds what",
                                  api::shown(resource)));
    }
    // Its copy would be for nothing: the authority never lets a past holder join.
    const auto replica = core_.store->get<metadata::ReplicaRecord>((*record)->incarnation);
    if (!replica) return refuse(replica.error(), "cannot look up the replica");
    if (*replica && (*replica)->state == metadata::ReplicaState::kPreparing) {
        return refuse("IncorrectState",
                      fmt::format("{} is being prepared for its volume: its permission can be "
                                  "revoked when it is no member and is not copied to",
                                  (*record)->incarnation.to_string()));
    }
    const auto revoked =
        core_.permissions->revoke(resource, {(*record)->host, (*record)->incarnation});
    if (!revoked && revoked.error().code == Errc::kBusy) {
        return refuse(
            "IncorrectState",
            fmt::format("{} is a member of its volume: it can be revoked when it has left",
                        (*record)->incarnation.to_string()));
    }
    if (!revoked) return refuse(revoked.error(), fmt::format("cannot revoke '{}'", resource));
    core_.events->add("permission.revoked", resource, (*record)->incarnation.to_string());
    return {};
}

// ---- tags

ApiResult<std::vector<api::TagView>> TagControl::tags(const std::string& resource) {
    metadata::Query query;
    if (!resource.empty()) {
        API_TRY_ASSIGN(const auto id, find_taggable(core_.store, resource));
        query = metadata::where("resource", id);
    }
    const auto records = core_.store->list<metadata::TagRecord>(query);
    if (!records) return refuse(records.error(), "cannot list the tags");
    std::vector<api::TagView> views;
    for (const auto& record : *records)
        views.push_back({record.resource, record.key, record.value});
    return views;
}

ApiResult<void> TagControl::add_tags(const std::string& resource, const api::Tags& tags) {
    API_TRY_ASSIGN(const auto id, find_taggable(core_.store, resource));
    API_TRY(check_tags(tags));
    std::size_t count = 0;
    const auto stored = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto all, tags_of(tx, id));
        for (const auto& [key, value] : tags) {
            if (key == "Name") {
                TRY(check_name_free(tx, id, value));
            }
            TRY(put_tag(tx, id, key, value));
            all[key] = value;
        }
        count = all.size();
        if (count > 50) return fail(Errc::kExhausted, "tags");
        return {};
    });
    if (count > 50)
        return refuse("InvalidParameterValue",
                      fmt::format("a resource has at most 50 tags; this would make {}", count));
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another resource has the name '{}'", tags.at("Name")));
    if (!stored) return refuse(stored.error(), "cannot store the tags");
    if (const auto name = tags.find("Name"); name != tags.end())
        core_.engine->rename_export(id, name->second);
    return {};
}

ApiResult<void> TagControl::remove_tags(const std::string& resource,
                                        const std::vector<std::string>& keys) {
    API_TRY_ASSIGN(const auto id, find_taggable(core_.store, resource));
    const auto erased = core_.store->write([&](Transaction& tx) -> Result<void> {
        for (const auto& key : keys) {
            TRY_ASSIGN(const auto record, tx.get<metadata::TagRecord>(id, key));
            if (record) {
                TRY(tx.erase(*record));
            }
        }
        return {};
    });
    if (!erased) return refuse(erased.error(), "cannot remove the tags");
    if (std::ranges::find(keys, "Name") != keys.end()) core_.engine->rename_export(id, "");
    return {};
}

}  // namespace ublkd::daemon
