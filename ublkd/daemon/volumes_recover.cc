#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <set>
#include <thread>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/steps.h"
#include "ublkd/daemon/volumes.h"
#include "ublkd/front/ublk/device_files.h"
#include "ublkd/front/ublk/device_users.h"
#include "ublkd/front/ublk/rescue.h"

namespace ublkd::daemon {

using front::ublk::UblkDevice;
using metadata::AttachmentRecord;
using metadata::AttachmentState;
using metadata::Frontend;
using metadata::Transaction;
using metadata::VolumeRecord;
using metadata::VolumeState;

/// The devices that a former daemon left for the attachment's volume. kBusy: that daemon still
/// lives.
Result<std::vector<front::ublk::FoundDevice>> Volumes::left_devices(
    const AttachmentRecord& attachment) {
    std::vector<front::ublk::FoundDevice> left;
    if (attachment.frontend != Frontend::kUblk) return left;
    const auto* environment = core_.engine->ublk();
    if (environment == nullptr) {
        if (front::ublk::list_device_ids("/sys").empty()) return left;
        return fail(core_.engine->no_ublk_reason());
    }
    Lane& lane = core_.engine->lane_of(attachment.volume);
    TRY_ASSIGN(const auto found,
               io::run_on(lane.reactor(), [&] { return front::ublk::find_devices(environment); }));
    for (const auto& device : found) {
        if (device.info.server_flags != front::ublk::device_tag(attachment.volume)) continue;
        if (device.server_alive) return fail(Errc::kBusy, "the device's server is alive");
        left.push_back(device);
    }
    return left;
}

/// They go: their attachment is being taken away.
Result<void> Volumes::remove_left_devices(const AttachmentRecord& attachment) {
    TRY_ASSIGN(const auto left, left_devices(attachment));
    for (const auto& device : left) {
        TRY(io::run_on(core_.engine->lane_of(attachment.volume).reactor(), [&] {
            return front::ublk::remove_device(core_.engine->ublk(), device.info.device_id);
        }));
    }
    return {};
}

/// Without opening them, which would wait for a server. A stopped device has no users to keep.
Result<std::vector<std::string>> Volumes::users_of_left_devices(
    const AttachmentRecord& attachment) {
    TRY_ASSIGN(const auto left, left_devices(attachment));
    std::vector<std::string> users;
    for (const auto& device : left) {
        if (!device.was_started()) continue;
        const auto* environment = core_.engine->ublk();
        const auto of_this = front::ublk::device_users(
            fmt::format("ublkb{}", device.info.device_id), environment->device_folder,
            environment->sys_folder, front::ublk::LookBy::kNotOpening);
        users.insert(users.end(), of_this.begin(), of_this.end());
    }
    return users;
}

/// Nobody's device: a former daemon made it and did not live to store its number, or made another.
void Volumes::remove_surplus_device(const VolumeRecord& volume, std::uint32_t number) {
    Lane& lane = core_.engine->lane_of(volume.id);
    const auto* environment = core_.engine->ublk();
    const auto removed =
        io::run_on(lane.reactor(), [&] { return front::ublk::remove_device(environment, number); });
    if (removed) {
        core_.events->add("rescue.removed", volume.id.to_string(),
                          fmt::format("/dev/ublkb{}, left by a former daemon", number));
    } else {
        log::warn("/dev/ublkb{} could not be removed: {}", number, to_string(removed.error()));
    }
}

/// `left`: devices with the volume's tag and no server, those that were started first. The tag says
/// whose a device is; the stored number may be of an earlier one, where a daemon died between
/// making a device and storing its number, so it decides between equally fit devices alone.
void Volumes::adopt_for(const VolumeRecord& volume, std::vector<front::ublk::FoundDevice> left) {
    const auto attachments =
        core_.store->list<AttachmentRecord>(metadata::where("volume", volume.id));
    if (!attachments) return;
    for (AttachmentRecord attachment : *attachments) {
        if (attachment.frontend != Frontend::kUblk) continue;
        auto taken = left.begin();
        for (auto device = left.begin(); device != left.end(); ++device) {
            if (device->was_started() == taken->was_started() &&
                device->info.device_id == attachment.ublk_number)
                taken = device;
        }
        const bool known = attachment.ublk_number == taken->info.device_id;
        attachment.ublk_number = taken->info.device_id;
        if (!known && !set_state(attachment, attachment.state)) return;  // nothing is removed then
        left.erase(taken);
        break;
    }
    for (const auto& device : left) {
        if (attachments->empty() || !device.was_started()) {
            remove_surplus_device(volume, device.info.device_id);
        } else {  // requests may wait in it
            core_.events->add("rescue.left", volume.id.to_string(),
                              fmt::format("/dev/ublkb{} is a second device of the volume: "
                                          "'ebs-cli rescue remove' when nothing needs it",
                                          device.info.device_id));
        }
    }
}

void Volumes::adopt_left_devices() {
    const auto* environment = core_.engine->ublk();
    if (environment == nullptr) return;
    Lane& lane = core_.engine->lane_of(VolumeId(1));
    const auto found =
        io::run_on(lane.reactor(), [&] { return front::ublk::find_devices(environment); });
    const auto volumes = core_.store->list<VolumeRecord>();
    if (!found || !volumes) {
        log::warn("ublk devices of a former daemon could not be listed");
        return;
    }
    for (const auto& volume : *volumes) {
        auto left = front::ublk::orphans_of(*found, volume.id);
        if (!left.empty()) adopt_for(volume, std::move(left));
    }
}

bool Volumes::recover_detach(const SlotRef& slot, AttachmentRecord& attachment) {
    const std::string id = attachment.volume.to_string();
    if (serves(slot) && !attachment.detach_forced) {  // refused, and that could not be stored
        (void)store_attached(attachment, true);
        return true;
    }
    if (!attachment.detach_forced && !is_stopping(slot)) {
        const auto users = users_of(slot, attachment);
        if (!users) {
            detach_goes_on(slot, attachment, users.error());
            return true;
        }
        if (!users->empty()) {
            core_.events->add("volume.detach-undone", id,
                              fmt::format("begun by a former daemon; the device is in use: {}",
                                          fmt::join(*users, ", ")));
            return false;
        }
    }
    if (const auto done = carry_out_detach(slot, attachment); !done) {
        detach_goes_on(slot, attachment, done.error());
    } else {
        core_.events->add("volume.detached", id,
                          attachment.detach_forced ? "begun before, forced" : "begun before");
    }
    return true;
}

void Volumes::recover_attachment(AttachmentRecord attachment) {
    const auto ref = slot(attachment.volume);
    const auto volume = core_.store->get<VolumeRecord>(attachment.volume);
    if (!volume || !*volume) return;
    (void)faults::hit("daemon.recover.attachment");
    const std::string id = attachment.volume.to_string();
    if (attachment.state == AttachmentState::kDetaching && recover_detach(ref, attachment)) return;
    if (has_front(ref)) {  // all that lacks is the record of it
        (void)store_attached(attachment, true);
        return;
    }
    const auto up = bring_up(ref, **volume, attachment, true);
    if (up) {
        core_.events->add("volume.recovered", id, attachment_view(attachment).device);
        return;
    }
    const std::string why = to_string(up.error());
    {
        const std::lock_guard state(ref->state);
        if (ref->trouble == why) return;  // told already
        ref->trouble = why;
    }
    log::error("volume {} did not come back: {}", id, why);
    core_.events->add("volume.trouble", id,
                      fmt::format("its attachment did not come back: {}; it is tried again", why));
    if (const auto stored = set_state(attachment, AttachmentState::kBusy); !stored)
        log::warn("volume {}: {}", id, to_string(stored.error()));
}

void Volumes::take_stock() {
    const auto volumes = core_.store->list<VolumeRecord>();
    for (const auto& record : volumes ? *volumes : std::vector<VolumeRecord>()) {
        if (record.state != VolumeState::kDeleting && record.state != VolumeState::kCreating &&
            is_mine(record))
            reconcile(record.id);
    }
    if (!faults::rule_off("rule.attachments_come_back")) adopt_left_devices();
}

void Volumes::recover() {
    Steps steps;
    for (const VolumeId volume : due()) {
        steps.run(volume.to_string(), [this, volume] {
            const auto ref = slot(volume);
            const Operation operation(ref->operation);
            if (!ending_) bring_back(ref, volume);
        });
    }
    boot_wait_.serve(ending_);
}

void Volumes::begin_stop() { ending_ = true; }

std::vector<VolumeId> Volumes::due() {
    std::set<VolumeId> found;
    look_at_reactors();
    const auto attachments = core_.store->list<AttachmentRecord>();
    for (const auto& attachment : attachments ? *attachments : std::vector<AttachmentRecord>()) {
        if (!is_mine(attachment)) continue;
        look_for_a_stop(slot(attachment.volume), attachment);
        if (is_due(attachment)) found.insert(attachment.volume);
    }
    const auto volumes = core_.store->list<VolumeRecord>();
    for (const auto& volume : volumes ? *volumes : std::vector<VolumeRecord>()) {
        if (is_due(volume)) found.insert(volume.id);
    }
    return {found.begin(), found.end()};
}

void Volumes::look_after(VolumeId volume) {
    const auto ref = slot(volume);
    const Operation operation(ref->operation, std::try_to_lock);
    if (!operation.owns_lock() || ending_) return;
    bring_back(ref, volume);
    const auto record = core_.store->get<VolumeRecord>(volume);
    if (!record || !*record || ending_ || !is_due(**record)) return;
    if (repair_one(ref, **record)) return;
    const std::lock_guard state(ref->state);
    ref->repair.failed();
}

void Volumes::forget_failures() {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, ref] : slots_) {
        const std::lock_guard state(ref->state);
        ref->bring_back.reset();
        ref->repair.reset();
    }
}

void Volumes::retry_attachment(VolumeId volume) {
    const auto ref = slot(volume);
    const Operation operation(ref->operation, std::chrono::seconds(20));
    if (!operation.owns_lock()) return;
    {
        const std::lock_guard state(ref->state);
        ref->bring_back.reset();
    }
    bring_back(ref, volume);
}

/// Its attachment, where that is not what it should be, and what was begun and not ended.
void Volumes::bring_back(const SlotRef& slot, VolumeId volume) {
    const auto attachments = core_.store->list<AttachmentRecord>(metadata::where("volume", volume));
    for (const auto& attachment : attachments ? *attachments : std::vector<AttachmentRecord>()) {
        if (!is_mine(attachment) || !is_due(attachment)) continue;
        recover_attachment(attachment);
        const auto again = core_.store->get<AttachmentRecord>(attachment.id);
        const bool left = again && *again && is_left(slot, **again);
        const std::lock_guard state(slot->state);
        left ? slot->bring_back.failed() : slot->bring_back.reset();
    }
    const auto record = core_.store->get<VolumeRecord>(volume);
    if (!record || !*record || !is_due(**record)) return;
    if (finish_one(**record)) return;
    const std::lock_guard state(slot->state);
    slot->repair.failed();
}

/// Finishes or rolls back what was begun and not ended, by a former daemon or by a step that
/// failed; with the slot's operation held. False where a step failed again.
bool Volumes::finish_one(const VolumeRecord& record) {
    const std::string id = record.id.to_string();
    if (record.state == VolumeState::kDeleting) {
        const auto done = finish_delete(record);
        if (!done) log::warn("{}: {}", done.error().code, done.error().message);
        return done.has_value();
    }
    if (record.state != VolumeState::kCreating) return true;
    const auto membership = core_.authority->current(record.id);
    if (!membership) return false;
    if (!*membership) {
        roll_back_create(record.id);
        core_.events->add("volume.rolled-back", id, "its creation was interrupted");
        return true;
    }
    const auto done = finish_create(record.id);
    if (!done) log::warn("volume {}: {}", id, to_string(done.error()));
    return done.has_value();
}

bool Volumes::is_due(const AttachmentRecord& attachment) {
    const auto ref = slot(attachment.volume);
    if (!is_left(ref, attachment) || faults::rule_off("rule.attachments_come_back")) return false;
    const std::lock_guard state(ref->state);
    return ref->bring_back.is_due();
}

/// Whether the attachment is not what it should be: attached, with a front end.
bool Volumes::is_left(const SlotRef& slot, const AttachmentRecord& attachment) {
    return attachment.state != AttachmentState::kAttached || !has_front(slot);
}

/// The watches of its disks run on the reactor: they tell of a disk that holds up all of it no
/// more.
void Volumes::look_at_reactors() {
    core_.engine->look_at_reactors();
    std::vector<VolumeId> to_tell;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [id, ref] : slots_) {
            const bool waits = !core_.engine->answers(id);
            const std::lock_guard state(ref->state);
            if (waits && ref->running && !ref->reactor_told) to_tell.push_back(id);
            ref->reactor_told = waits && ref->running;
        }
    }
    for (const VolumeId id : to_tell)
        core_.events->add("volume.trouble", id.to_string(), kReactorTrouble);
}

/// Another program may stop a ublk device: then it is one no more, and `detach` is all that helps.
void Volumes::look_for_a_stop(const SlotRef& slot, const AttachmentRecord& attachment) {
    const Operation operation(slot->operation, std::try_to_lock);
    if (!operation.owns_lock()) return;
    UblkDevice* ublk = nullptr;
    {
        const std::lock_guard state(slot->state);
        if (!slot->front || slot->front->stopped_by_others) return;
        ublk = slot->front->ublk.get();
    }
    if (ublk == nullptr || ublk->is_stopping()) return;
    // A late question is taken before the device can end, which is given to the reactor as well.
    const auto gone =
        core_.engine->lane_of(attachment.volume).ask([ublk] { return ublk->status().gone; });
    if (!gone || !*gone) return;
    const std::string why = fmt::format("/dev/ublkb{} was stopped by another program: detach it",
                                        attachment.ublk_number.value_or(0));
    {
        const std::lock_guard state(slot->state);
        slot->front->stopped_by_others = true;
        slot->trouble = why;
    }
    core_.events->add("volume.trouble", attachment.volume.to_string(), why);
}

std::vector<std::shared_ptr<RunningVolume>> Volumes::running_volumes(bool (*which)(const Slot&)) {
    std::vector<std::shared_ptr<RunningVolume>> found;
    const std::lock_guard lock(mutex_);
    for (const auto& [id, ref] : slots_) {
        const std::lock_guard state(ref->state);
        if (ref->running && which(*ref)) found.push_back(ref->running);
    }
    return found;
}

void Volumes::end_verifies() {
    for (const auto& running : running_volumes([](const Slot&) { return true; }))
        running->end_verify();
}

/// Their clients lose their connections and are not told of an error (docs/nbd.md).
void Volumes::end_nbd_waits() {
    const auto by_nbd = [](const Slot& slot) { return slot.front && slot.front->nbd; };
    for (const auto& running : running_volumes(by_nbd)) running->fail_when_full(true);
}

/// Its front end takes no new requests and ends; then the volume stops.
void Volumes::end_volume(const SlotRef& ref) {
    const std::lock_guard life(ref->life);
    std::shared_ptr<RunningVolume> running;
    {
        const std::lock_guard state(ref->state);
        running = std::move(ref->running);
    }
    if (!running) return;
    UblkDevice* ublk = nullptr;
    bool all_answered = false;
    {
        const std::lock_guard state(ref->state);
        all_answered = ref->front.has_value();
        if (ref->front) ublk = ref->front->ublk.get();
    }
    if (ublk != nullptr && faults::rule_off("rule.stop_leaves_devices"))
        (void)io::run_on(running->lane().reactor(), [&] { return ublk->detach(true); });
    else if (ublk != nullptr)
        all_answered = io::run_on(running->lane().reactor(), [&] { return ublk->quiesce(); });
    if (all_answered) running->front_ended();
    if (const auto stopped = running->stop(); !stopped)
        log::warn("a volume did not stop in order: {}", to_string(stopped.error()));
    std::optional<Front> ended;
    const std::lock_guard state(ref->state);
    ended.swap(ref->front);
}

std::vector<std::string> Volumes::shut_down(std::chrono::steady_clock::time_point deadline) {
    /// Outlives this call where a volume does not come to rest.
    struct Ending {
        std::mutex mutex;
        std::condition_variable one_ended;
        std::set<VolumeId> open;
    };
    const auto ending = std::make_shared<Ending>();
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [id, ref] : slots_) ending->open.insert(id);
        for (const auto& [id, ref] : slots_) {
            std::thread([this, ending, volume = id, slot = ref, deadline] {
                const Operation operation(slot->operation, deadline);
                if (!operation.owns_lock()) return;
                end_volume(slot);
                const std::lock_guard guard(ending->mutex);
                ending->open.erase(volume);
                ending->one_ended.notify_one();
            }).detach();
        }
    }
    std::unique_lock lock(ending->mutex);
    ending->one_ended.wait_until(lock, deadline, [&] { return ending->open.empty(); });
    std::vector<std::string> left;
    for (const VolumeId id : ending->open) left.push_back(id.to_string());
    if (left.empty()) worker_.reset();  // what reactors posted is done
    return left;
}

std::vector<std::string> Volumes::detach_all(bool force) {
    std::vector<std::string> left;
    const auto all = core_.store->list<AttachmentRecord>();
    if (!all) left.push_back(to_string(all.error()));
    for (const auto& attachment : all ? *all : std::vector<AttachmentRecord>()) {
        if (!is_mine(attachment)) continue;
        const auto detached = detach(attachment.volume.to_string(), "", force);
        if (!detached) left.push_back(detached.error().message);
    }
    return left;
}

}  // namespace ublkd::daemon
