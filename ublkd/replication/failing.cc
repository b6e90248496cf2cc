// R5 (losing a member, or the primary's own disk), R14 (unreadable ranges) and full pools.
#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {
namespace {

constexpr std::uint32_t kFullRetryMaxMs = 2000;

}  // namespace

/// R4: a joining replica that may be a member by now, or is one by a record that is being stored.
bool Node::proposed(const Peer& peer) const {
    return (proposal_ && proposal_->next.has(peer.replica)) ||
           (adopting_ && adopting_->has(peer.replica));
}

void Node::fail_peer(Peer& peer, const Error& cause) {
    if (peer.failed) return;
    if (peer.joining && !proposed(peer)) {
        abort_join(cause);
        return;
    }
    effects_->notice({.kind = Notice::Kind::kLost, .replica = peer.replica, .cause = cause});
    go_on_without(peer, cause);
}

void Node::go_on_without(Peer& peer, const Error& cause) {
    peer.failed = cause;
    // Copies don't wait for it; acknowledgements do, until the number without it is stored.
    end_union_copies();
    if (Op* const copy = ops_.find(union_op_); copy != nullptr) settle(*copy);
    reconsider();
}

void Node::fail_self(const Error& cause) {
    if (!self_failed_) {
        self_failed_ = cause;
        effects_->notice(
            {.kind = Notice::Kind::kLost, .replica = config_.self.replica, .cause = cause});
    }
    reconsider();
}

bool Node::let_go(ReplicaId replica, std::uint64_t number) {
    Peer* const peer = find_peer(replica);
    const bool others_fail = std::any_of(peers_.begin(), peers_.end(), [](const Peer& other) {
        return other.replica && other.failed.has_value();
    });
    if (role_ != Role::kServing || number_ != number || others_fail || proposal_ || adopting_ ||
        self_failed_ || join_.replica || peer == nullptr || !peer->member || peer->failed)
        return false;
    effects_->notice({.kind = Notice::Kind::kLetGo, .replica = replica});
    go_on_without(*peer, Error{Errc::kCancelled, 0, "it was let go"});
    run();
    return true;
}

bool Node::nobody_left() const {
    if (!self_failed_ || proposal_ || adopting_ || storing_ != Storing::kNothing) return false;
    return std::all_of(peers_.begin(), peers_.end(),
                       [](const Peer& peer) { return !peer.member || peer.failed; });
}

/// The last member is never removed: what its disk refused goes to the guest, and so does what a
/// member whose disk failed before lacks.
void Node::give_up_changes() {
    ops_.for_each([&](Op& op) {
        if (op.dropped) return;
        if (op.step == Step::kQueued || (op.step == Step::kIssued && !op.own_failed)) {
            settle(op);
            return;
        }
        if (!op.own_failed || (op.step != Step::kIssued && op.step != Step::kRepair)) return;
        op.failed = true;
        finish(op);
    });
}

/// No primary any more: requests go back to the client, copies end, nothing is remembered of the
/// peers.
void Node::leave_primary() {
    to_copy_.clear();
    union_op_ = 0;
    union_offset_ = 0;
    union_first_.reset();
    join_ = Join{};
    join_op_ = 0;
    round_running_ = 0;
    round_reads_.clear();
    loss_takeover_ = false;
    attachments_.reset();
    peers_.fill(Peer{});
    ops_.for_each([&](Op& op) { drop(op); });
    for (std::size_t place = 0; place < kMaxPeers; ++place) forget_acks(place);
    regions_.clear();
}

// ---- R14: reads

/// Reads the range from a member that has it, and rewrites it here; the range lock keeps writes
/// away meanwhile. A region that is to be copied before it is served (R7) too: nobody has read what
/// its members do not all have, so each one's content is as good as this one's.
void Node::read_failed(Op& op, const Error& error) {
    op.error = error;
    if (op.copy == Copy::kUnion && !has_union_target()) {
        union_copied(op);
        return;
    }
    if (faults::rule_off("rule.read_from_peer")) {
        unreadable(op);
        return;
    }
    op.step = Step::kFetch;
    fetch(op);
}

/// Asks a member that was not asked yet under this number. Where there is none at this moment the
/// read waits for the change of the membership, as other requests do: run() comes here again.
void Node::fetch(Op& op) {
    if (std::exchange(op.fetch_waits, false)) --fetches_wait_;
    const auto source = std::find_if(peers_.begin(), peers_.end(), [&](const Peer& peer) {
        const Ack& ack = op.acks[place_of(peer)];
        const bool asked = ack.number == number_ && (ack.sent || ack.done);
        return peer.member && peer.ready && !peer.failed && !asked;
    });
    if (source == peers_.end()) {
        if (may_get_a_source(op)) {
            op.fetch_waits = true;
            ++fetches_wait_;
            return;
        }
        unreadable(op);
        return;
    }
    if (op.buffer.bytes.empty()) {
        effects_->acquire_buffer(op.token, op.range.length_bytes);
        return;
    }
    Ack& ack = op.acks[place_of(*source)];
    ack = Ack{.number = number_, .open = ack.open + 1, .sent = true};
    op.own_sent = true;
    ++op.open_messages;
    Message message = message_to(source->replica, MessageType::kFetch);
    message.kind = OpKind::kRead;
    message.token = op.token;
    message.range = op.range;
    message.into = op.buffer.bytes.first(op.range.length_bytes);
    message.check = op.copy == Copy::kUnion;
    effects_->send(message);
}

/// Certainly nobody has it. What can't be made equal leaves; this node goes on without, so that
/// nobody becomes primary whose disk may have failed.
void Node::unreadable(Op& op) {
    if (op.copy == Copy::kNone) {
        op.failed = true;
        finish(op);
        return;
    }
    const Error cause = op.error;
    for (Peer& peer : peers_) {
        if (peer.member) fail_peer(peer, cause);
    }
}

/// Whether a member may become able to give the range: it has not stored the number yet, or
/// refused under it, or the membership is being changed or will be. A member that failed leaves by
/// the next number, unless this node's own disk has failed too: then both stay as they are.
bool Node::may_get_a_source(const Op& op) const {
    if (proposal_ || adopting_) return true;
    return std::any_of(peers_.begin(), peers_.end(), [&](const Peer& peer) {
        if (!peer.member) return false;
        if (peer.failed) return !self_failed_;
        const Ack& ack = op.acks[place_of(peer)];
        return !peer.ready || (ack.number == number_ && ack.sent);
    });
}

void Node::on_fetched(const Message& message) {
    Op* const op = ops_.find(message.token);
    if (op == nullptr) return;
    op->own_sent = false;
    Ack* const ack = message_answered(*op, message);
    if (op->token == 0 || op->step == Step::kLingering) return;
    if (op->dropped) {
        drop(*op);
        return;
    }
    if (op->step == Step::kRepair) {
        if (message.failed) {
            op->source = kMaxPeers;
            repair_read(*op);
        } else {
            repair_from(*op, *message.ids);
        }
        return;
    }
    if (message.failed || message.number != number_) {
        const bool refused = message.failed && message.error.code == Errc::kStale;
        if (ack != nullptr && message.failed && !refused) {
            ack->sent = false;
            ack->done = true;  // another one may have it
        }
        if (refused) learn(message);
        if (Op* const left = ops_.find(message.token); left != nullptr && !left->dropped)
            fetch(*left);
        return;
    }
    const auto content = op->buffer.bytes.first(op->range.length_bytes);
    if (op->copy == Copy::kUnion) {
        op->ids = message.ids;
        if (!faults::rule_off("rule.ids_agree")) ids_->may_be_copied(op->range, *op->ids);
    } else {
        std::copy(content.begin(), content.end(), op->into.begin());
    }
    op->step = Step::kRewrite;
    touch(*op);  // R10: the store sets the region's bit for it
    op->own_sent = true;
    ++disk_open_;
    effects_->disk({.token = op->token,
                    .kind = OpKind::kWrite,
                    .fua = true,
                    .range = op->range,
                    .data = content});
}

void Node::rewrite_done(Op& op, const Result<void>& result) {
    untouch(op);
    op.step = Step::kIssued;
    if (op.copy == Copy::kUnion) {
        op.acks.fill(Ack{});  // of the reads
        op.own_failed = !result;
        if (result) {
            if (!faults::rule_off("rule.ids_agree")) ids_->copied(op.range, *op.ids);
            op_disk_done(op, {});  // as if it had been read here
            return;
        }
        if (!has_union_target()) union_copied(op);
        fail_self(result.error());
        return;
    }
    op.own_done = true;
    settle(op);
    if (!result) fail_self(result.error());
}

// ---- full pools: nobody leaves, nothing diverges

/// A change found no space on one of the disks. Its range stays locked and its activity bit set.
/// Policy wait: it is tried again there with backoff. Policy fail: when all disks have answered,
/// their contents are made equal, then it fails.
void Node::full(Op& op) {
    if (!std::exchange(op.counted_full, true)) ++full_count_;
    if (!config_.wait_on_full && op.copy == Copy::kNone) {
        settle(op);
        return;
    }
    full_wait_ms_ = full_wait_ms_ == 0 ? kFullRetryMs : full_wait_ms_;
    start_timer(TimerKind::kFull, full_wait_ms_);
}

void Node::set_wait_on_full(bool wait) {
    config_.wait_on_full = wait;
    if (!wait && full_count_ > 0) retry_full();
    run();
}

void Node::retry_full() {
    if (std::exchange(store_waits_, false)) store_again();
    full_wait_ms_ =
        full_count_ == 0 ? 0 : std::min(std::max(full_wait_ms_, kFullRetryMs) * 2, kFullRetryMaxMs);
    ops_.for_each([&](Op& op) {
        if (!op.counted_full || op.dropped || op.step == Step::kLingering) return;
        if (op.step == Step::kRepair) {
            repair_read(op);
            return;
        }
        if (op.step != Step::kIssued) return;
        op.counted_full = false;
        --full_count_;
        for (Peer& peer : peers_) {
            if (!peer.replica || !op.acks[place_of(peer)].full) continue;
            op.acks[place_of(peer)] = Ack{.open = op.acks[place_of(peer)].open};
            if (wants(op, peer)) replicate(op, peer);
        }
        if (std::exchange(op.own_full, false)) issue_own(op);
    });
}

/// Who has each change, or is to have it: also one that joins, from its first copy on.
bool Node::gets_changes(const Peer& peer) {
    return peer.replica && !peer.failed && (peer.needed || (peer.joining && peer.begun));
}

/// Policy fail, and every disk has answered: the one that found no space has old or partly new
/// sectors, which is what a failed write may leave; all others get its content, for which they have
/// the space already.
void Node::repair(Op& op) {
    const bool others = std::any_of(peers_.begin(), peers_.end(), gets_changes);
    // A write without a private copy began when there was nobody else.
    const bool alone = !others || (op.kind == OpKind::kWrite && op.buffer.bytes.empty());
    if (alone || faults::rule_off("rule.repair_full")) {
        fail_op(op, Error{Errc::kNoSpace, 0, "the pool is full"});
        return;
    }
    op.source = kMaxPeers;
    for (std::size_t place = 0; place < kMaxPeers && !op.own_full; ++place) {
        if (op.acks[place].full) op.source = place;
    }
    if (op.kind != OpKind::kWrite) {
        // Zeroing that found no space to keep: without keeping it needs none.
        op.keep_allocated = false;
        start_timer(TimerKind::kFull, kFullRetryMs);
        return;
    }
    op.step = Step::kRepair;
    repair_read(op);
}

void Node::repair_read(Op& op) {
    if (op.own_sent || op.open_messages > 0) return;
    op.repair_writing = false;
    const auto into = op.buffer.bytes.first(op.range.length_bytes);
    if (op.source < kMaxPeers && (!peers_[op.source].needed || peers_[op.source].failed))
        op.source = kMaxPeers;
    op.own_sent = true;
    if (op.source == kMaxPeers) {
        ++disk_open_;
        effects_->disk({.token = op.token, .kind = OpKind::kRead, .range = op.range, .into = into});
        return;
    }
    if (!peers_[op.source].ready) {  // peer_ready() comes here again, or it leaves
        op.own_sent = false;
        start_timer(TimerKind::kFull, kFullRetryMs);
        return;
    }
    ++op.open_messages;
    Message message = message_to(peers_[op.source].replica, MessageType::kFetch);
    message.kind = OpKind::kRead;
    message.token = op.token;
    message.range = op.range;
    message.into = into;
    message.check = true;
    effects_->send(message);
}

/// The content is there; with it goes what its disk's table says of the range. The change that is
/// given up stays perhaps applied on all: a part of it may be there and be read, and where the
/// answer is lost it comes again.
void Node::repair_from(Op& op, IdList ids) {
    op.ids = std::make_shared<const IdList>(std::move(ids));
    repair_write(op);
}

void Node::repair_write(Op& op) {
    const bool all_ready = std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) {
        return !gets_changes(peer) || peer.ready;
    });
    if (!all_ready) {  // peer_ready() begins anew, or who is not leaves
        start_timer(TimerKind::kFull, kFullRetryMs);
        return;
    }
    op.repair_writing = true;
    op.own_full = false;
    op.own_done = op.source == kMaxPeers;
    for (Ack& ack : op.acks) ack = Ack{.open = ack.open};
    const std::span<const std::byte> content = op.buffer.bytes.first(op.range.length_bytes);
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        const Peer& peer = peers_[place];
        if (!peer.replica || !peer.ready || peer.failed || place == op.source) continue;
        op.acks[place] = Ack{.number = number_, .open = op.acks[place].open + 1, .sent = true};
        ++op.open_messages;
        Message message = message_to(peer.replica, MessageType::kCopy);
        message.kind = OpKind::kWrite;
        message.token = op.token;
        message.range = op.range;
        message.ids = op.ids;
        message.data = content;
        effects_->send(message);
    }
    if (!op.own_done) {
        op.own_sent = true;
        ++disk_open_;
        if (!faults::rule_off("rule.ids_agree")) ids_->may_be_copied(op.range, *op.ids);
        effects_->disk(
            {.token = op.token, .kind = OpKind::kWrite, .range = op.range, .data = content});
        return;
    }
    repair_done(op);
}

/// Called for each disk that has the content; ends the request when all have. Where this one has no
/// space for it the next round begins with its own.
void Node::repair_done(Op& op) {
    if (op.own_sent || op.open_messages > 0) return;
    if (!op.own_done) {
        start_timer(TimerKind::kFull, kFullRetryMs);
        return;
    }
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        const Peer& peer = peers_[place];
        if (!gets_changes(peer) || place == op.source) continue;
        const Ack& ack = op.acks[place];
        if (ack.full) op.source = place;  // it has the least: it is the source of the next round
        if (ack.done && ack.number == number_) continue;
        start_timer(TimerKind::kFull, kFullRetryMs);
        return;
    }
    fail_op(op, Error{Errc::kNoSpace, 0, "the pool is full"});
}

}  // namespace ublkd::replication
