// A volume: the BlockDevice that front ends serve. It drives the replication core
// (ublkd/replication) for those members that live in this process, each over its own
// store::ReplicaStore, and keeps guest requests queued over a change of members or primary. Place
// in the write path: step 2 of 4 (front, volume, replication, store).
//
// Owner: the daemon, through a unique_ptr; used, stopped and destroyed on the thread of the reactor
// it was started on. Invariants: a completed write or an answered read is on every member of the
// record; nothing is served before the authority's record was read (R7). See docs/volume.md and
// docs/replication.md.
#pragma once

#include <memory>
#include <set>

#include "ublkd/block/block_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/task.h"
#include "ublkd/peer/greeting.h"
#include "ublkd/replication/authority_client.h"
#include "ublkd/volume/volume_types.h"

namespace ublkd::volume {

/// Called on the volume's reactor from inside its steps: must not block, and must not call the
/// volume back (post instead).
class VolumeEvents {
  public:
    virtual ~VolumeEvents() = default;
    virtual void membership_changed(VolumeId volume, const replication::Membership& record) = 0;
    /// A replica left the members, or a joining one gave up. `cause`: its disk's error.
    virtual void member_lost(VolumeId volume, const replication::Member& member,
                             const Error& cause) = 0;
    /// The replica is a member now, after so many bytes were copied to it.
    virtual void sync_finished(VolumeId volume, ReplicaId replica, std::uint64_t copied_bytes) = 0;
    /// What an operator should know: text, one line.
    virtual void trouble(VolumeId volume, const std::string& text) = 0;
};

class Volume final : public block::BlockDevice {
  public:
    /// `buffers` of all calls: the pool of the reactor's stores, not the one that front ends take
    /// requests' memory from, so that neither waits for the other. It outlives the volume.
    ///
    /// Opens the members of the authority's record and starts as R7 and R9 say (a member of number
    /// 1 that was never written may lack a record of its own); ends when the volume serves (copies
    /// may still run behind it). `events` may be nullptr. Errors: kNotFound (no record), kIo (no
    /// replica usable), kStale, kTimedOut (nobody serves within config.start_limit; its text says
    /// what that waits for), the authority's.
    static io::Task<Result<std::unique_ptr<Volume>>> start(io::Reactor* reactor,
                                                           io::BufferPool* buffers,
                                                           VolumeConfig config,
                                                           replication::AuthorityClient* authority,
                                                           VolumeEvents* events);
    ~Volume() override;

    const block::Geometry& geometry() const override;

    /// Waits for open requests, flushes, marks the members clean and closes them. Later requests
    /// give kClosed. Comes before the destructor. An error: a member could not be marked clean (it
    /// is recopied at the next start). Where no retries come the tables of applied ids are deleted.
    io::Task<Result<void>> stop(Retries retries = Retries::kMayCome);

    /// A connection of another host for this volume, after the hellos (config.cluster is set).
    void accept(io::Socket socket, peer::Greeted greeted);

    /// R6, on an operator's word: a member of this host that is in sync, and none of `but`, asks to
    /// be primary, whether the primary is well or not. The record says what came of it.
    void take_over(const std::set<ReplicaId>& but = {});
    /// R5, on an operator's word: the membership goes on without this member, whose primary is
    /// here and has the record of this number. kBusy: not so or not now, or it is the primary
    /// itself. Returns at once; events tell when it is
    /// done.
    Result<void> let_go(ReplicaId replica, std::uint64_t number);
    /// That are there now, of members and of clients.
    unsigned connections_of_others() const;
    /// Who asks here from now on (none: nobody is attached here). config.cluster is set.
    /// Where no retries of the former one come, what it knew of losses is forgotten (R9). Errors:
    /// kBusy (requests are open still), the run folder's.
    Result<void> set_attachment(AttachmentId attachment, Retries of_former = Retries::kMayCome);
    /// R15: only these may send requests. When this has ended those that the record had beside them
    /// are fenced, and so are `taken_off`: which may have left the record before, with requests
    /// under way still. The next primary is to be told again. Errors: kBusy (the primary is on
    /// another host: ask there), kInvalidArgument (one twice, or more than 16), kTimedOut (by
    /// `deadline`; it goes on).
    io::Task<Result<void>> set_attachments(std::vector<AttachmentId> wanted,
                                           std::vector<AttachmentId> taken_off,
                                           io::Clock::time_point deadline);

    VolumeStatus status() const;
    /// R16: the records and open proposals of its members in this process, for a report; also those
    /// that no superblock has yet.
    replication::HostReport known() const;
    /// From now on. With kFail, writes that wait for space fail too (kNoSpace), so that a front end
    /// can come to its end.
    void set_on_full(OnFull on_full);

    /// Members in `pool` show whether their disk works: each writes its superblock again, and is
    /// lost where it can't. Returns at once.
    void try_disks(PoolId pool);
    /// One that is no member any more, and never will be: its files are to be removed. Returns at
    /// once; it is closed soon, where it is open.
    void close_replica(ReplicaId replica);

    /// Opens a replica of this host, or makes it, for a primary on another host to bring in.
    io::Task<Result<void>> open_replica(ReplicaPlace place);
    /// Brings in a replica: makes its folder (or takes the one that an interrupted call left; one
    /// of another host is open there), copies all to it while the volume serves, then proposes it
    /// as a member. Ends when the copy has begun; status() and events tell the rest. Errors: kBusy
    /// (one is joining already), kExists (is a member), kExhausted (three members), kIo, kNoSpace.
    io::Task<Result<void>> add_replica(ReplicaPlace place);

    /// Compares all members with the primary byte for byte, each range under its lock while the
    /// volume serves. Errors: kBusy, kIo (a range cannot be read, or not be repaired), kClosed,
    /// kCancelled (stop() or end_verify() came).
    io::Task<Result<VerifyReport>> verify(OnDifference on_difference = OnDifference::kReport);
    /// Each verify() ends soon, those that come later too: the volume is going to stop.
    void end_verify();

  private:
    class Driver;
    explicit Volume(std::unique_ptr<Driver> driver);
    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override;
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    block::WriteOptions options) override;
    io::Task<Result<void>> do_flush() override;
    io::Task<Result<void>> do_discard(Range range, block::WriteOptions options) override;
    io::Task<Result<void>> do_write_zeroes(Range range, block::ZeroOptions options) override;
    io::Task<Result<std::vector<block::Extent>>> do_block_status(Range range,
                                                                 std::size_t max_extents) override;

    std::unique_ptr<Driver> driver_;
};

}  // namespace ublkd::volume
