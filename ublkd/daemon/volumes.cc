#include "ublkd/daemon/volumes.h"

#include <fmt/format.h>

#include <thread>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/membership_story.h"
#include "ublkd/daemon/names.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::Transaction;

namespace {

std::string what_is_modified(const api::ModifyVolumeRequest& request) {
    std::vector<std::string> changes;
    if (request.name) changes.push_back("name " + *request.name);
    if (request.durability)
        changes.push_back("durability " + *request.durability + " from the next attach");
    if (request.on_full) changes.push_back("on-full " + *request.on_full);
    if (request.delete_on_termination)
        changes.emplace_back(*request.delete_on_termination ? "deleted on termination"
                                                            : "kept on termination");
    return fmt::format("{}", fmt::join(changes, ", "));
}

/// Whether a replica was lost by its own disk, and not since the volume stopped or its source
/// failed.
}  // namespace

bool is_of_its_disk(const Error& cause) {
    return cause.code == Errc::kIo || cause.code == Errc::kCorrupt || cause.code == Errc::kReadOnly;
}

Volumes::Volumes(const Core& core, std::function<void()> changed)
    : core_(core),
      changed_(std::move(changed)),
      boot_wait_(core_),
      worker_(std::make_unique<io::Worker>("volumes")) {}

Volumes::~Volumes() = default;

Volumes::SlotRef Volumes::slot(VolumeId volume) {
    const std::lock_guard lock(mutex_);
    auto& found = slots_[volume];
    if (!found) found = std::make_shared<Slot>();
    return found;
}

ApiResult<Volumes::Operation> Volumes::begin_operation(const SlotRef& slot,
                                                       const std::string& name) {
    Operation operation(slot->operation, std::chrono::seconds(20));
    if (!operation.owns_lock()) {
        return refuse("IncorrectState",
                      fmt::format("another operation on {} is under way: try again later", name));
    }
    return operation;
}

ApiResult<void> Volumes::check_answers(VolumeId volume, bool nbd, const std::string& what) {
    if (core_.engine->check_answers(volume, nbd)) return {};
    return refuse("RequestTimeout",
                  fmt::format("{}: {}; nothing was begun: try again when it does ('ebs-cli doctor' "
                              "names the volumes that wait)",
                              what, kReactorTrouble));
}

std::unexpected<api::ApiError> Volumes::hangs(const std::string& what) {
    return refuse("RequestTimeout",
                  fmt::format("the {} does not get on: {}; it goes on by itself when the reactor "
                              "answers ('ebs-cli doctor' names the volumes that wait)",
                              what, kReactorTrouble));
}

std::vector<volume::ReplicaPlace> Volumes::places_of(
    const std::vector<replication::Member>& members) {
    std::vector<volume::ReplicaPlace> places;
    for (const auto& member : members) {
        if (auto place = core_.pools->place(member.pool, member.replica))
            places.push_back(std::move(*place));
    }
    return places;
}

/// Of its members, and of those that were being brought in: a proposal that is not settled may have
/// made one a member (R4).
std::vector<volume::ReplicaPlace> Volumes::places_to_start(
    VolumeId volume, const std::vector<replication::Member>& members) {
    auto places = places_of(members);
    const auto replicas =
        core_.store->list<metadata::ReplicaRecord>(metadata::where("volume", volume));
    for (const auto& replica : replicas ? *replicas : std::vector<metadata::ReplicaRecord>()) {
        const bool known = std::ranges::any_of(
            members, [&](const auto& one) { return one.replica == replica.id; });
        if (known || replica.state == metadata::ReplicaState::kRemoving) continue;
        if (auto place = core_.pools->place(replica.pool, replica.id))
            places.push_back(std::move(*place));
    }
    return places;
}

/// What the volume's front end told its guest, by this daemon or by a former one; without one what
/// is configured.
Result<metadata::Durability> Volumes::durability_in_force(const metadata::VolumeRecord& record) {
    TRY_ASSIGN(const auto attachments,
               core_.store->list<metadata::AttachmentRecord>(metadata::where("volume", record.id)));
    if (attachments.empty() || faults::rule_off("rule.durability_in_force"))
        return record.durability;
    return attachments.front().durability;
}

/// Where a volume is not started yet, its attachment says why.
Result<void> Volumes::wait_for_pools(const SlotRef& slot, VolumeId volume) {
    std::string waited_for;
    while (!boot_wait_.is_over()) {
        if (ending_) return fail(Errc::kCancelled, "the daemon stops");
        TRY_ASSIGN(const auto record, core_.authority->current(volume));
        if (!record) break;
        const std::string reason = boot_wait_.reason(*record);
        if (reason.empty()) break;
        if (waited_for.empty()) log::info("volume {} {}", volume.to_string(), reason);
        waited_for = reason;
        {
            const std::lock_guard state(slot->state);
            slot->trouble = reason;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    if (waited_for.empty()) return {};
    const std::lock_guard state(slot->state);
    slot->trouble.clear();
    return {};
}

Result<std::shared_ptr<RunningVolume>> Volumes::acquire(const SlotRef& slot,
                                                        const metadata::VolumeRecord& record) {
    const std::lock_guard life(slot->life);
    if (!slot->running) {
        TRY(wait_for_pools(slot, record.id));
        TRY_ASSIGN(const auto membership, core_.authority->current(record.id));
        if (!membership) return fail(Errc::kNotFound, "the volume's membership");
        {
            const std::lock_guard state(slot->state);
            slot->membership = membership;
        }
        metadata::VolumeRecord in_force = record;
        TRY_ASSIGN(in_force.durability, durability_in_force(record));
        TRY_ASSIGN(auto started,
                   RunningVolume::start(core_, in_force,
                                        places_to_start(record.id, membership->members), this));
        const std::lock_guard state(slot->state);
        slot->running = std::move(started);
    }
    const std::lock_guard state(slot->state);
    ++slot->users;
    return slot->running;
}

Result<void> Volumes::release(const SlotRef& slot) {
    const std::lock_guard life(slot->life);
    std::shared_ptr<RunningVolume> last;
    {
        const std::lock_guard state(slot->state);
        CHECK(slot->users > 0, "release() pairs with acquire()");
        if (--slot->users == 0) last = std::move(slot->running);
    }
    return last ? last->stop() : Result<void>();
}

ApiResult<api::VerifyView> Volumes::verify_volume(const std::string& name, bool repair) {
    API_TRY_ASSIGN(const auto record, find_volume(core_.store, name));
    if (record.state != metadata::VolumeState::kAvailable &&
        record.state != metadata::VolumeState::kInUse) {
        return refuse(
            "IncorrectState",
            fmt::format("volume {} is {}: it can be verified when it is available or in-use", name,
                        metadata::name_of(record.state)));
    }
    const auto ref = slot(record.id);
    {
        const std::lock_guard state(ref->state);
        if (ref->deleting)
            return refuse("IncorrectState", fmt::format("volume {} is being deleted", name));
    }
    const auto members = core_.authority->current(record.id);
    if (!members) return refuse(members.error(), "cannot look up the members of " + name);
    const bool all_here =
        !*members || std::ranges::all_of((*members)->members, [&](const auto& member) {
            return member.host == core_.identity->host();
        });
    if (!all_here)
        return refuse("UnsupportedOperation",
                      fmt::format("volume {} has members on other hosts: they cannot be compared "
                                  "yet",
                                  name));
    API_TRY(check_answers(record.id, false, "cannot verify " + name));
    const auto running = acquire(ref, record);
    if (!running) return refuse(running.error(), "cannot start the volume " + name);
    if (ending_) (*running)->end_verify();
    const auto report =
        (*running)->verify(repair ? volume::OnDifference::kRepair : volume::OnDifference::kReport);
    const auto released = release(ref);
    if (!report) return refuse(report.error(), "cannot compare the members of " + name);
    if (!released) log::warn("volume {}: {}", record.id.to_string(), to_string(released.error()));
    if (report->equal()) {
        core_.events->add("volume.verified", record.id.to_string(),
                          fmt::format("{} members are equal, {} bytes compared", report->members,
                                      report->compared_bytes));
    } else {
        core_.events->add(
            repair ? "volume.repaired" : "volume.differs", record.id.to_string(),
            fmt::format("members differed in {} bytes, first at {}{}", report->differing_bytes,
                        report->first_difference_bytes.value_or(0),
                        repair ? "; the primary's content was written over the others'" : ""));
    }
    return api::VerifyView{record.id.to_string(),  report->members,
                           report->compared_bytes, report->differing_bytes,
                           report->repaired_bytes, report->first_difference_bytes};
}

ApiResult<api::VolumeView> Volumes::modify_volume(const std::string& name,
                                                  const api::ModifyVolumeRequest& request) {
    API_TRY_ASSIGN(const auto found, find_volume(core_.store, name));
    if (request.name) {
        API_TRY(check_name(*request.name));
    }
    const auto ref = slot(found.id);
    API_TRY_ASSIGN(const auto operation, begin_operation(ref, name));
    const std::string id = found.id.to_string();
    bool attached = true;
    const auto stored = core_.store->write_for<metadata::VolumeRecord>(
        [&](Transaction& tx) -> Result<metadata::VolumeRecord> {
            TRY_ASSIGN(auto record, tx.get<metadata::VolumeRecord>(found.id));
            if (!record) return fail(Errc::kNotFound, "the volume");
            if (request.durability)
                record->durability = *request.durability == "write" ? metadata::Durability::kWrite
                                                                    : metadata::Durability::kFlush;
            if (request.on_full)
                record->on_full =
                    *request.on_full == "fail" ? metadata::OnFull::kFail : metadata::OnFull::kWait;
            TRY(tx.put(*record));
            if (request.name) {
                TRY(check_name_free(tx, id, *request.name));
                TRY(put_tag(tx, id, "Name", *request.name));
            }
            TRY_ASSIGN(auto attachments,
                       tx.list<metadata::AttachmentRecord>(metadata::where("volume", found.id)));
            attached = !attachments.empty();
            if (request.delete_on_termination) {
                if (!attached) return fail(Errc::kBusy, "not attached");
                for (auto& attachment : attachments) {
                    attachment.delete_on_termination = *request.delete_on_termination;
                    TRY(tx.put(attachment));
                }
            }
            TRY_ASSIGN(const auto stored_again, tx.get<metadata::VolumeRecord>(found.id));
            return *stored_again;
        });
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another volume has the name '{}'", *request.name));
    if (!stored && request.delete_on_termination && !attached)
        return refuse(
            "IncorrectState",
            fmt::format("volume {} is not attached: DeleteOnTermination is set by attach", name));
    if (!stored) return refuse(stored.error(), "cannot change the volume " + name);
    if (request.name) core_.engine->rename_export(id, *request.name);
    const auto running = [&] {
        const std::lock_guard state(ref->state);
        return ref->running;
    }();
    if (running && request.on_full) {
        running->set_on_full(stored->on_full == metadata::OnFull::kFail ? volume::OnFull::kFail
                                                                        : volume::OnFull::kWait);
    }
    core_.events->add("volume.modified", id, what_is_modified(request));
    return view_of(*stored);
}

void Volumes::membership_changed(VolumeId volume, const replication::Membership& record) {
    worker_->submit([this, volume, record] {
        const auto ref = slot(volume);
        std::string text;
        bool is_new = false;
        {
            const std::lock_guard state(ref->state);
            is_new = !ref->membership || ref->membership->number < record.number;
            text = what_changed(ref->membership, record, ref->loss_causes);
            ref->membership = record;
            std::erase_if(ref->loss_causes,
                          [&](const auto& lost) { return !record.has(lost.first); });
        }
        // Each host that has the volume hears of it; the primary's proposed it, and knows why.
        if (is_new && has_primary_here(record))
            core_.events->add("membership.changed", volume.to_string(), text);
        reconcile(volume);
    });
}

/// A volume that does nothing would keep its files open on a disk that has failed, and with them
/// the file system that has to be mounted again.
void Volumes::try_disks_of_others(const SlotRef& but, PoolId pool) {
    std::vector<SlotRef> others;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [id, ref] : slots_) {
            if (ref != but) others.push_back(ref);
        }
    }
    for (const SlotRef& other : others) {
        const auto running = [&] {
            const std::lock_guard state(other->state);
            return other->running;
        }();
        if (running) running->try_disks(pool);
    }
}

void Volumes::member_lost(VolumeId volume, const replication::Member& given, const Error& cause) {
    worker_->submit([this, volume, given, cause] {
        replication::Member member = given;
        if (!member.pool) {  // of another host, and never a member: the core does not know it
            const auto record = core_.store->get<metadata::ReplicaRecord>(member.replica);
            if (record && *record) member.pool = (*record)->pool;
        }
        core_.events->post("member.lost", volume.to_string(),
                           fmt::format("{} in {}: {}", member.replica.to_string(),
                                       member.pool.to_string(), to_string(cause)));
        const auto ref = slot(volume);
        if (is_of_its_disk(cause)) {
            core_.pools->mark_failed(member.pool, cause);
            try_disks_of_others(ref, member.pool);
        }
        {
            const std::lock_guard state(ref->state);
            ref->loss_causes[member.replica] = to_string(cause);
            if (ref->joining == member.replica) {
                ref->repair.failed();  // the next copy may fail as well
                if (is_of_its_disk(cause) || cause.code == Errc::kNoSpace) {
                    ref->failed_target = member.pool;
                    ref->failed_copy = to_string(cause);
                }
                if (is_of_its_disk(cause) && ref->returning) ++ref->failed_returns[member.replica];
            }
        }
        finish_joining(volume, member.replica);
        reconcile(volume);
    });
}

void Volumes::sync_finished(VolumeId volume, ReplicaId replica, std::uint64_t copied_bytes) {
    worker_->submit([this, volume, replica, copied_bytes] {
        const auto ref = slot(volume);
        bool returned = false;
        {
            const std::lock_guard state(ref->state);
            returned = ref->returning && ref->joining == replica;
            ref->repair.reset();
            ref->failed_target = PoolId();
            ref->failed_copy.clear();
            ref->failed_returns.erase(replica);
        }
        core_.events->add(returned ? "member.returned" : "member.joined", volume.to_string(),
                          fmt::format("{} has been copied ({} bytes) and is a member",
                                      replica.to_string(), copied_bytes));
        reconcile(volume);
        finish_joining(volume, replica);
    });
}

void Volumes::trouble(VolumeId volume, const std::string& text) {
    core_.events->post("volume.trouble", volume.to_string(), text);
}

}  // namespace ublkd::daemon
