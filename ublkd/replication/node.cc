#include "ublkd/replication/node.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::replication {
namespace {

constexpr std::size_t kProposalHeaderBytes = 16;
constexpr std::uint32_t kAuthorityRetryMs = 100;
constexpr std::uint32_t kAuthorityRetryMaxMs = 2000;

}  // namespace

std::vector<std::byte> encode(const Proposal& proposal) {
    const auto record = encode(proposal.next);
    std::vector<std::byte> bytes(kProposalHeaderBytes);
    store_le<std::uint64_t>(bytes.data(), proposal.proposer.value());
    store_le<std::uint64_t>(bytes.data() + 8, proposal.base_number);
    bytes.insert(bytes.end(), record.begin(), record.end());
    return bytes;
}

Result<Proposal> decode_proposal(std::span<const std::byte> bytes) {
    if (bytes.size() < kProposalHeaderBytes) return fail(Errc::kCorrupt, "pending proposal: length");
    Proposal proposal;
    proposal.proposer = ReplicaId(load_le<std::uint64_t>(bytes.data()));
    proposal.base_number = load_le<std::uint64_t>(bytes.data() + 8);
    TRY_ASSIGN(proposal.next, decode_membership(bytes.subspan(kProposalHeaderBytes)));
    return proposal;
}

Node::Node(const NodeConfig& config, Effects* effects, AppliedIds* ids)
    : config_(config), effects_(effects), ids_(ids), locks_(config.lock_unit_bytes) {
    CHECK(config.region_bytes % config.copy_bytes == 0, "a region is copied in whole parts");
}

// ---- starting

void Node::start(const NodeStart& start) {
    record_ = start.record;
    number_ = start.record ? start.record->number : 0;
    pending_ = start.pending;
    in_sync_ = start.in_sync || (start.record && faults::rule_off("rule.boot_check"));
}

void Node::begin(const Membership& record, const std::vector<ReplicaId>& missing) {
    CHECK(record.number >= number_, "a record that is older than the disk's is refused by the driver");
    missing_ = missing;
    if (pending_ && pending_->base_number == record.number) {
        // R4: it may arrive late, so its outcome is made certain before anything is acknowledged.
        record_ = record;
        number_ = record.number;
        proposal_ = pending_;
        pending_.reset();
        resolving_ = true;
        send_proposal();
        return;
    }
    pending_.reset();
    if (!record.has(config_.self.replica)) {
        role_ = Role::kOut;
    } else if (record.primary != config_.self.replica) {
        role_ = Role::kSecondary;
    } else if (in_sync_) {
        take_over(record);
    } else {
        record_ = record;
        number_ = record.number;
        probe();
    }
}

void Node::replace_primary(const Membership& record, const std::vector<ReplicaId>& missing) {
    CHECK(in_sync_ && record.has(config_.self.replica), "only an in-sync member takes over");
    missing_ = missing;
    record_ = record;
    number_ = record.number;
    role_ = Role::kSecondary;
    propose_handover();
}

void Node::propose_handover() {
    Membership next = *record_;
    ++next.number;
    next.primary = config_.self.replica;
    std::erase_if(next.members, [&](const Member& member) {
        return member.replica == record_->primary ||
               std::find(missing_.begin(), missing_.end(), member.replica) != missing_.end();
    });
    propose(std::move(next));
}

// ---- inputs

void Node::on_message(const Message& message) {
    // R1: another volume's message, or one for another incarnation, is none of ours.
    if (message.volume != config_.volume || message.to != config_.self.replica) return;
    switch (message.type) {
        case MessageType::kRequest: on_request(message); break;
        case MessageType::kRelease: on_release(message); break;
        case MessageType::kReplicate:
        case MessageType::kCopy: on_replicate(message); break;
        case MessageType::kReplicated: on_replicated(message); break;
        case MessageType::kConfirm: on_confirm(message); break;
        case MessageType::kConfirmed: on_confirmed(message); break;
        case MessageType::kAdopt: on_adopt(message); break;
        case MessageType::kAdopted: on_adopted(message); break;
        case MessageType::kProbe: {
            Message answer;
            answer.in_sync = in_sync_;
            reply(message, MessageType::kProbed, answer);
            break;
        }
        case MessageType::kProbed: on_probed(message); break;
        case MessageType::kTakeOver:
            if (in_sync_ && role_ == Role::kSecondary && !proposal_ && !adopting_ && message.record->number >= number_) {
                record_ = *message.record;
                number_ = record_->number;
                propose_handover();
            }
            break;
        case MessageType::kCopied: on_copied(message); break;
        case MessageType::kFetch: on_fetch(message); break;
        case MessageType::kFetched: on_fetched(message); break;
        case MessageType::kClear:
            if (from_primary(message)) effects_->clear_activity(*message.regions);
            break;
        case MessageType::kFinish: on_finish(message); break;
        case MessageType::kFinished: on_finished(message); break;
        case MessageType::kAnswer:
        case MessageType::kMoved: break;    // a client's
    }
    run();
}

void Node::on_disk(std::uint64_t token, Result<void> result) {
    CHECK(disk_open_ > 0, "a result for each request to the disk");
    --disk_open_;
    if (Op* const op = ops_.find(token); op != nullptr) {
        op_disk_done(*op, result);
    } else if (Apply* const apply = applies_.find(token); apply != nullptr) {
        apply_disk_done(*apply, result);
    }
    if (adopting_ && role_ != Role::kServing && disk_open_ == 0 && applies_.count() == 0) drained();
    run();
}

void Node::on_extent(std::uint64_t token, Result<block::Extent> extent) {
    if (Op* const op = ops_.find(token); op != nullptr) join_probed(*op, extent);
    run();
}

void Node::on_buffer(std::uint64_t token, BufferRef buffer) {
    if (Op* const op = ops_.find(token); op != nullptr) {
        op->buffer = buffer;
        if (op->step == Step::kBuffer) {
            if (op->copy == Copy::kNone) std::copy(op->data.begin(), op->data.end(), buffer.bytes.begin());
            issue(*op);
        } else if (op->step == Step::kFetch) {
            read_failed(*op, op->error);
        }
    } else if (Apply* const apply = applies_.find(token); apply != nullptr) {
        apply->buffer = buffer;
        ++disk_open_;
        effects_->disk({.token = token, .kind = OpKind::kRead, .range = apply->request.range,
                        .into = buffer.bytes.first(apply->request.range.length_bytes)});
    } else {
        effects_->release_buffer(buffer.handle);
    }
    run();
}

void Node::on_timer(TimerKind kind) {
    timers_[static_cast<std::size_t>(kind)] = false;
    switch (kind) {
        case TimerKind::kAuthority:
            if (proposal_ && !proposal_sent_) send_proposal();
            break;
        case TimerKind::kFull: retry_full(); break;
        case TimerKind::kBits: clear_bits(); break;
        case TimerKind::kCopy: next_join_copy(); break;
    }
    run();
}

void Node::on_peer_lost(ReplicaId replica, const Error& cause) {
    if (Peer* const peer = find_peer(replica); peer != nullptr) fail_peer(*peer, cause);
    run();
}

void Node::stop() {
    leave_primary();
    proposal_.reset();
    role_ = Role::kOut;
    run();
}

/// One timer of a kind at a time.
void Node::start_timer(TimerKind kind, std::uint32_t milliseconds) {
    if (!std::exchange(timers_[static_cast<std::size_t>(kind)], true)) effects_->start_timer(kind, milliseconds);
}

/// What became possible by the input that was just taken: locks that were granted.
void Node::run() {
    while (RangeLock* const lock = locks_.take_granted()) {
        if (Op* const op = ops_.find(lock->owner); op != nullptr && op->step == Step::kLock) locked(*op);
    }
}

// ---- messages

Message Node::message_to(ReplicaId to, MessageType type) const {
    Message message;
    message.type = type;
    message.volume = config_.volume;
    message.from = config_.self.replica;
    message.to = to;
    message.number = number_;
    return message;
}

void Node::reply(const Message& request, MessageType type, Message& answer) const {
    answer.type = type;
    answer.kind = request.kind;
    answer.volume = config_.volume;
    answer.from = config_.self.replica;
    answer.to = request.from;
    answer.number = number_;
    answer.token = request.token;
    answer.id = request.id;
    effects_->send(answer);
}

/// R1: the answer to a message under an older number, with the record that it does not know.
void Node::refuse(const Message& message, MessageType type) {
    Message answer;
    answer.failed = true;
    answer.error = Error{Errc::kStale, 0, "older number"};
    const std::optional<Membership>& newest = adopting_ ? adopting_ : record_;
    if (newest && newest->number > message.number) answer.record = std::make_shared<const Membership>(*newest);
    reply(message, type, answer);
}

/// R1: a greater number is taken over with its record alone: from the message, otherwise from the authority.
void Node::learn(const Message& message) {
    if (message.record) {
        adopt(*message.record);
    } else if (message.number > number_ && !std::exchange(asking_, true)) {
        effects_->ask_authority();
    }
}

void Node::trouble(const char* text) const {
    effects_->notice({.kind = Notice::Kind::kTrouble, .replica = config_.self.replica, .text = text});
}

// ---- the superblock

void Node::store(Storing what) {
    CHECK(storing_ == Storing::kNothing, "one change of the superblock at a time");
    storing_ = what;
    store_now();
}

void Node::store_now() {
    static const std::optional<Proposal> no_proposal;
    StoreRequest request;
    request.token = ++store_token_;
    request.pending = &no_proposal;
    switch (storing_) {
        case Storing::kNothing: return;
        case Storing::kPending:
            request.record = &*record_;
            request.pending = &proposal_;
            request.in_sync = in_sync_;
            break;
        case Storing::kRecord: {
            const bool member = adopting_->has(config_.self.replica);
            const bool by_loss = loss_takeover_ || (adopt_request_ && adopt_request_->in_sync);
            storing_number_ = adopting_->number;
            request.record = &*adopting_;
            request.in_sync = member && (in_sync_ || by_loss);
            break;
        }
        case Storing::kJoinBegin: storing_number_ = adopting_->number; break;
        case Storing::kJoinFinish:
            request.record = &*record_;
            request.in_sync = true;
            break;
    }
    effects_->store(request);
}

void Node::on_stored(std::uint64_t token, Result<void> result) {
    if (token != store_token_ || storing_ == Storing::kNothing) return;
    if (!result && result.error().code == Errc::kNoSpace) {
        store_waits_ = true;
        start_timer(TimerKind::kFull, kAuthorityRetryMs);
        return;    // retry_full() stores again; a full pool puts nobody out
    }
    const Storing what = std::exchange(storing_, Storing::kNothing);
    if (result) {
        stored(what);
    } else {
        store_failed(what, result.error());
    }
    // Another one came meanwhile.
    if (adopting_ && storing_ == Storing::kNothing &&
        (role_ == Role::kServing || (disk_open_ == 0 && applies_.count() == 0)))
        drained();
    reconsider();
    run();
}

void Node::stored(Storing what) {
    switch (what) {
        case Storing::kNothing: break;
        case Storing::kPending:
            faults::hit("repl.pending_stored");
            if (proposal_ && !adopting_) send_proposal();
            break;
        case Storing::kRecord:
        case Storing::kJoinBegin:
            faults::hit("repl.record_stored");
            if (!adopting_ || adopting_->number != storing_number_) break;    // a newer one came meanwhile
            record_stored();
            break;
        case Storing::kJoinFinish:
            faults::hit("repl.join_marked");
            in_sync_ = true;
            if (finish_request_) {
                Message answer;
                reply(*finish_request_, MessageType::kFinished, answer);
                finish_request_.reset();
            }
            break;
    }
}

void Node::store_failed(Storing what, const Error& error) {
    switch (what) {
        case Storing::kNothing: break;
        case Storing::kPending:
            proposal_.reset();    // it was not sent
            for (Peer& peer : peers_) peer.needed = peer.member;
            fail_self(error);
            break;
        case Storing::kRecord:
        case Storing::kJoinBegin:
            if (adopt_request_) {
                Message answer;
                answer.failed = true;
                answer.error = error;
                reply(*adopt_request_, MessageType::kAdopted, answer);
                adopt_request_.reset();
                adopting_.reset();
                role_ = Role::kOut;
                break;
            }
            // A primary's: the record counts (it is the authority's), but this disk holds nothing any more.
            if (!self_failed_ && adopting_->has(config_.self.replica))
                effects_->notice({.kind = Notice::Kind::kLost, .replica = config_.self.replica, .cause = error});
            self_failed_ = error;
            record_stored();
            break;
        case Storing::kJoinFinish:
            if (finish_request_) {
                Message answer;
                answer.failed = true;
                answer.error = error;
                reply(*finish_request_, MessageType::kFinished, answer);
                finish_request_.reset();
            }
            break;
    }
}

// ---- R4: proposals

void Node::propose(Membership next) {
    CHECK(!proposal_ && !adopting_, "one proposal at a time");
    proposal_ = Proposal{config_.self.replica, number_, std::move(next)};
    proposal_sent_ = false;
    for (Peer& peer : peers_) {
        if (peer.replica && proposal_->next.has(peer.replica)) peer.needed = true;
    }
    // A primary whose disk failed can't store it; it never acknowledges again either.
    if (self_failed_ || storing_ != Storing::kNothing || faults::rule_off("rule.pending_first")) {
        send_proposal();
    } else {
        store(Storing::kPending);
    }
}

void Node::send_proposal() {
    proposal_sent_ = true;
    const Proposal proposal = *proposal_;
    effects_->propose(proposal);
    faults::hit("repl.proposal_sent");
}

void Node::retry_authority() {
    ++authority_failures_;
    proposal_sent_ = false;
    const std::uint64_t doublings = std::min<std::uint64_t>(authority_failures_ - 1, 5);
    start_timer(TimerKind::kAuthority, std::min(kAuthorityRetryMs << doublings, kAuthorityRetryMaxMs));
}

void Node::on_outcome(Result<Verdict> verdict, const Membership* current) {
    if (!proposal_ || !proposal_sent_) return;
    // The old number read back says nothing: the proposal may still arrive, so the same one is sent again.
    if (!verdict || (*verdict == Verdict::kDeclined && (current == nullptr || current->number <= number_))) {
        if (verdict) trouble("the authority declined a proposal under its own number");
        retry_authority();
        run();
        return;
    }
    authority_failures_ = 0;
    faults::hit("repl.authorized");
    const bool ours = *verdict != Verdict::kDeclined;
    const Membership next = ours ? proposal_->next : *current;
    const std::vector<ReplicaId> missing = missing_;
    proposal_.reset();
    if (std::exchange(resolving_, false)) {
        begin(next, missing);
    } else {
        if (ours && std::exchange(loss_proposal_, false)) loss_takeover_ = true;
        adopt(next);
    }
    run();
}

void Node::on_current(Result<const Membership*> current) {
    asking_ = false;
    if (current && *current != nullptr && (*current)->number > number_ && !proposal_) adopt(**current);
    run();
}

// ---- records

/// Takes over a record with a greater number that came from the authority or from an authenticated peer with the record.
void Node::adopt(const Membership& record) {
    if (record.number <= number_ || (adopting_ && adopting_->number >= record.number)) return;
    proposal_.reset();
    adopting_ = record;
    const bool primary_here = record.primary == config_.self.replica;
    if (!primary_here && (role_ == Role::kServing || role_ == Role::kPreparing)) leave_primary();
    if (!record.has(config_.self.replica)) {
        role_ = Role::kOut;
    } else if (!primary_here) {
        role_ = Role::kSecondary;
    } else if (role_ != Role::kServing) {
        role_ = Role::kPreparing;
    }
    if (role_ == Role::kServing || (disk_open_ == 0 && applies_.count() == 0)) drained();
}

/// No own disk request of the older number is open any more (a serving primary's count on): the record may be stored.
void Node::drained() {
    if (storing_ != Storing::kNothing || !adopting_) return;
    const bool joins = adopt_request_ && adopt_request_->joining;
    if (self_failed_) {
        record_stored();
        return;
    }
    store(joins ? Storing::kJoinBegin : Storing::kRecord);
}

void Node::record_stored() {
    const Membership before = record_ ? *record_ : *adopting_;
    was_in_sync_ = in_sync_;
    record_ = std::move(*adopting_);
    adopting_.reset();
    number_ = record_->number;
    const bool joins = adopt_request_ && adopt_request_->joining;
    joining_here_ = joins;
    if (joins) {
        role_ = Role::kSecondary;
        in_sync_ = false;
    } else if (loss_takeover_ || (adopt_request_ && adopt_request_->in_sync)) {
        in_sync_ = true;
    }
    if (!record_->has(config_.self.replica) && !joins) in_sync_ = false;
    if (!joins) effects_->notice({.kind = Notice::Kind::kRecord, .replica = config_.self.replica, .record = &*record_});
    if (adopt_request_) {
        ops_.for_each([&](Op& op) { drop(op); });
        answer_adopt();
        return;
    }
    if (role_ == Role::kSecondary || role_ == Role::kOut) {
        ops_.for_each([&](Op& op) { drop(op); });
        // A primary that handed over tells its successor, after its own disk has become quiet.
        if (before.primary == config_.self.replica && record_->primary != config_.self.replica) {
            Message message = message_to(record_->primary, MessageType::kAdopt);
            message.record = std::make_shared<const Membership>(*record_);
            effects_->send(message);
        }
        return;
    }
    set_peers();
    for (Peer& peer : peers_) {
        if (peer.replica && !peer.failed) invite(peer);
    }
    if (role_ == Role::kPreparing) {
        prepared();
        return;
    }
    if (join_.replica && record_->has(join_.replica)) {
        if (const Peer* const peer = find_peer(join_.replica); peer != nullptr && !peer->failed)
            effects_->notice({.kind = Notice::Kind::kJoined, .replica = join_.replica});
        join_ = Join{};
    }
    // Acknowledgements and confirmations were given under the old number: what is open is asked for again (R2).
    round_running_ = 0;
    start_round();
    ops_.for_each([&](Op& op) { settle(op); });
    reconsider();
}

void Node::set_peers() {
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        Peer& peer = peers_[place];
        if (!peer.replica) continue;
        peer.member = record_->has(peer.replica);
        if (peer.member) peer.joining = false;
        peer.needed = peer.member || (peer.joining && join_.copied);
        peer.ready = false;
        peer.confirmed = false;
        if (peer.joining) join_.asked = join_.finished = false;    // it stores the new number first
        if (peer.member || peer.joining) continue;
        peer = Peer{};
        forget_acks(place);
    }
    for (const Member& member : record_->members) {
        if (member.replica == config_.self.replica || find_peer(member.replica) != nullptr) continue;
        const auto free = std::find_if(peers_.begin(), peers_.end(), [](const Peer& peer) { return !peer.replica; });
        CHECK(free != peers_.end(), "a place for each other member");
        *free = Peer{.replica = member.replica, .member = true, .needed = true};
        if (std::find(missing_.begin(), missing_.end(), member.replica) != missing_.end()) {
            free->failed = Error{Errc::kNotFound, 0, "the replica can't be opened"};
            effects_->notice({.kind = Notice::Kind::kLost, .replica = free->replica, .cause = *free->failed});
        }
    }
}

Node::Peer* Node::find_peer(ReplicaId replica) {
    const auto found = std::find_if(peers_.begin(), peers_.end(),
                                    [&](const Peer& peer) { return peer.replica == replica && peer.replica; });
    return found == peers_.end() ? nullptr : &*found;
}

/// R7 (2), and each later number: the peer closes what is older, drains, stores the record and answers.
void Node::invite(Peer& peer) {
    Message message = message_to(peer.replica, MessageType::kAdopt);
    message.record = std::make_shared<const Membership>(*record_);
    message.takeover = role_ == Role::kPreparing;
    message.joining = peer.joining;
    message.in_sync = message.takeover && loss_takeover_;
    if (message.takeover) message.ids = std::make_shared<const IdList>(ids_->list());
    effects_->send(message);
}

/// What is open is sent (again): its id makes that harmless (R8).
void Node::peer_ready(Peer& peer) {
    peer.ready = true;
    ops_.for_each([&](Op& op) {
        const Ack& ack = op.acks[place_of(peer)];
        const bool owed = op.step == Step::kLingering && peer.joining && ack.sent && !ack.done;
        if ((op.step == Step::kIssued || owed) && wants(op, peer)) replicate(op, peer);
        if (op.step == Step::kRepair) repair_read(op);
    });
    if (std::exchange(peer.begun, true))
        ops_.for_each([&](Op& op) { settle(op); });    // some waited to be sent to it
    if (round_running_ != 0 && peer.needed) {
        Message message = message_to(peer.replica, MessageType::kConfirm);
        message.value = round_running_;
        effects_->send(message);
    }
}

/// Proposes what the state of members and disks asks for, when nothing is being decided (R5, R12).
void Node::reconsider() {
    if (role_ != Role::kServing && role_ != Role::kPreparing) return;
    if (proposal_ || adopting_ || storing_ != Storing::kNothing || !record_) return;
    Membership next = *record_;
    ++next.number;
    std::erase_if(next.members, [&](const Member& member) {
        const Peer* const peer = find_peer(member.replica);
        return peer != nullptr && peer->failed;
    });
    if (self_failed_) {
        std::erase_if(next.members, [&](const Member& member) { return member.replica == config_.self.replica; });
        if (next.members.empty()) {
            give_up_changes();    // the last member is never removed: its errors go to the guest
            return;
        }
        const Peer* const heir = find_peer(next.members.front().replica);
        if (heir == nullptr || !heir->ready) return;
        next.primary = heir->replica;
        propose(std::move(next));
        return;
    }
    if (next.members.size() < record_->members.size()) {
        propose(std::move(next));
    } else if (join_.finished && role_ == Role::kServing) {
        next.members.push_back(join_.member);
        propose(std::move(next));
    }
}

}  // namespace ublkd::replication
