#include <fmt/format.h>

#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/volumes.h"
#include "ublkd/front/ublk/device_users.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::AttachRequest;
using api::refuse;
using front::ublk::UblkDevice;
using metadata::AttachmentRecord;
using metadata::AttachmentState;
using metadata::Frontend;
using metadata::Transaction;
using metadata::VolumeRecord;
using metadata::VolumeState;

namespace {

static_assert(api::kMaxTags == front::ublk::kMaxTags);

using UblkResult = Result<std::unique_ptr<UblkDevice>>;

bool is_label(std::string_view label) {
    if (!label.starts_with("/dev/") || label.size() > 32 || label.size() == 5) return false;
    return std::ranges::all_of(
        label.substr(5), [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); });
}

std::string used_by(const AttachmentRecord& attachment, const std::vector<std::string>& users) {
    return fmt::format("/dev/ublkb{} is in use: {}", attachment.ublk_number.value_or(0),
                       fmt::join(users, ", "));
}

std::unexpected<api::ApiError> in_use(const std::string& use) {
    return refuse("DeviceInUse", use + "; end that, or --force");
}

/// Takes the device of a former daemon over, else makes one.
io::Task<UblkResult> recover_or_attach(Lane* lane, const front::ublk::UblkEnvironment* environment,
                                       block::BlockDevice* device,
                                       const front::ublk::UblkOptions* options, bool recovering) {
    if (recovering && options->device_id != front::ublk::uapi::kAnyDevice) {
        auto recovery = UblkDevice::recover(&lane->reactor(), lane->front_buffers.get(),
                                            environment, device, options);
        UblkResult recovered = co_await recovery;
        if (recovered) co_return std::move(recovered);
        const Errc code = recovered.error().code;
        if (code != Errc::kNotFound && code != Errc::kClosed && code != Errc::kConflict)
            co_return std::move(recovered);
    }
    auto attach = UblkDevice::attach(&lane->reactor(), lane->front_buffers.get(), environment,
                                     device, options);
    co_return co_await attach;
}

}  // namespace

/// Of one that is attached already; who holds it is told.
ApiResult<void> Volumes::check_attach_another(const VolumeRecord& volume, const std::string& name,
                                              const metadata::InstanceRecord& instance) {
    const auto found = core_.store->list<AttachmentRecord>(metadata::where("volume", volume.id));
    if (!found) return refuse(found.error(), "cannot look up the attachments of " + name);
    std::vector<std::string> holders;
    bool of_host = false;
    for (const auto& attachment : *found) {
        const auto holder = core_.store->get<metadata::InstanceRecord>(attachment.instance);
        const HostId host = holder && *holder ? (*holder)->host : HostId();
        of_host |= host == instance.host;
        const std::string host_name = core_.hosts->name_of(host);
        holders.push_back(attachment.instance.to_string() +
                          (host_name.empty() ? "" : " on " + host_name));
    }
    if (volume.multi_attach && found->size() >= api::kMaxAttachments)
        return refuse("AttachmentLimitExceeded",
                      fmt::format("volume {} is attached to {} instances, which is the most: {}",
                                  name, found->size(), fmt::join(holders, ", ")));
    if (!volume.multi_attach || of_host)
        return refuse(
            "VolumeInUse",
            fmt::format("volume {} is attached already, to {}{}", name, fmt::join(holders, ", "),
                        volume.multi_attach ? "; of a host it can be attached to one" : ""));
    return {};
}

ApiResult<AttachmentRecord> Volumes::check_attach(const AttachRequest& request,
                                                  VolumeRecord& volume) {
    API_TRY_ASSIGN(volume, find_volume(core_.store, request.volume));
    API_TRY_ASSIGN(const auto instance,
                   find_instance(core_.store, request.instance, core_.identity->host()));
    API_TRY(check_here(instance, "attach " + request.volume));
    AttachmentRecord record;
    record.id = AttachmentId::random();
    record.volume = volume.id;
    record.instance = instance.id;
    record.queues = request.queues;
    record.depth = request.depth;
    record.read_only = request.read_only;
    record.boot = request.boot;
    record.delete_on_termination = request.delete_on_termination;
    record.created_ms = metadata::now_ms();
    if (volume.state == VolumeState::kInUse) {
        API_TRY(check_attach_another(volume, request.volume, instance));
    } else if (volume.state != VolumeState::kAvailable) {
        return refuse("IncorrectState",
                      fmt::format("volume {} is {}: it can be attached when it is available",
                                  request.volume, metadata::name_of(volume.state)));
    }
    if (!request.label.empty() && !is_label(request.label)) {
        return refuse(
            "InvalidParameterValue",
            fmt::format("Device is a label such as /dev/sdf (small letters and digits, at most 32 "
                        "bytes); '{}' was given",
                        api::shown(request.label)));
    }
    if (!request.label.empty()) record.device = request.label;
    if (request.frontend == "ublk" && core_.engine->ublk() == nullptr) {
        return refuse("UnsupportedOperation",
                      fmt::format("this daemon has no ublk ({}): 'ebs-cli doctor' says what to do; "
                                  "--frontend nbd works without",
                                  to_string(core_.engine->no_ublk_reason())));
    }
    const bool ublk = request.frontend == "ublk" ||
                      (request.frontend == "auto" && core_.engine->ublk() != nullptr);
    record.frontend = ublk ? Frontend::kUblk : Frontend::kNbd;
    API_TRY(check_answers(volume.id, !ublk, "cannot attach " + request.volume));
    return record;
}

ApiResult<api::PlanView> Volumes::plan_attach(const AttachRequest& request) {
    VolumeRecord volume;
    API_TRY_ASSIGN(const auto record, check_attach(request, volume));
    return api::PlanView{
        {fmt::format("attach {} to {} by {}", volume.id.to_string(), record.instance.to_string(),
                     metadata::name_of(record.frontend))}};
}

/// The intent: attachment attaching, volume in-use.
ApiResult<void> Volumes::store_attaching(const VolumeRecord& volume, AttachmentRecord& attachment) {
    bool taken = false;
    std::optional<VolumeId> boots;
    const auto stored = core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto record, tx.get<VolumeRecord>(volume.id));
        const bool another = record && record->state == VolumeState::kInUse && record->multi_attach;
        if (!record || (record->state != VolumeState::kAvailable && !another))
            return fail(Errc::kConflict, "the volume's state");
        TRY_ASSIGN(const auto of_volume,
                   tx.list<AttachmentRecord>(metadata::where("volume", volume.id)));
        if (of_volume.size() >= api::kMaxAttachments)
            return fail(Errc::kConflict, "the volume's attachments");
        TRY_ASSIGN(const auto others,
                   tx.list<AttachmentRecord>(metadata::where("instance", attachment.instance)));
        for (const auto& other : others) {
            if (!attachment.boot || !other.boot) continue;
            boots = other.volume;
            return fail(Errc::kExists, "a boot volume");
        }
        record->state = VolumeState::kInUse;
        record->delete_with = InstanceId();
        TRY(tx.put(*record));
        attachment.revision = 0;
        const auto put = tx.put(attachment);
        taken = !put && put.error().code == Errc::kExists;
        return put;
    });
    if (stored) return {};
    if (boots)
        return refuse("InvalidParameterValue",
                      fmt::format("Boot: {} has a boot volume already, {}",
                                  attachment.instance.to_string(), boots->to_string()));
    if (taken)
        return refuse("InvalidParameterValue",
                      fmt::format("Device {} is already in use in {}",
                                  attachment.device.value_or(""), attachment.instance.to_string()));
    return refuse(stored.error(), "cannot store the attachment");
}

Result<void> Volumes::set_state(AttachmentRecord& attachment, AttachmentState state) {
    attachment.state = state;
    attachment.terminating &= state == AttachmentState::kDetaching;
    return core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto stored, tx.get<AttachmentRecord>(attachment.id));
        if (!stored) return fail(Errc::kNotFound, "the attachment");
        attachment.revision = stored->revision;
        return tx.put(attachment);
    });
}

Result<void> Volumes::erase_attachment(const AttachmentRecord& attachment) {
    return core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto stored, tx.get<AttachmentRecord>(attachment.id));
        if (stored) {
            TRY(tx.erase(*stored));
        }
        TRY_ASSIGN(auto volume, tx.get<VolumeRecord>(attachment.volume));
        if (!volume || volume->state != VolumeState::kInUse) return {};
        TRY_ASSIGN(const auto others,
                   tx.list<AttachmentRecord>(metadata::where("volume", attachment.volume)));
        if (!others.empty()) return {};
        volume->state = VolumeState::kAvailable;
        if (stored && stored->terminating && stored->delete_on_termination)
            volume->delete_with = stored->instance;
        return tx.put(*volume);
    });
}

Result<void> Volumes::start_ublk(const SlotRef& slot, RunningVolume& running,
                                 block::BlockDevice* device, AttachmentRecord& attachment,
                                 bool recovering) {
    front::ublk::UblkOptions options;
    options.volume = attachment.volume;
    if (!faults::rule_off("rule.device_names_kept"))
        options.device_id = attachment.ublk_number.value_or(front::ublk::uapi::kAnyDevice);
    options.queues = static_cast<std::uint16_t>(attachment.queues);
    options.depth = static_cast<std::uint16_t>(attachment.depth);
    if (attachment.device)
        options.label = attachment.instance.to_string() + "/" + attachment.device->substr(5);
    const auto* environment = core_.engine->ublk();
    if (environment == nullptr) return fail(core_.engine->no_ublk_reason());
    Lane& lane = running.lane();
    auto made = io::run_on(lane.reactor(), [&] {
        return recover_or_attach(&lane, environment, device, &options, recovering);
    });
    if (!made) return fail(made.error());
    attachment.ublk_number = (*made)->device_id();
    const std::lock_guard state(slot->state);
    slot->front->ublk = std::move(*made);
    return {};
}

/// What was attached before stays so although this cannot be stored now (a full state folder stops
/// no I/O).
Result<void> Volumes::store_attached(AttachmentRecord& attachment, bool recovering) {
    const auto stored = set_state(attachment, AttachmentState::kAttached);
    if (stored || !recovering) return stored;
    log::warn("volume {}: its attachment could not be stored: {}", attachment.volume.to_string(),
              to_string(stored.error()));
    return {};
}

Result<void> Volumes::bring_up(const SlotRef& slot, const VolumeRecord& volume,
                               AttachmentRecord& attachment, bool recovering) {
    TRY_ASSIGN(const auto running, acquire(slot, volume));
    if (is_clustered()) {
        auto admitted = await_session(slot, volume, attachment);
        if (admitted) admitted = running->set_attachment(attachment.id);
        if (!admitted) {
            (void)release(slot);
            return admitted;
        }
    }
    block::BlockDevice* device = &running->device();
    {
        const std::lock_guard state(slot->state);
        CHECK(!slot->front, "who attaches has looked whether it is attached");
        slot->front.emplace();
        slot->front->attachment = attachment;
        if (attachment.read_only) {
            slot->front->read_only = std::make_unique<ReadOnlyDevice>(device);
            device = slot->front->read_only.get();
        }
    }
    Result<void> up;
    if (attachment.frontend == Frontend::kUblk) {
        up = start_ublk(slot, *running, device, attachment, recovering);
    } else {
        const auto name = core_.store->read_for<std::string>(
            [&](Transaction& tx) { return name_of_resource(tx, volume.id.to_string()); });
        Lane& lane = running->lane();
        core_.engine->add_export({volume.id.to_string(), name.value_or(""), device,
                                  device->geometry(), &lane.reactor(), lane.front_buffers.get()});
        const std::lock_guard state(slot->state);
        slot->front->nbd = true;
    }
    if (const int error = faults::hit("daemon.attach.after_front"); up && error != 0)
        up = fail_errno(error, "attach");
    if (up) up = store_attached(attachment, recovering);
    if (!up) {
        if (const auto down = take_down(slot, attachment, true); !down) {
            log::warn("volume {}: {}", volume.id.to_string(), to_string(down.error()));
        }
    }
    return up;
}

/// Ends the front end and the attachment's use of the volume. On an error both go on as they were.
Result<void> Volumes::take_down(const SlotRef& slot, const AttachmentRecord& attachment,
                                bool force) {
    std::shared_ptr<RunningVolume> running;
    UblkDevice* ublk = nullptr;
    bool nbd = false;
    {
        const std::lock_guard state(slot->state);
        if (!slot->front) return {};
        running = slot->running;
        ublk = slot->front->ublk.get();
        nbd = slot->front->nbd;
    }
    if (force) {  // a write that waits for space would hold the front end for ever
        if (nbd) core_.engine->begin_remove_export(attachment.volume.to_string());
        running->fail_when_full(true);
    }
    if (ublk != nullptr) {
        const auto ended =
            io::run_on(running->lane().reactor(), [&] { return ublk->detach(force); });
        if (!ended) {
            running->fail_when_full(false);
            return fail(ended.error());
        }
    }
    if (nbd) core_.engine->remove_export(attachment.volume.to_string());
    if (force) running->fail_when_full(false);  // for who else uses the volume
    // Where a device could not be taken over the kernel still has its requests (R8).
    const bool all_ended =
        ublk != nullptr || nbd || faults::rule_off("rule.failed_recovery_keeps_ids");
    if (all_ended) running->front_ended();
    std::optional<Front> ended;
    {
        const std::lock_guard state(slot->state);
        ended.swap(slot->front);
        slot->trouble.clear();
    }
    ended.reset();
    const auto retries = all_ended ? volume::Retries::kNone : volume::Retries::kMayCome;
    if (is_clustered()) (void)running->set_attachment(AttachmentId(), retries);
    if (const auto released = release(slot); !released) {
        // The members are recopied or resynced at the next start; the device is gone all the same.
        log::warn("volume {} did not stop in order: {}", attachment.volume.to_string(),
                  to_string(released.error()));
    }
    return {};
}

ApiResult<api::AttachmentView> Volumes::attach(const AttachRequest& request) {
    VolumeRecord volume;
    API_TRY_ASSIGN(const auto record, check_attach(request, volume));
    return unless_it_hangs<api::AttachmentView>(volume.id, record.frontend == Frontend::kNbd,
                                                "attach of " + request.volume,
                                                [this, request] { return attach_one(request); });
}

ApiResult<api::AttachmentView> Volumes::attach_one(const AttachRequest& request) {
    VolumeRecord volume;
    API_TRY_ASSIGN(volume, find_volume(core_.store, request.volume));
    const auto ref = slot(volume.id);
    API_TRY_ASSIGN(const auto operation, begin_operation(ref, request.volume));
    API_TRY_ASSIGN(auto attachment, check_attach(request, volume));
    {  // a verify or a copy runs it, perhaps from before a change of the durability
        const std::lock_guard state(ref->state);
        attachment.durability = ref->running ? ref->running->durability() : volume.durability;
    }
    API_TRY(store_attaching(volume, attachment));
    (void)faults::hit("daemon.attach.after_intent");
    if (const auto up = bring_up(ref, volume, attachment, false); !up) {
        if (has_front(ref)) {  // nor could it be ended
            attachment.detach_forced = true;
            if (const auto stored = set_state(attachment, AttachmentState::kDetaching); !stored)
                log::warn("volume {}: {}", request.volume, to_string(stored.error()));
            detach_goes_on(ref, attachment, up.error());
            return refuse(
                up.error(),
                fmt::format("cannot attach {}; what was begun is being detached", request.volume));
        }
        if (const auto erased = erase_attachment(attachment); !erased)
            log::warn("volume {}: {}", request.volume, to_string(erased.error()));
        return refuse(up.error(), fmt::format("cannot attach {}", request.volume));
    }
    core_.events->add("volume.attached", volume.id.to_string(), attachment_view(attachment).device);
    changed_();  // perhaps it is degraded
    return attachment_view(attachment);
}

ApiResult<AttachmentRecord> Volumes::find_attachment(const VolumeRecord& volume,
                                                     const std::string& name,
                                                     const std::string& instance) {
    std::optional<InstanceId> wanted;
    if (!instance.empty()) {
        API_TRY_ASSIGN(const auto found,
                       find_instance(core_.store, instance, core_.identity->host()));
        wanted = found.id;
    }
    const auto found = core_.store->list<AttachmentRecord>(metadata::where("volume", volume.id));
    if (!found) return refuse(found.error(), "cannot look up the attachment of " + name);
    for (const AttachmentRecord& record : *found) {
        if (wanted ? record.instance == *wanted : found->size() == 1 || is_mine(record))
            return record;
    }
    if (!found->empty() && !wanted)
        return refuse("MissingParameter",
                      fmt::format("volume {} is attached to {} instances, none of this host: give "
                                  "--instance",
                                  name, found->size()));
    if (!found->empty())
        return refuse("InvalidAttachment.NotFound",
                      fmt::format("volume {} is not attached to {}", name, instance));
    return refuse("IncorrectState", fmt::format("volume {} is not attached", name));
}

ApiResult<api::AttachmentView> Volumes::detach(const std::string& name, const std::string& instance,
                                               bool force) {
    API_TRY_ASSIGN(const auto volume, find_volume(core_.store, name));
    return unless_it_hangs<api::AttachmentView>(
        volume.id, true, "detach of " + name,
        [this, volume, name, instance, force]() -> ApiResult<api::AttachmentView> {
            API_TRY_ASSIGN(const auto operation, begin_operation(slot(volume.id), name));
            API_TRY_ASSIGN(auto record, find_attachment(volume, name, instance));
            if (force && !is_mine(record)) return detach_elsewhere(volume, record);
            API_TRY(check_here(record, "detach " + name));
            record.terminating = false;
            return detach_one(volume, record, force);
        });
}

ApiResult<api::PlanView> Volumes::plan_detach(const std::string& name, const std::string& instance,
                                              bool force) {
    API_TRY_ASSIGN(const auto volume, find_volume(core_.store, name));
    const auto ref = slot(volume.id);
    API_TRY_ASSIGN(const auto operation, begin_operation(ref, name));
    API_TRY_ASSIGN(const auto record, find_attachment(volume, name, instance));
    API_TRY(check_here(record, "detach " + name));
    API_TRY_ASSIGN(const auto use, use_of(ref, record));
    const bool forced =
        force || (record.state == AttachmentState::kDetaching && record.detach_forced);
    if (!use.empty() && !forced) return in_use(use);
    api::PlanView plan{
        {fmt::format("detach {} from {}", volume.id.to_string(), record.instance.to_string())}};
    if (!use.empty()) plan.steps.push_back("fail the I/O of who uses it: " + use);
    return plan;
}

ApiResult<void> Volumes::detach_terminating(VolumeId id, InstanceId instance) {
    return unless_it_hangs<void>(id, true, "detach of " + id.to_string(), [this, id, instance] {
        return detach_one_terminating(id, instance);
    });
}

ApiResult<void> Volumes::detach_one_terminating(VolumeId id, InstanceId instance) {
    API_TRY_ASSIGN(const auto operation, begin_operation(slot(id), id.to_string()));
    API_TRY_ASSIGN(const auto volume, find_volume(core_.store, id.to_string()));
    const auto found = core_.store->list<AttachmentRecord>(metadata::where("volume", id));
    if (!found) return refuse(found.error(), "cannot look up the attachment of " + id.to_string());
    for (AttachmentRecord record : *found) {
        if (record.instance != instance) continue;
        record.terminating = true;
        API_TRY(detach_one(volume, record, false));
    }
    return {};
}

/// Whether a front end serves the attachment and no stop of it has begun.
bool Volumes::serves(const SlotRef& slot) {
    const std::lock_guard state(slot->state);
    return slot->front && !(slot->front->ublk && slot->front->ublk->is_stopping());
}

bool Volumes::has_front(const SlotRef& slot) {
    const std::lock_guard state(slot->state);
    return slot->front.has_value();
}

bool Volumes::is_stopping(const SlotRef& slot) {
    const std::lock_guard state(slot->state);
    return slot->front && slot->front->ublk && slot->front->ublk->is_stopping();
}

/// Who uses the attachment's ublk device: the one that is served, else the one that a former daemon
/// left, which is not opened.
Result<std::vector<std::string>> Volumes::users_of(const SlotRef& slot,
                                                   const AttachmentRecord& attachment) {
    using Users = std::vector<std::string>;
    const auto* ublk = core_.engine->ublk();
    if (attachment.frontend != Frontend::kUblk || ublk == nullptr ||
        faults::rule_off("rule.detach_checks_users"))
        return Users();
    if (!serves(slot)) return users_of_left_devices(attachment);
    if (!attachment.ublk_number) return Users();
    return front::ublk::device_users(fmt::format("ublkb{}", *attachment.ublk_number),
                                     ublk->device_folder, ublk->sys_folder);
}

ApiResult<void> Volumes::check_detach_answers(const AttachmentRecord& attachment) {
    return check_answers(attachment.volume, attachment.frontend == Frontend::kNbd,
                         "cannot detach " + attachment.volume.to_string());
}

ApiResult<std::string> Volumes::use_of(const SlotRef& slot, const AttachmentRecord& attachment) {
    const std::string id = attachment.volume.to_string();
    API_TRY(check_detach_answers(attachment));
    if (attachment.frontend == Frontend::kNbd && !faults::rule_off("rule.detach_checks_users")) {
        if (const unsigned clients = core_.engine->export_connections(id); clients > 0)
            return fmt::format("{} NBD connection{} to {}", clients, clients == 1 ? "" : "s", id);
    }
    if (is_stopping(slot)) return "";
    const auto users = users_of(slot, attachment);
    if (!users) return refuse(users.error(), "cannot see who uses " + id);
    return users->empty() ? "" : used_by(attachment, *users);
}

ApiResult<void> Volumes::check_unused(const SlotRef& slot, const AttachmentRecord& attachment) {
    API_TRY_ASSIGN(const auto use, use_of(slot, attachment));
    if (!use.empty()) return in_use(use);
    return {};
}

ApiResult<void> Volumes::check_detach_all(InstanceId instance) {
    const auto found = core_.store->list<AttachmentRecord>(metadata::where("instance", instance));
    if (!found) return refuse(found.error(), "cannot look up the attachments");
    for (const AttachmentRecord& record : *found) {
        API_TRY(check_unused(slot(record.volume), record));
    }
    return {};
}

/// Carries a stored detach out or on: ends what this daemon serves, else what a former one left.
Result<void> Volumes::carry_out_detach(const SlotRef& slot, const AttachmentRecord& attachment) {
    const bool is_up = has_front(slot);
    TRY(take_down(slot, attachment, attachment.detach_forced));
    if (!is_up) {  // it never came back
        TRY(remove_left_devices(attachment));
    }
    (void)faults::hit("daemon.detach.after_front");
    TRY(erase_attachment(attachment));
    const std::lock_guard state(slot->state);
    slot->trouble.clear();
    return {};
}

/// It stays detaching, with the reason, and is tried again by look_after().
void Volumes::detach_goes_on(const SlotRef& slot, const AttachmentRecord& attachment,
                             const Error& error) {
    const std::string why = "detaching: " + to_string(error);
    {
        const std::lock_guard state(slot->state);
        if (slot->trouble == why) return;  // told already
        slot->trouble = why;
    }
    const std::string id = attachment.volume.to_string();
    log::error("volume {} is still {}", id, why);
    core_.events->add(
        "volume.trouble", id,
        fmt::format("its detach did not end: {}; it is tried again", to_string(error)));
}

ApiResult<api::AttachmentView> Volumes::detach_one(const VolumeRecord& volume,
                                                   AttachmentRecord attachment, bool force) {
    const auto ref = slot(volume.id);
    const std::string id = volume.id.to_string();
    API_TRY(check_detach_answers(attachment));
    const AttachmentState before = attachment.state;
    if (before != AttachmentState::kDetaching) attachment.detach_forced = false;
    attachment.detach_forced |= force;
    // Before the intent is stored: the next daemon carries a forced one out.
    if (!attachment.detach_forced) {
        API_TRY(check_unused(ref, attachment));
    }
    if (const auto stored = set_state(attachment, AttachmentState::kDetaching); !stored)
        return refuse(stored.error(), "cannot store the detach of " + id);
    (void)faults::hit("daemon.detach.after_intent");
    if (const auto done = carry_out_detach(ref, attachment); !done) {
        if (!serves(ref)) {
            detach_goes_on(ref, attachment, done.error());
            return refuse(done.error(), fmt::format("the detach of {} is tried again", id));
        }
        attachment.detach_forced = false;
        const auto restored =
            set_state(attachment,
                      before == AttachmentState::kDetaching ? AttachmentState::kAttached : before);
        if (!restored) log::warn("volume {}: {}", id, to_string(restored.error()));
        if (done.error().code == Errc::kBusy)
            return in_use(used_by(attachment, {"somebody has it open"}));
        return refuse(done.error(), "cannot detach " + id);
    }
    core_.events->add("volume.detached", id, attachment.detach_forced ? "forced" : "");
    auto view = attachment_view(attachment);
    view.state = "detached";
    return view;
}

}  // namespace ublkd::daemon
