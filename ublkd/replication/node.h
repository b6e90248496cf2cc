// One replica's part in the protocol (docs/replication.md): primary, secondary, joining member, or
// none of them. A pure state machine: inputs are messages, results of its disk and the authority,
// and timers; outputs are Effects. No thread, clock or socket; equal inputs give equal outputs.
//
// Place in the write path: a client (client.h) sends a request to the primary's node; the node
// takes the range lock, applies it to its own disk and sends it to the other members beside that,
// and answers when all of them have it.
//
// Files: node.cc (inputs), record.cc (record, proposals, peers), primary.cc and acknowledging.cc
// (requests), takeover.cc (R7, R9), copying.cc (copies of R7 and R12), failing.cc (R5, R14, full
// pools), secondary.cc, health.cc (R6), sessions.cc (R15), cuts.cc (R18). Owner: the driver, on the
// volume's reactor. Invariants: acknowledged or read => on every member of the record; what is
// acknowledged under a number was stored by all of its members; nothing is answered between sending
// a proposal and knowing its outcome unless old and proposed members have it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "ublkd/replication/applied_ids.h"
#include "ublkd/replication/effects.h"
#include "ublkd/replication/message.h"
#include "ublkd/replication/range_lock.h"
#include "ublkd/replication/slab.h"

namespace ublkd::replication {

struct NodeConfig {
    VolumeId volume;
    Member self;
    std::uint64_t size_bytes = 0;
    std::uint32_t lock_unit_bytes = kPageBytes;
    std::uint32_t region_bytes = kRegionBytes;   // of the activity map
    std::uint32_t unit_bytes = kDirtyUnitBytes;  // of a dirty map; divides a region
    std::uint32_t copy_bytes = kMaxIoBytes;      // of one copy; divides a region
    std::uint64_t copy_bytes_per_second = 0;     // R12; 0: no limit
    bool wait_on_full = true;
    /// Each change is durable on all members before it is answered: nobody else flushes, so the
    /// node does, for its activity bits (R10).
    bool durable_changes = false;
    /// R6: how long a member has for saying that it could acknowledge now. 0: all members and
    /// clients live in this process, and nothing that is asked can be lost.
    std::uint32_t health_ms = 0;
};

/// What the superblock says when the node starts.
struct NodeStart {
    std::optional<Membership> record;  // nullopt: was never a member
    std::optional<Proposal> pending;
    bool in_sync = false;               // this boot's id or the clean mark (R9)
    std::uint64_t durable_through = 0;  // R10
    std::uint64_t cleared_through = 0;
    LostMembers lost{};  // R11
};

enum class Role : std::uint8_t {
    kOut,        // not a member, or not started
    kSecondary,  // a member, or joining
    kProbing,    // R9: primary of the record, out of sync: asks whether all restarted
    kPreparing,  // R7: primary, not yet serving
    kServing,
};

class Node {
  public:
    Node(const NodeConfig& config, Effects* effects, AppliedIds* ids);
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    // Inputs.
    void start(const NodeStart& start);
    /// `record` is the authority's. `missing`: members whose replica can't be opened here; their
    /// host is this one, so they serve nowhere and restarted when this one did.
    void begin(const Membership& record, const std::vector<ReplicaId>& missing);
    /// The primary of `record` is among `missing`: propose this node, an in-sync member, in its
    /// place (R6 where both live in one process).
    void replace_primary(const Membership& record, const std::vector<ReplicaId>& missing);
    /// R12: bring `member` in; its node has been started. What differs is copied where it was a
    /// member and there is a map that fits (R11), else all. False: not now.
    bool add(const Member& member);
    /// R5 on an operator's word: the membership goes on without `replica`, whose disk may be well.
    /// False: not now, or it is this node, or no other member.
    bool let_go(ReplicaId replica);
    void on_message(const Message& message);
    void on_disk(std::uint64_t token, Result<void> result);
    void on_stored(std::uint64_t token, Result<void> result);
    void on_extent(std::uint64_t token, Result<block::Extent> extent);
    void on_marked(std::uint64_t through, Result<void> result);
    void on_buffer(std::uint64_t token, BufferRef buffer);
    void on_outcome(Result<Verdict> verdict, const Membership* current);
    void on_current(Result<const Membership*> current);
    void on_timer(TimerKind kind);
    /// A member, or this one, can't be reached or its disk failed outside a request.
    void on_peer_lost(ReplicaId replica, const Error& cause);
    /// Takes part no longer; what it still had open has ended when open_ops() is 0.
    void stop();

    /// R15: who may send requests, by the next number: the primary's, and to be said again to the
    /// next one. Requests without an attachment are the host's own.
    /// Errors: kBusy: not primary; kInvalidArgument: one twice, or more than kMaxAttachments.
    Result<void> set_attachments(std::vector<AttachmentId> attachments);
    /// Who asked `route` is gone, its connection closed. True: what was asked is over, and its
    /// memory is used no more: it had not begun, or it was a kHold. False: it has begun, and its
    /// answer comes as ever. A kCut holds until its time is over, since it may be asked for again.
    bool on_asker_gone(std::uint64_t route);

    /// R15: the record that is stored here has it no more, and nothing of it is under way.
    bool fenced(AttachmentId attachment);

    /// The policy for a full pool from now on. Those that wait are tried once more at once.
    void set_wait_on_full(bool wait);

    // What it is, for status.
    Role role() const { return role_; }
    bool in_sync() const { return in_sync_; }
    const std::optional<Membership>& record() const { return record_; }
    /// Also one that is being stored.
    const std::optional<Membership>& newest_record() const {
        return adopting_ ? adopting_ : record_;
    }
    /// Without an outcome; also one that the disk could not store.
    const std::optional<Proposal>& proposal() const { return proposal_; }
    std::uint64_t number() const { return number_; }
    bool proposing() const { return proposal_.has_value(); }
    std::uint64_t authority_failures() const { return authority_failures_; }
    std::uint64_t waiting_for_space() const { return full_count_; }
    std::uint64_t regions_to_copy() const { return to_copy_.size(); }
    ReplicaId joining() const { return join_.replica; }
    std::uint64_t union_total_regions() const { return to_copy_total_; }
    std::uint64_t join_done_bytes() const { return join_.done_bytes; }
    std::uint64_t join_total_bytes() const { return join_.total_bytes; }
    std::uint64_t durable_through() const { return durable_through_; }
    const std::optional<Error>& self_failed() const { return self_failed_; }
    /// Requests, and what is being applied here for a primary, which waits for the answer.
    std::uint64_t open_ops() const { return ops_.count() + applies_.count() + checks_.count(); }
    const Member& self() const { return config_.self; }

  private:
    static constexpr std::uint32_t kClearBitsMs = 5000;    // R10: how often
    static constexpr std::uint32_t kLongestCutMs = 60000;  // that changes wait for one asker
    static constexpr std::uint32_t kFullRetryMs = 50;      // at first; doubles
    static constexpr std::size_t kMaxPeers = kMaxMembers;  // two others and one that joins

    struct Peer {
        ReplicaId replica;    // none: a free place
        bool member = false;  // of the current record
        bool joining = false;
        bool begun = false;   // joining, and copies have begun: it gets every change from then on
        bool needed = false;  // acknowledgements need it: a member, or proposed as one
        bool ready = false;   // has stored the current number: gets what is replicated
        bool confirmed = false;  // R2, in the round that runs
        std::optional<Error> failed{};
    };

    enum class Copy : std::uint8_t {
        kNone,
        kUnion,
        kJoin,
        kAsked,  // kMakeEqual: a client waits for it
    };
    enum class Step : std::uint8_t {
        kQueued,  // until this node serves
        kRegion,  // until its region was copied (R7)
        kLock,
        kBuffer,  // until there is memory for the private copy (R13), or for a copy's content
        kIssued,
        kFetch,      // R14: the range is being read from a peer, or waits for one that has it
        kRewrite,    // R14: and written to the own disk
        kRepair,     // a full pool, policy fail: all members are brought back to one content
        kHeld,       // kHold, kCut: until kRelease
        kDraining,   // kCut: until nothing that it is to have is under way
        kBehindCut,  // a change, until the cut is over
        kLingering,  // answered; a peer has not: its range stays locked and its memory is kept
                     // until then
    };

    /// What one other member has of a request. `number`: under which it was sent. Of a read that
    /// asks for its range (R14): `done` where the peer can't read it either.
    struct Ack {
        std::uint64_t number = 0;
        std::uint32_t open = 0;  // messages that it has not answered, under any number
        bool sent = false;
        bool done = false;
        bool full = false;  // answered kNoSpace
    };

    struct Op {
        std::uint64_t token = 0;
        OpKind kind{};
        Copy copy = Copy::kNone;
        Step step = Step::kQueued;
        bool fua = false;
        bool keep_allocated = false;
        bool mark_only = false;    // R8: a known id
        bool flush_after = false;  // R8: it came again, and others are to be durable with it
        bool internal = false;     // a flush of this node's own: nobody is answered
        bool own_sent = false;     // a request to the own disk is under way
        bool own_done = false;
        bool own_full = false;
        bool own_failed =
            false;  // held until the primary was handed over, or the error goes to the guest
        bool counted_full = false;
        bool fetch_waits = false;  // counted in fetches_wait_
        bool dropped =
            false;  // this node serves no longer: told to the client when its disk is done with it
        bool in_flight = false;       // counted in its regions
        bool zeroes = false;          // of a copy: a hole
        Range range{};                // what is being applied: the change, or a piece of it
        Range change{};               // all of it
        std::vector<Range> pieces{};  // R8: of one that came again, to be applied after `range`
        std::shared_ptr<const IdList> ids{};  // what a peer says of the content that came from it
        RequestId id{};
        std::uint64_t client_token = 0;
        std::uint64_t client_route = 0;
        AttachmentId attachment{};
        std::uint64_t losses = 0;        // R9: that the client knows
        std::uint64_t cut = 0;           // R18
        std::uint32_t hold_ms = 0;       // of a kCut
        std::uint64_t round = 0;         // R2: the confirmation that a read needs
        std::uint64_t durable_tick = 0;  // of a flush: what had completed when it began
        std::span<const std::byte> data{};
        std::span<std::byte> into{};
        BufferRef buffer{};
        RangeLock lock{};
        std::array<Ack, kMaxPeers> acks{};
        std::uint32_t open_messages = 0;  // to peers, not answered yet: they may use our memory
        std::size_t source =
            0;  // kRepair: whose content counts: a peer's place; kMaxPeers: the own disk
        bool repair_writing = false;
        Error error{Errc::kIo};
        bool failed = false;
    };

    /// A request, no copy of the primary's own.
    static bool is_request(const Op& op) {
        return op.copy == Copy::kNone || op.copy == Copy::kAsked;
    }

    /// A request of the primary being applied here, as secondary.
    struct Apply {
        std::uint64_t token = 0;
        Message request;
        BufferRef buffer{};
        std::uint8_t step = 0;
    };

    /// R6: a client asked this secondary to take over.
    struct Failover {
        Message request;
        std::uint64_t token = 0;
        std::size_t open = 0;              // questions without an answer
        bool healthy = false;              // the primary
        bool others = false;               // and it serves other attachments
        std::vector<ReplicaId> members{};  // who else answered
        bool timed = false;                // the timer that runs was started for it
    };
    /// R6: somebody asked this primary whether it could acknowledge now.
    struct Check {
        std::uint64_t token = 0;
        Message request{};
        BufferRef buffer{};
        bool disk_open = false;
        bool disk_done = false;
        std::uint64_t round = 0;
        std::size_t pings = 0;  // attachments that have not answered yet
        std::size_t attached = 0;
        bool timed = false;  // the timer that runs was started for its pings
    };

    /// R18: one at a time.
    struct Cut {
        std::uint64_t token = 0;   // of its request; 0: none
        std::uint64_t number = 0;  // under which all members had it
        bool timed = false;        // the timer that runs was started for it
    };

    struct Region {
        std::uint32_t in_flight = 0;
        std::uint64_t last_tick = 0;  // when its last change had completed on all members
    };

    struct Join {
        ReplicaId replica;
        Member member{};
        bool examined = false;
        bool by_map = false;
        RegionSet active{};         // there
        UnitSet units{};            // by_map: what is to be copied
        std::size_t next_unit = 0;  // of `units`
        std::uint64_t cursor = 0;   // all before it is copied, as far as it is to be
        std::uint64_t done_bytes = 0;
        std::uint64_t total_bytes = 0;
        bool copied = false;
        bool asked = false;     // to finish, under this number
        bool finished = false;  // flushed and marked: may be proposed
    };

    /// R10: bits to be cleared when all members have marked.
    struct Marking {
        std::uint64_t through = 0;  // 0: none is under way
        std::uint64_t tick = 0;
        RegionSet regions{};
        bool own_done = false;
        std::array<bool, kMaxPeers> done{};
    };

    enum class Storing : std::uint8_t { kNothing, kPending, kRecord, kJoinBegin, kJoinFinish };

    using Ops = Slab<Op, 1>;
    using Applies = Slab<Apply, 2>;
    using Checks = Slab<Check, 3>;

    // node.cc, record.cc
    Message message_to(ReplicaId to, MessageType type) const;
    void reply(const Message& request, MessageType type, Message& answer) const;
    void refuse(const Message& message, MessageType type);
    void learn(const Message& message);
    void store(Storing what);
    void store_now();
    void store_again();
    void store_next();
    LostMembers lost_after(const Membership& next) const;
    void stored(Storing what);
    void store_failed(Storing what, const Error& error);
    void propose(Membership next);
    void send_proposal();
    void adopt(const Membership& record);
    bool quiet() const;
    void drained();
    void propose_handover();
    void propose_self(const std::vector<ReplicaId>& others);
    bool is_missing(ReplicaId replica) const;
    void record_stored();
    void leave_primary();
    void retry_authority();
    void withdraw(const Membership& current);
    bool start_timer(TimerKind kind, std::uint32_t milliseconds);
    void reconsider();
    void run();
    Peer* find_peer(ReplicaId replica);
    void tell_members();
    void set_peers();
    void invite(Peer& peer);
    void peer_ready(Peer& peer);
    void confirm_too(const Peer& peer);
    std::size_t place_of(const Peer& peer) const {
        return static_cast<std::size_t>(&peer - peers_.data());
    }
    void trouble(const char* text) const;

    // takeover.cc
    void take_over(const Membership& record);
    void on_adopted(const Message& message);
    void prepared();
    void serve();
    void probe();
    void on_probed(const Message& message);
    void decide_after_probe();

    // primary.cc, acknowledging.cc
    bool applied_before(const RequestId& id) const;
    void leave_out_overwritten(Op& op);
    static std::span<const std::byte> payload(const Op& op);
    void next_part(Op& op);
    static std::shared_ptr<const IdList> noted_after(const Op& op);
    void on_request(const Message& message);
    void on_release(const Message& message);
    void start_op(Op& op);
    void locked(Op& op);
    void issue(Op& op);
    void issue_own(Op& op);
    void replicate(Op& op, Peer& peer);
    void start_round();
    void on_confirmed(const Message& message);
    void on_replicated(const Message& message);
    void op_disk_done(Op& op, const Result<void>& result);
    void settle(Op& op);
    void fail_op(Op& op, const Error& error);
    void finish(Op& op);
    Message message_to_client(const Op& op, MessageType type) const;
    void answer(const Op& op);
    void drop(Op& op);
    void free_op(Op& op);
    void linger(Op& op);
    void forget_acks(std::size_t place);
    Ack* message_answered(Op& op, const Message& message);
    void touch(Op& op);
    void untouch(Op& op);
    std::uint32_t first_region(const Range& range) const;
    std::uint32_t end_region(const Range& range) const;
    bool wants(const Op& op, const Peer& peer) const;
    void mark_bits();
    void on_mark(const Message& message);
    void all_marked();
    void flush_for_bits();

    // copying.cc
    void next_union_copy();
    void union_copied(Op& op);
    bool has_union_target() const;
    static bool union_goes_to(const Op& op, const Peer& peer);
    void end_union_copies();
    void on_examine(const Message& message);
    void on_examined(const Message& message);
    UnitSet open_units();
    void plan_join();
    Range next_to_copy();
    void next_join_copy();
    void join_probed(Op& op, const Result<block::Extent>& extent);
    void join_copied(Op& op);
    void finish_join();
    void on_finished(const Message& message);
    void abort_join(const Error& cause);
    static Error source_failed(const Error& error);
    void on_copied(const Message& message);
    void asked_copied(Op& op, const Message& message);

    // failing.cc
    bool proposed(const Peer& peer) const;
    bool nobody_left() const;
    void fail_peer(Peer& peer, const Error& cause);
    void go_on_without(Peer& peer, const Error& cause);
    void fail_self(const Error& cause);
    void give_up_changes();
    void read_failed(Op& op, const Error& error);
    void fetch(Op& op);
    void unreadable(Op& op);
    bool may_get_a_source(const Op& op) const;
    void on_fetched(const Message& message);
    void rewrite_done(Op& op, const Result<void>& result);
    void full(Op& op);
    static bool gets_changes(const Peer& peer);
    void retry_full();
    void repair(Op& op);
    void repair_read(Op& op);
    void repair_from(Op& op, IdList ids);
    void repair_write(Op& op);
    void repair_done(Op& op);

    // health.cc
    bool may_take_over() const;
    void failover_timed_out();
    void pings_timed_out();
    void on_failover(const Message& message);
    void on_healthy(const Message& message);
    void decide_failover();
    void on_health(const Message& message);
    void on_pong(const Message& message);
    void answer_checks();

    // sessions.cc
    bool attached(AttachmentId attachment) const;
    std::optional<Error> session_over(const Op& op) const;
    void end_sessions();

    // cuts.cc
    void start_cut(Op& op);
    void drain_cut();
    void cut_counts(Op& op);
    void check_cut(Op& op);
    void cut_timed_out();
    bool waits_behind_cut(const Op& op) const;
    void end_cut(Op& op);
    void go_on_after_cut();

    // secondary.cc
    bool from_primary(const Message& message) const;
    void on_replicate(const Message& message);
    void on_confirm(const Message& message);
    void on_adopt(const Message& message);
    void on_finish(const Message& message);
    void on_fetch(const Message& message);
    void apply_disk_done(Apply& apply, const Result<void>& result);
    void apply_done(Apply& apply, const Result<void>& result, std::uint64_t value);
    void answer_adopt(bool joined);

    NodeConfig config_;
    Effects* effects_;
    AppliedIds* ids_;

    Role role_ = Role::kOut;
    bool in_sync_ = false;
    std::uint64_t number_ = 0;  // of record_: durable here
    std::optional<Membership> record_;
    std::vector<ReplicaId> missing_;
    std::optional<Error> self_failed_;
    std::uint64_t member_number_ = 0;    // of the record in the superblock, which has this replica
    std::uint64_t durable_through_ = 0;  // R10, as in the superblock
    std::uint64_t cleared_through_ = 0;
    std::uint64_t greatest_mark_ = 0;  // that a member has
    LostMembers lost_{};               // R11, as in the superblock

    // A record on its way to the superblock.
    std::optional<Membership> adopting_;
    std::optional<Message> adopt_request_;  // to be answered when it is stored (secondary)
    std::optional<Message> finish_request_;
    bool was_in_sync_ = false;   // before the record that is being adopted
    bool joining_here_ = false;  // this node is a joining member of record_->primary
    bool new_join_ = false;      // what is noted here is of before, or of a join that was given up
    Storing storing_ = Storing::kNothing;
    std::uint64_t store_token_ = 0;
    std::uint64_t storing_number_ = 0;  // of the record that is being stored
    bool store_waits_ = false;          // found no space: retry_full() stores again
    LostMembers storing_lost_{};

    // R4.
    std::optional<Proposal> proposal_;
    bool proposal_sent_ = false;
    bool proposal_waits_ = false;  // to be stored, until another store has ended
    bool loss_takeover_ = false;   // R9: a loss number of this boot was authorized: members that
                                   // restarted too count, their regions are copied
    bool came_late_ = false;       // another's proposal came before this node's
    bool resolving_ = false;       // the pending proposal found at the start is being sent again
    std::optional<Proposal> pending_;  // found at the start
    std::uint64_t authority_failures_ = 0;
    bool asking_ = false;
    std::array<bool, kTimerKinds> timers_{};

    // Primary.
    std::array<Peer, kMaxPeers> peers_{};
    Ops ops_;
    RangeLocks locks_;
    std::map<std::uint32_t, Region> regions_;
    std::uint64_t tick_ = 0;
    std::uint64_t durable_tick_ = 0;
    Marking marking_;
    std::optional<Message> mark_request_;  // to be answered when its mark is stored (secondary)
    std::uint64_t bits_flush_ = 0;         // token of the flush for the activity bits; 0: none
    std::uint64_t fetches_wait_ = 0;       // reads whose range nobody can give at this moment (R14)
    std::uint64_t round_running_ = 0;      // 0: none
    std::uint64_t round_done_ = 0;
    std::uint64_t round_started_ = 0;
    std::uint64_t round_wanted_ = 0;
    std::vector<std::uint64_t> round_reads_;  // tokens of reads that wait for a confirmation
    std::uint64_t full_count_ = 0;
    std::uint32_t full_wait_ms_ = 0;
    std::size_t probes_open_ = 0;
    std::vector<ReplicaId> probed_in_sync_;
    bool probe_failed_ = false;  // somebody could not be asked
    std::uint64_t probe_round_ = 0;

    // R6, R15.
    std::optional<Failover> failover_;
    std::optional<Message> failover_asker_;  // of what is proposed
    std::uint64_t failovers_ = 0;
    Checks checks_;
    std::optional<std::vector<AttachmentId>> attachments_;  // as they are to be

    // R18.
    Cut cut_;
    bool behind_cut_ = false;  // changes may wait for the end of one

    // Copies.
    RegionSet to_copy_;  // R7: regions that are not served yet, ascending
    std::uint64_t to_copy_total_ = 0;
    std::uint64_t union_op_ = 0;  // token of the copy that runs
    std::uint32_t union_region_ = 0;
    std::uint64_t union_offset_ = 0;            // in its region; 0: the next region is to be chosen
    std::optional<std::uint32_t> union_first_;  // a region that a request waits for
    Join join_;
    std::uint64_t join_op_ = 0;

    // Secondary.
    Applies applies_;
    std::uint64_t disk_open_ = 0;  // own requests to the disk that have not ended
};

/// Bytes for the superblock (R4), and back. Errors: kCorrupt.
std::vector<std::byte> encode(const Proposal& proposal);
Result<Proposal> decode_proposal(std::span<const std::byte> bytes);

}  // namespace ublkd::replication
