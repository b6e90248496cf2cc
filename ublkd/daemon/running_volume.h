// A volume that is started: the volume::Volume on its lane's reactor, seen from threads that may
// block. Started for an attachment, a verify or a copy, stopped when nobody uses it (volumes.h
// counts). Views may hold it a moment longer: after stop() they get nothing.
//
// Thread-safe; calls block until the lane has answered where they do not say otherwise. stop()
// comes before the destructor.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <set>

#include "ublkd/daemon/core.h"
#include "ublkd/peer/greeting.h"
#include "ublkd/volume/volume.h"

namespace ublkd::daemon {

class RunningVolume : public std::enable_shared_from_this<RunningVolume> {
  public:
    static Result<std::shared_ptr<RunningVolume>> start(const Core& core,
                                                        const metadata::VolumeRecord& record,
                                                        std::vector<volume::ReplicaPlace> places,
                                                        volume::VolumeEvents* events);
    RunningVolume(const RunningVolume&) = delete;
    RunningVolume& operator=(const RunningVolume&) = delete;
    ~RunningVolume();

    Result<void> stop();
    /// Its front end has come to its end, so that no request of before is sent again (R8).
    void front_ended() { retries_ = volume::Retries::kNone; }
    /// Writes that wait for space fail, now and from now on, so that a front end can come to its
    /// end; or again as configured.
    void fail_when_full(bool fail);
    /// The volume's policy from now on. Returns at once.
    void set_on_full(volume::OnFull on_full);
    /// In force until the volume is stopped: its front end told the guest of a cache, or of none.
    metadata::Durability durability() const { return durability_; }
    /// kClosed: it was stopped. kTimedOut: its reactor does not answer (questions.h).
    Result<volume::VolumeStatus> status();
    /// Volume::known(). Errors as of status().
    Result<replication::HostReport> known();
    Result<void> add_replica(volume::ReplicaPlace place);
    /// Another volume's replica in `pool` was lost by its disk. Returns at once.
    void try_disks(PoolId pool);
    /// Its files are to be removed. Returns at once.
    void close_replica(ReplicaId replica);
    /// The membership goes on without it. kBusy: not now.
    Result<void> let_go(ReplicaId replica, std::uint64_t number);
    // Of a cluster:
    /// A connection of another host, whose hello is answered with `own`, or refused.
    Result<void> accept(io::SocketInTransit socket, peer::Greeted greeted);
    unsigned connections_of_others();
    /// Who asks here from now on. kBusy: requests of a former one are open still.
    Result<void> set_attachment(AttachmentId attachment,
                                volume::Retries of_former = volume::Retries::kMayCome);
    /// R15. kBusy: the primary is elsewhere.
    Result<void> set_attachments(std::vector<AttachmentId> wanted,
                                 std::vector<AttachmentId> taken_off);
    /// R6, on an operator's word: asks a member here that is none of `but` to be primary, also
    /// where the primary is well. Returns at once.
    void take_over(std::set<ReplicaId> but);
    /// For a primary on another host to bring in.
    Result<void> open_replica(volume::ReplicaPlace place);
    Result<volume::VerifyReport> verify(volume::OnDifference on_difference);
    /// A verify that runs ends soon, with kCancelled; so does one that comes later.
    void end_verify();
    /// For front ends, on the lane's reactor, while they hold a use of the volume.
    volume::Volume& device() { return *volume_; }
    Lane& lane() { return *lane_; }

  private:
    explicit RunningVolume(Lane* lane) : lane_(lane) {}
    Lane* lane_;
    peer::Hello own_;  // to other hosts
    volume::OnFull configured_on_full_ = volume::OnFull::kWait;
    metadata::Durability durability_ = metadata::Durability::kFlush;
    std::atomic<volume::Retries> retries_ = volume::Retries::kMayCome;
    std::unique_ptr<volume::Volume> volume_;  // on the lane\'s reactor alone
};

}  // namespace ublkd::daemon
