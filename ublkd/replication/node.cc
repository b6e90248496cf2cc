#include "ublkd/replication/node.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::replication {
namespace {

constexpr std::size_t kProposalHeaderBytes = 16;

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
    if (bytes.size() < kProposalHeaderBytes)
        return fail(Errc::kCorrupt, "pending proposal: length");
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
    const bool member = record_ && record_->has(config_.self.replica);
    member_number_ = member ? number_ : 0;
    durable_through_ = start.durable_through;
    cleared_through_ = start.cleared_through;
    lost_ = start.lost;
}

void Node::begin(const Membership& record, const std::vector<ReplicaId>& missing) {
    CHECK(record.number >= number_,
          "a record that is older than the disk's is refused by the driver");
    missing_ = missing;
    // One of a member that is out of sync and not primary answers for nothing here (R9).
    const bool settles = in_sync_ || record.primary == config_.self.replica;
    if (pending_ && pending_->base_number == record.number && settles) {
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
    std::vector<ReplicaId> others;
    for (const Member& member : record_->members) {
        if (member.replica != record_->primary && !is_missing(member.replica))
            others.push_back(member.replica);
    }
    propose_self(others);
}

/// The next number with this node as primary, and as members itself and `others`.
void Node::propose_self(const std::vector<ReplicaId>& others) {
    Membership next = *record_;
    ++next.number;
    next.primary = config_.self.replica;
    std::erase_if(next.members, [&](const Member& member) {
        return member.replica != config_.self.replica &&
               std::find(others.begin(), others.end(), member.replica) == others.end();
    });
    propose(std::move(next));
}

bool Node::is_missing(ReplicaId replica) const {
    return std::find(missing_.begin(), missing_.end(), replica) != missing_.end();
}

// ---- inputs

void Node::on_message(const Message& message) {
    // R1: another volume's message, or one for another incarnation, is none of ours.
    const bool ours = message.volume == config_.volume && message.to == config_.self.replica;
    if (!ours && !faults::rule_off("rule.own_messages")) return;
    switch (message.type) {
        case MessageType::kRequest:
            on_request(message);
            break;
        case MessageType::kRelease:
            on_release(message);
            break;
        case MessageType::kReplicate:
        case MessageType::kCopy:
            on_replicate(message);
            break;
        case MessageType::kReplicated:
            on_replicated(message);
            break;
        case MessageType::kConfirm:
            on_confirm(message);
            break;
        case MessageType::kConfirmed:
            on_confirmed(message);
            break;
        case MessageType::kAdopt:
            on_adopt(message);
            break;
        case MessageType::kAdopted:
            on_adopted(message);
            break;
        case MessageType::kProbe: {
            Message answer;
            answer.in_sync = in_sync_ && !self_failed_;
            if (number_ > message.number && record_)
                answer.record = std::make_shared<const Membership>(*record_);
            reply(message, MessageType::kProbed, answer);
            break;
        }
        case MessageType::kProbed:
            on_probed(message);
            break;
        case MessageType::kTakeOver:
            if (in_sync_ && role_ == Role::kSecondary && !proposal_ && !adopting_ &&
                message.record->number >= number_) {
                record_ = *message.record;
                number_ = record_->number;
                propose_handover();
            }
            break;
        case MessageType::kCopied:
            on_copied(message);
            break;
        case MessageType::kFetch:
            on_fetch(message);
            break;
        case MessageType::kFetched:
            on_fetched(message);
            break;
        case MessageType::kMark:
        case MessageType::kMarked:
            on_mark(message);
            break;
        case MessageType::kClear:
            if (!from_primary(message)) break;
            cleared_through_ = message.through;
            effects_->clear_activity(*message.regions, message.through);
            break;
        case MessageType::kExamine:
            on_examine(message);
            break;
        case MessageType::kExamined:
            on_examined(message);
            break;
        case MessageType::kFinish:
            on_finish(message);
            break;
        case MessageType::kFinished:
            on_finished(message);
            break;
        case MessageType::kHealth:
            on_health(message);
            break;
        case MessageType::kHealthy:
            on_healthy(message);
            break;
        case MessageType::kFailover:
            on_failover(message);
            break;
        case MessageType::kPong:
            on_pong(message);
            break;
        case MessageType::kAnswer:
        case MessageType::kMoved:
        case MessageType::kPing:
            break;  // a client's
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
    } else if (Check* const check = checks_.find(token); check != nullptr) {
        check->disk_open = false;
        check->disk_done = true;  // a sector that can't be read is R14's
    }
    if (adopting_ && role_ != Role::kServing && quiet()) drained();
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
            if (op->copy == Copy::kNone)
                std::copy(op->data.begin(), op->data.end(), buffer.bytes.begin());
            issue(*op);
        } else if (op->step == Step::kFetch) {
            fetch(*op);
        }
    } else if (Apply* const apply = applies_.find(token); apply != nullptr) {
        apply->buffer = buffer;
        ++disk_open_;
        effects_->disk({.token = token,
                        .kind = OpKind::kRead,
                        .range = apply->request.range,
                        .into = buffer.bytes.first(apply->request.range.length_bytes)});
    } else if (Check* const check = checks_.find(token); check != nullptr) {
        check->buffer = buffer;
        check->disk_open = true;
        ++disk_open_;
        effects_->disk({.token = token,
                        .kind = OpKind::kRead,
                        .range = {0, kPageBytes},
                        .into = buffer.bytes.first(kPageBytes)});
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
        case TimerKind::kFull:
            retry_full();
            break;
        case TimerKind::kBits:
            mark_bits();
            flush_for_bits();
            break;
        case TimerKind::kCopy:
            next_join_copy();
            break;
        case TimerKind::kProbe:
            // Its question, or the word to the member that is to take over, may have been lost.
            if (!proposal_ && !adopting_ && !in_sync_ && record_->primary == config_.self.replica &&
                (role_ == Role::kProbing || role_ == Role::kSecondary))
                probe();
            break;
        case TimerKind::kFailover:
            failover_timed_out();
            break;
        case TimerKind::kPing:
            pings_timed_out();
            break;
        case TimerKind::kCut:
            cut_timed_out();
            break;
    }
    run();
}

void Node::on_peer_lost(ReplicaId replica, const Error& cause) {
    if (replica == config_.self.replica) {
        fail_self(cause);
    } else if (Peer* const peer = find_peer(replica); peer != nullptr) {
        fail_peer(*peer, cause);
    }
    run();
}

void Node::stop() {
    leave_primary();
    proposal_.reset();
    role_ = Role::kOut;
    run();
}

/// One timer of a kind at a time; false: one runs already.
bool Node::start_timer(TimerKind kind, std::uint32_t milliseconds) {
    if (std::exchange(timers_[static_cast<std::size_t>(kind)], true)) return false;
    effects_->start_timer(kind, milliseconds);
    return true;
}

/// What became possible by the input that was just taken: reads whose range somebody has now, or
/// certainly nobody; what a cut waited for, or what waited for it; locks that were granted.
void Node::run() {
    if (fetches_wait_ > 0) {
        ops_.for_each([&](Op& op) {
            if (op.fetch_waits) fetch(op);
        });
    }
    if (checks_.count() > 0) answer_checks();
    if (cut_.token != 0) drain_cut();
    if (behind_cut_ && cut_.token == 0) go_on_after_cut();
    while (RangeLock* const lock = locks_.take_granted()) {
        if (Op* const op = ops_.find(lock->owner); op != nullptr && op->step == Step::kLock)
            locked(*op);
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
    message.through = durable_through_;
    message.cleared = cleared_through_;
    return message;
}

void Node::reply(const Message& request, MessageType type, Message& answer) const {
    answer.type = type;
    answer.kind = request.kind;
    answer.volume = config_.volume;
    answer.from = config_.self.replica;
    answer.to = request.from;
    answer.number = number_;
    answer.through = durable_through_;
    answer.cleared = cleared_through_;
    answer.token = request.token;
    answer.route = request.route;
    answer.id = request.id;
    answer.cut = request.cut;
    effects_->send(answer);
}

/// R1: the answer to a message under an older number, with the record that it does not know.
void Node::refuse(const Message& message, MessageType type) {
    Message answer;
    answer.failed = true;
    answer.error = Error{Errc::kStale, 0, "older number"};
    const std::optional<Membership>& newest = adopting_ ? adopting_ : record_;
    if (newest && newest->number > message.number)
        answer.record = std::make_shared<const Membership>(*newest);
    reply(message, type, answer);
}

/// R1: a greater number is taken over with its record alone: from the message, otherwise from the
/// authority.
void Node::learn(const Message& message) {
    if (message.record) {
        adopt(*message.record);
    } else if (message.number > number_ && !std::exchange(asking_, true)) {
        effects_->ask_authority();
    }
}

void Node::trouble(const char* text) const {
    effects_->notice(
        {.kind = Notice::Kind::kTrouble, .replica = config_.self.replica, .text = text});
}

}  // namespace ublkd::replication
