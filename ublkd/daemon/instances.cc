#include "ublkd/daemon/instances.h"

#include <fmt/format.h>

#include <algorithm>

#include "ublkd/base/fault_injection.h"
#include "ublkd/daemon/names.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::Transaction;

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
    api::sort_by_age(views);
    return views;
}

ApiResult<api::InstanceView> Instances::instance(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_instance(core_.store, name, core_.identity->host()));
    return view_of(record);
}

ApiResult<void> Instances::delete_instance(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_instance(core_.store, name, core_.identity->host()));
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

}  // namespace ublkd::daemon
