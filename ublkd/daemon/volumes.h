// The volumes of this host: create, attach, detach, modify, delete, verify, what they look like,
// and how they come back after a restart. Decisions are in the metadata before anything is done
// about them, so that a daemon that was killed at any point finishes or rolls back: recover() reads
// the states creating, attaching, detaching and deleting.
//
// A slot per volume: one operation at a time on it (Slot::operation); the volume runs while it has
// users (attachment, verify, copy). Thread-safe: called by the API's threads and by Repair;
// reactors only post. Parts: volumes_create.cc, volumes_attach.cc, volumes_delete.cc,
// volumes_view.cc, volumes_membership.cc, volumes_recover.cc, volumes_repair.cc,
// volumes_restored.cc. Owner: Daemon; shut_down() comes first. Fault points:
// daemon.create.{before_intent,after_intent,after_record,before_available},
// daemon.attach.{after_intent,after_front}, daemon.detach.{after_intent,after_front},
// daemon.delete.{after_intent,after_record}, daemon.recover.attachment, and those of hosting.h.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ublkd/api/control.h"
#include "ublkd/daemon/backoff.h"
#include "ublkd/daemon/boot_wait.h"
#include "ublkd/daemon/core.h"
#include "ublkd/daemon/hosting.h"
#include "ublkd/daemon/peer_listener.h"
#include "ublkd/daemon/read_only_device.h"
#include "ublkd/daemon/running_volume.h"
#include "ublkd/daemon/steps.h"
#include "ublkd/daemon/while_it_answers.h"
#include "ublkd/front/ublk/rescue.h"

namespace ublkd::daemon {

inline constexpr const char* kReactorTrouble =
    "its reactor does not answer: a disk of one of the reactor's volumes may hang";

/// The front end of an attachment.
struct Front {
    std::unique_ptr<ReadOnlyDevice> read_only;
    std::unique_ptr<front::ublk::UblkDevice> ublk;  // on the lane's reactor; none for NBD
    metadata::AttachmentRecord attachment;
    bool nbd = false;
    bool stopped_by_others = false;  // the ublk device, without this daemon
};

/// Whether a replica was lost, or could not be opened, by its own disk: its pool has failed then.
bool is_of_its_disk(const Error& cause);

class Volumes final : public api::VolumeControl, public volume::VolumeEvents {
  public:
    /// `changed`: called (on a thread that may block) when a volume may need a repair.
    Volumes(const Core& core, std::function<void()> changed);
    Volumes(const Volumes&) = delete;
    Volumes& operator=(const Volumes&) = delete;
    ~Volumes() override;

    /// Reads what a former daemon left: which replicas are members, which devices are whose. Comes
    /// before anything is brought back.
    void take_stock();
    /// Brings back what was attached and finishes what was begun, each volume on a thread of its
    /// own; ends when all have been tried once (the rest is look_after()'s), or soon after
    /// begin_stop(). The API and Repair may serve meanwhile.
    void recover();
    /// The volumes for which something is to be done now. Asks no disk,
    /// and waits for no reactor that does not answer.
    std::vector<VolumeId> due();
    /// What is due for the volume: its attachment is brought back or its detach goes on, its
    /// creation or deletion is finished, it gets a replica. May block on a disk.
    void look_after(VolumeId volume);
    /// What failed and waits is due at once: a pool is back.
    void forget_failures();
    /// Of one that somebody asks for: now.
    void retry_attachment(VolumeId volume);
    /// Nothing new is begun any more: SIGTERM.
    void begin_stop();
    /// After begin_stop() and the end of the listener: connections of other hosts that were being
    /// taken.
    void end_peers();
    /// After begin_stop(): verifies, which may take hours, end.
    void end_verifies();
    /// Quiesces front ends and stops volumes, side by side; attachments stay recorded for the next
    /// start. What has not come to rest at `deadline` (it waits for space, a disk or the authority)
    /// is named: its threads run on, so the process must end by _exit(), as at a death.
    std::vector<std::string> shut_down(std::chrono::steady_clock::time_point deadline);
    /// At SIGTERM, when the NBD server has begun to stop: writes that wait for space end.
    void end_nbd_waits();
    /// Whether all of an instance's volumes can be detached; the first that is in use is told.
    api::ApiResult<void> check_detach_all(InstanceId instance);
    /// As a part of the instance's deletion; VolumeRecord::delete_with says what is to go then. ok
    /// where it is not attached (any more).
    api::ApiResult<void> detach_terminating(VolumeId volume, InstanceId instance);
    /// A connection of another host, whose hello was heard. Blocks.
    void peer_connected(HeardPeer heard);
    /// The same, on a thread of its own. Returns at once.
    void post_peer(HeardPeer heard);
    /// Whether another host answers now, within a second. Blocks.
    bool answers(HostId host);
    /// A round: what this host knows of volumes whose membership was restored (R16).
    void report_restored();
    /// A round, in a cluster: what other hosts want of this one.
    void look_after_others();

    /// `ublkd --detach-all`: what could not be detached, one line each.
    std::vector<std::string> detach_all(bool force);

    /// Brings the members' and the lost replicas' records in line with the membership. Who is no
    /// member keeps its place while the volume lacks a replica and its pool may come back.
    void reconcile(VolumeId volume);
    /// A replica that is no member, and is to be removed: it is not held open for long.
    void close_replica(VolumeId volume, ReplicaId replica);

    // api::VolumeControl
    api::ApiResult<api::VolumeView> create_volume(const api::CreateVolumeRequest& request) override;
    api::ApiResult<api::PlanView> plan_volume(const api::CreateVolumeRequest& request) override;
    api::ApiResult<std::vector<api::VolumeView>> volumes() override;
    api::ApiResult<api::VolumeView> volume(const std::string& name) override;
    api::ApiResult<api::VolumeView> modify_volume(const std::string& name,
                                                  const api::ModifyVolumeRequest& request) override;
    api::ApiResult<void> delete_volume(const std::string& name, bool dry_run) override;
    api::ApiResult<api::VerifyView> verify_volume(const std::string& name, bool repair) override;
    api::ApiResult<std::vector<api::FindingView>> why(const std::string& name) override;
    api::ApiResult<api::AttachmentView> attach(const api::AttachRequest& request) override;
    api::ApiResult<api::PlanView> plan_attach(const api::AttachRequest& request) override;
    api::ApiResult<api::AttachmentView> detach(const std::string& volume,
                                               const std::string& instance, bool force) override;
    api::ApiResult<api::PlanView> plan_detach(const std::string& volume,
                                              const std::string& instance, bool force) override;
    api::ApiResult<std::vector<api::AttachmentView>> attachments() override;
    // volumes_drain_view.cc
    api::ApiResult<std::vector<api::DrainView>> drains() override;
    api::ApiResult<api::PlanView> plan_pool_drain(const std::string& pool) override;
    api::ApiResult<api::PlanView> plan_host_drain(const std::string& host) override;
    api::ApiResult<api::MembershipView> membership(const std::string& volume) override;
    api::ApiResult<api::ProposalAnswer> propose(const api::ProposalRequest& request) override;

    // volume::VolumeEvents, on the volume's reactor
    void membership_changed(VolumeId volume, const replication::Membership& record) override;
    void member_lost(VolumeId volume, const replication::Member& member,
                     const Error& cause) override;
    void sync_finished(VolumeId volume, ReplicaId replica, std::uint64_t copied_bytes) override;
    void trouble(VolumeId volume, const std::string& text) override;

  private:
    struct Slot {
        std::timed_mutex operation;  // one create, attach, detach, modify, delete at a time
        std::mutex life;             // over start and stop; after `operation`
        std::mutex state;  // of what follows; innermost, never held over a call that blocks
        std::shared_ptr<RunningVolume> running;
        std::optional<replication::Membership> membership;  // the last one that was told, and why
        std::map<ReplicaId, std::string> loss_causes;       // who is no member any more
        unsigned users = 0;
        std::optional<Front> front;
        ReplicaId joining;       // being copied to; holds a use
        bool returning = false;  // it was a member before
        std::map<ReplicaId, unsigned> failed_returns;
        ReplicaId busy_return;    // could not begin in the last round: others have the next one
        PoolId failed_target;     // where the last copy failed by the disk that it went to
        std::string failed_copy;  // why that was
        bool deleting = false;
        std::string trouble;                                   // why the attachment is not served
        bool reactor_told = false;                             // that it does not answer
        bool serves_others = false;                            // other hosts: holds a use
        std::chrono::steady_clock::time_point asked_at{};      // by another host
        Backoff bring_back;                                    // of the attachment
        Backoff repair;                                        // of everything else
        std::optional<Backoff::Clock::time_point> lost_since;  // a member, at rest
        std::optional<Backoff::Clock::time_point> away_since;  // the host of a lost replica
        Backoff::Clock::time_point next_look{};                // at a volume at rest
    };
    using SlotRef = std::shared_ptr<Slot>;
    using Operation = std::unique_lock<std::timed_mutex>;

    SlotRef slot(VolumeId volume);
    api::ApiResult<Operation> begin_operation(const SlotRef& slot, const std::string& name);
    /// Refuses what would wait for a reactor that does not answer, before anything is begun.
    /// `what`: "cannot attach pg".
    api::ApiResult<void> check_answers(VolumeId volume, bool nbd, const std::string& what);
    /// A request's `work`; where the reactor stops to answer in the midst of it the request ends,
    /// and the work goes on by itself later. `what`: "attach of pg".
    template <class T>
    api::ApiResult<T> unless_it_hangs(VolumeId volume, bool nbd, const std::string& what,
                                      std::function<api::ApiResult<T>()> work) {
        auto done =
            while_it_answers<api::ApiResult<T>>(*core_.engine, volume, nbd, std::move(work));
        if (!done) return hangs(what);
        return *std::move(done);
    }
    static std::unexpected<api::ApiError> hangs(const std::string& what);
    /// Starts the volume where it does not run, and counts a user.
    Result<std::shared_ptr<RunningVolume>> acquire(const SlotRef& slot,
                                                   const metadata::VolumeRecord& record);
    Result<void> release(const SlotRef& slot);
    Result<metadata::Durability> durability_in_force(const metadata::VolumeRecord& record);
    std::vector<volume::ReplicaPlace> places_of(const std::vector<replication::Member>& members);
    std::vector<volume::ReplicaPlace> places_to_start(
        VolumeId volume, const std::vector<replication::Member>& members);
    Result<void> wait_for_pools(const SlotRef& slot, VolumeId volume);

    // volumes_cluster.cc
    bool is_clustered() const;
    /// Whether this host looks after it.
    bool is_mine(const metadata::VolumeRecord& volume);
    bool is_mine(const metadata::AttachmentRecord& attachment);
    bool has_primary_here(const replication::Membership& record) const;
    bool has_member_here(const replication::Membership& record) const;
    /// Refuses what only another host can do: `what` it is.
    api::ApiResult<void> check_here(const metadata::InstanceRecord& instance,
                                    const std::string& what);
    api::ApiResult<void> check_here(const metadata::AttachmentRecord& attachment,
                                    const std::string& what);
    peer::Hello word_of(VolumeId volume) const;
    /// That there is something new of the volume; ok when it has looked.
    Result<void> tell_host(HostId host, VolumeId volume);
    static HostId host_of_primary(const replication::Membership& record);
    void tell_members(VolumeId volume);
    void prepare_wanted(const SlotRef& slot, const metadata::VolumeRecord& volume);
    void await_places(const metadata::VolumeRecord& volume, std::vector<Candidate>& candidates);
    void settle_sessions(const SlotRef& slot, const metadata::VolumeRecord& volume);
    void forget_fenced(const metadata::AttachmentRecord& attachment);
    void take_over_if_away(const SlotRef& slot, const metadata::VolumeRecord& volume,
                           const replication::Membership& record);
    void seal_members_here(const SlotRef& slot, const replication::Membership& record);
    bool is_away(HostId host);
    std::string name_of_host(HostId host);
    bool has_lasted(const SlotRef& slot, bool lost);
    bool waits_for_a_host(const SlotRef& slot, VolumeId volume);
    void replace_away_primary(const SlotRef& slot, const metadata::VolumeRecord& volume);
    api::ApiResult<api::AttachmentView> detach_elsewhere(const metadata::VolumeRecord& volume,
                                                         metadata::AttachmentRecord attachment);
    void end_if_forced_off(VolumeId volume, const SlotRef& slot);
    Result<void> await_session(const SlotRef& slot, const metadata::VolumeRecord& volume,
                               const metadata::AttachmentRecord& attachment);
    void open_wanted(const SlotRef& slot, const metadata::VolumeRecord& volume);
    void look_for_others(const metadata::VolumeRecord& volume);
    void heed_word(const metadata::VolumeRecord& volume);
    void tell_of_lost(const metadata::VolumeRecord& volume);
    Result<std::shared_ptr<RunningVolume>> start_for_others(const SlotRef& slot,
                                                            const metadata::VolumeRecord& volume);
    std::shared_ptr<RunningVolume> try_to_serve(const SlotRef& slot,
                                                const metadata::VolumeRecord& volume);
    std::vector<std::pair<VolumeId, SlotRef>> running_slots();
    void end_if_idle(VolumeId volume, const SlotRef& slot);
    void end_deleted(VolumeId volume, const SlotRef& slot);
    void end_serving(VolumeId volume, const SlotRef& slot);
    Result<std::shared_ptr<RunningVolume>> serve_others(const SlotRef& slot,
                                                        const metadata::VolumeRecord& volume);

    // volumes_create.cc
    api::ApiResult<api::VolumeView> create_one(VolumeId volume,
                                               const api::CreateVolumeRequest& request);
    api::ApiResult<unsigned> decide_replicas(const api::CreateVolumeRequest& request,
                                             const std::vector<UsablePool>& usable);
    void await_creation(VolumeId volume);
    api::ApiResult<std::optional<api::VolumeView>> known_token(
        const api::CreateVolumeRequest& request);
    api::ApiResult<void> store_intent(metadata::VolumeRecord& record,
                                      const api::CreateVolumeRequest& request,
                                      std::vector<Candidate>& candidates);
    api::ApiResult<void> found_volume(const metadata::VolumeRecord& record,
                                      std::vector<Candidate>& candidates);
    void roll_back_create(VolumeId volume);
    Result<void> finish_create(VolumeId volume);

    // volumes_attach.cc
    api::ApiResult<api::AttachmentView> attach_one(const api::AttachRequest& request);
    api::ApiResult<metadata::AttachmentRecord> check_attach(const api::AttachRequest& request,
                                                            metadata::VolumeRecord& volume);
    api::ApiResult<void> check_attach_another(const metadata::VolumeRecord& volume,
                                              const std::string& name,
                                              const metadata::InstanceRecord& instance);
    api::ApiResult<void> store_attaching(const metadata::VolumeRecord& volume,
                                         metadata::AttachmentRecord& attachment);
    /// Starts the volume and its front end; records what device it got. `recovering`: a device of a
    /// former daemon is taken over where there is one.
    Result<void> bring_up(const SlotRef& slot, const metadata::VolumeRecord& volume,
                          metadata::AttachmentRecord& attachment, bool recovering);
    Result<void> start_ublk(const SlotRef& slot, RunningVolume& running, block::BlockDevice* device,
                            metadata::AttachmentRecord& attachment, bool recovering);
    Result<void> store_attached(metadata::AttachmentRecord& attachment, bool recovering);
    Result<void> take_down(const SlotRef& slot, const metadata::AttachmentRecord& attachment,
                           bool force);
    Result<void> erase_attachment(const metadata::AttachmentRecord& attachment);
    static bool serves(const SlotRef& slot);
    static bool is_stopping(const SlotRef& slot);
    static bool has_front(const SlotRef& slot);
    Result<std::vector<std::string>> users_of(const SlotRef& slot,
                                              const metadata::AttachmentRecord& attachment);
    Result<void> carry_out_detach(const SlotRef& slot,
                                  const metadata::AttachmentRecord& attachment);
    void detach_goes_on(const SlotRef& slot, const metadata::AttachmentRecord& attachment,
                        const Error& error);
    /// The volume's attachment, to the instance where one is named ("": to whatever).
    api::ApiResult<metadata::AttachmentRecord> find_attachment(const metadata::VolumeRecord& volume,
                                                               const std::string& name,
                                                               const std::string& instance);
    api::ApiResult<void> detach_one_terminating(VolumeId volume, InstanceId instance);
    api::ApiResult<void> check_detach_answers(const metadata::AttachmentRecord& attachment);
    /// Who has the attachment's device open, or is connected; "": nobody.
    api::ApiResult<std::string> use_of(const SlotRef& slot,
                                       const metadata::AttachmentRecord& attachment);
    /// DeviceInUse where somebody uses it.
    api::ApiResult<void> check_unused(const SlotRef& slot,
                                      const metadata::AttachmentRecord& attachment);
    api::ApiResult<api::AttachmentView> detach_one(const metadata::VolumeRecord& volume,
                                                   metadata::AttachmentRecord attachment,
                                                   bool force);
    Result<void> set_state(metadata::AttachmentRecord& attachment, metadata::AttachmentState state);

    // volumes_recover.cc
    bool is_due(const metadata::AttachmentRecord& attachment);
    bool is_due(const metadata::VolumeRecord& volume);
    /// With the slot's operation held.
    void bring_back(const SlotRef& slot, VolumeId volume);
    bool finish_one(const metadata::VolumeRecord& record);
    void recover_attachment(metadata::AttachmentRecord attachment);
    bool is_left(const SlotRef& slot, const metadata::AttachmentRecord& attachment);
    void look_at_reactors();
    void look_for_a_stop(const SlotRef& slot, const metadata::AttachmentRecord& attachment);
    std::vector<std::shared_ptr<RunningVolume>> running_volumes(bool (*which)(const Slot&));
    void end_volume(const SlotRef& slot);
    /// False: the device is in use and the detach was not forced, so the attachment stays.
    bool recover_detach(const SlotRef& slot, metadata::AttachmentRecord& attachment);
    Result<std::vector<front::ublk::FoundDevice>> left_devices(
        const metadata::AttachmentRecord& attachment);
    Result<void> remove_left_devices(const metadata::AttachmentRecord& attachment);
    Result<std::vector<std::string>> users_of_left_devices(
        const metadata::AttachmentRecord& attachment);
    /// Devices without a server that are this host's: given back to their attachments, or removed.
    void adopt_left_devices();
    void adopt_for(const metadata::VolumeRecord& volume,
                   std::vector<front::ublk::FoundDevice> left);
    void remove_surplus_device(const metadata::VolumeRecord& volume, std::uint32_t number);
    void try_disks_of_others(const SlotRef& but, PoolId pool);
    void finish_joining(VolumeId volume, ReplicaId replica);

    // volumes_repair.cc
    /// Those of hosts that answer.
    std::vector<UsablePool> usable_pools();
    std::set<std::string> domains_of_members(const std::vector<replication::Member>& members);
    bool lost_a_member(const replication::Membership& record,
                       const std::vector<replication::Member>& usable);
    Result<void> replace_lost_member(const SlotRef& slot, const metadata::VolumeRecord& volume,
                                     const replication::Membership& record);
    std::optional<Candidate> resume_candidate(const metadata::VolumeRecord& volume,
                                              const replication::Membership& record,
                                              const std::set<std::string>& taken,
                                              PoolId failed_target);
    std::vector<UsablePool> targets(VolumeId volume, const std::set<std::string>& taken,
                                    PoolId failed_target);
    std::optional<Candidate> new_candidate(const metadata::VolumeRecord& volume,
                                           const replication::Membership& record,
                                           const std::set<std::string>& taken,
                                           PoolId failed_target);
    void give_up_replica(const metadata::VolumeRecord& volume, ReplicaId replica, PoolId pool);
    void revoke_permission_of(ReplicaId replica);
    /// One step towards a volume that is whole; with the slot's operation held. False where it
    /// failed.
    bool repair_one(const SlotRef& slot, const metadata::VolumeRecord& volume);
    bool add_replica(const SlotRef& slot, const metadata::VolumeRecord& volume,
                     const Candidate& candidate);
    void could_not_begin(const metadata::VolumeRecord& volume, const Candidate& candidate,
                         const Error& error);

    // volumes_drain.cc
    std::optional<replication::Member> leaving_member(const metadata::VolumeRecord& volume,
                                                      const replication::Membership& record);
    std::vector<replication::Member> staying_members(const replication::Membership& record);
    std::uint64_t used_bytes(const replication::Membership& record);
    std::vector<UsablePool> with_room(std::vector<UsablePool> pools, std::uint64_t used_bytes);
    bool may_leave(const metadata::VolumeRecord& volume, const replication::Membership& record);
    bool move_replica(const SlotRef& slot, const metadata::VolumeRecord& volume,
                      const replication::Membership& record, const replication::Member& leaving,
                      PoolId failed_target);
    Result<void> let_go(const SlotRef& slot, const metadata::VolumeRecord& volume,
                        const replication::Membership& record, const replication::Member& leaving);
    void take_over_from_drained(const SlotRef& slot, const metadata::VolumeRecord& volume);

    // volumes_drain_view.cc
    struct DrainLook {
        std::set<PoolId> drained;
        std::vector<UsablePool> usable;  // of hosts that answer, and not drained
        std::map<HostId, bool> away;     // those that were asked
    };
    /// Where a replica may go; or what it waits for, and the next command.
    struct Move {
        std::vector<UsablePool> to;
        std::string waits_for, next;
    };
    DrainLook look_for_drains(std::set<PoolId> drained);
    bool is_away(DrainLook& look, HostId host);
    std::string places_text(const std::vector<UsablePool>& pools);
    Move move_of(DrainLook& look, const metadata::VolumeRecord& volume,
                 const replication::Membership& record);
    Move move_of(DrainLook& look, const metadata::ReplicaRecord& replica);
    api::DrainView drain_view(DrainLook& look, const metadata::PoolRecord& pool);
    void add_drains(const metadata::VolumeRecord& volume, api::VolumeView& view);
    api::FindingView drain_finding(const api::ReplicaView& replica);
    std::string drained_text();
    api::ApiResult<api::PlanView> plan_drain(const std::vector<metadata::PoolRecord>& pools);

    // volumes_return.cc
    /// Of a replica that is no member: what the records say of it from now on.
    metadata::ReplicaState state_without(const metadata::ReplicaRecord& replica, bool whole,
                                         ReplicaId joining);
    std::vector<metadata::ReplicaRecord> lost_replicas(VolumeId volume);
    /// What a lost replica waits for before it returns; "": for nothing.
    std::string waits_for(const metadata::ReplicaRecord& replica,
                          const std::set<std::string>& taken);
    std::optional<Candidate> returning_candidate(const SlotRef& slot,
                                                 const metadata::VolumeRecord& volume,
                                                 const replication::Membership& record);
    void give_up_lost(const metadata::ReplicaRecord& replica, const std::string& why);
    bool holds_a_place(VolumeId volume, const metadata::ReplicaRecord& replica);
    /// Whether records say what the membership does not: a step that failed may have left them so.
    bool is_behind(VolumeId volume, const replication::Membership& record);
    std::vector<unsigned> places_to_have(const metadata::VolumeRecord& volume,
                                         const replication::Membership& record);
    /// As many as may be held now: one more while a replica moves.
    unsigned places_now(const metadata::VolumeRecord& volume);
    std::optional<unsigned> make_place_free(const metadata::VolumeRecord& volume,
                                            const replication::Membership& record);
    Result<void> set_returning(ReplicaId replica);
    void add_lost(const metadata::VolumeRecord& record, const replication::Membership& membership,
                  api::VolumeView& view);

    // volumes_why.cc
    api::FindingView replica_finding(const api::ReplicaView& replica);

    // volumes_restored.cc
    Result<void> report_volume(VolumeId volume, const std::vector<FoundReplica>& found);
    /// What a volume waits for whose membership was restored; "": it is none.
    std::string waits_after_restore(VolumeId volume);

    // volumes_delete.cc
    api::ApiResult<void> delete_one(VolumeId volume, const std::string& name, bool dry_run);
    api::ApiResult<void> finish_delete(const metadata::VolumeRecord& record);

    // volumes_membership.cc
    struct AtRest {
        SlotRef slot;
        Operation operation;
        std::unique_lock<std::mutex> life;
    };
    api::ApiResult<AtRest> keep_at_rest(VolumeId volume);

    // volumes_view.cc
    api::ApiResult<api::VolumeView> view_of(const metadata::VolumeRecord& record);
    api::AttachmentView attachment_view(const metadata::AttachmentRecord& record);
    /// Why the member cannot be used now: its pool, or its folder is not there; "": it can.
    std::string trouble_of(const replication::Member& member);
    void add_health(const metadata::VolumeRecord& record, api::VolumeView& view);
    void add_health_of_attachment(const metadata::AttachmentRecord& record,
                                  const api::AttachmentView& attachment, api::VolumeView& view);
    void add_health_at_rest(const replication::Membership& record, api::VolumeView& view);
    void add_health_running(const volume::VolumeStatus& status, ReplicaId returning,
                            api::VolumeView& view);

    Core core_;
    std::function<void()> changed_;
    BootWait boot_wait_;
    std::uint64_t peers_ = 0;  // that have connected; on the worker's thread
    std::mutex mutex_;         // of the map
    std::map<VolumeId, SlotRef> slots_;
    std::string report_trouble_;  // why this host cannot report after a restore
    std::atomic<bool> ending_ = false;
    Steps peer_steps_;
    std::unique_ptr<io::Worker> worker_;  // what reactors post
};

}  // namespace ublkd::daemon
