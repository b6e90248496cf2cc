// What a primary does with a request: R2 (acknowledge when all have it, read when all confirm), R3, R8, R10, R13.
#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

std::uint32_t Node::first_region(const Range& range) const {
    return static_cast<std::uint32_t>(range.offset_bytes / config_.region_bytes);
}
std::uint32_t Node::end_region(const Range& range) const {
    return static_cast<std::uint32_t>(divide_up(range.end_bytes(), config_.region_bytes));
}

void Node::on_request(const Message& message) {
    // Its client read a newer record than this node has: it waits until this node is told, or is handed back then.
    const bool early = role_ == Role::kSecondary && message.number > number_;
    if (role_ != Role::kServing && role_ != Role::kPreparing && !early) {
        refuse(message, MessageType::kMoved);
        return;
    }
    if (role_ == Role::kServing && message.number != number_) {
        refuse(message, MessageType::kMoved);
        learn(message);
        return;
    }
    Op& op = ops_.make();
    op.kind = message.kind;
    op.fua = message.fua;
    op.keep_allocated = message.keep_allocated;
    op.range = message.range;
    op.id = message.id;
    op.client_token = message.token;
    op.data = message.data;
    op.into = message.into;
    if (role_ == Role::kServing) start_op(op);
}

void Node::on_release(const Message& message) {
    ops_.for_each([&](Op& op) {
        if (op.kind == OpKind::kHold && op.step == Step::kHeld && op.client_token == message.token) free_op(op);
    });
}

void Node::start_op(Op& op) {
    if (op.kind == OpKind::kFlush) {
        issue(op);
        return;
    }
    if (!to_copy_.empty()) {
        const auto pending = std::lower_bound(to_copy_.begin(), to_copy_.end(), first_region(op.range));
        if (pending != to_copy_.end() && *pending < end_region(op.range)) {
            op.step = Step::kRegion;
            if (!union_first_) union_first_ = *pending;
            return;
        }
    }
    op.step = Step::kLock;
    op.lock.owner = op.token;
    if (locks_.acquire(op.lock, op.range, is_change(op.kind))) locked(op);
}

void Node::locked(Op& op) {
    if (op.kind == OpKind::kHold) {
        op.step = Step::kHeld;
        answer(op);
        return;
    }
    if (op.copy == Copy::kJoin && op.zeroes) {
        op.step = Step::kIssued;
        effects_->extent(op.token, op.range);    // again, now that no write can come between
        return;
    }
    op.mark_only = op.copy == Copy::kNone && is_change(op.kind) && ids_->knows(op.id);
    const bool others = std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return bool(peer.replica); });
    // R13: the guest may change its page while it is written to several members, so all get one private copy.
    const bool private_copy = op.kind == OpKind::kWrite && op.copy == Copy::kNone && others && !op.mark_only;
    if ((private_copy && !faults::rule_off("rule.private_copy")) || op.copy != Copy::kNone) {
        op.step = Step::kBuffer;
        effects_->acquire_buffer(op.token, op.range.length_bytes);
        return;
    }
    issue(op);
}

void Node::issue(Op& op) {
    op.step = Step::kIssued;
    if (op.kind == OpKind::kFlush) op.durable_tick = tick_;
    if (op.kind == OpKind::kRead && op.copy == Copy::kNone) {
        const bool others = std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.needed; });
        if (others && !faults::rule_off("rule.confirm_reads")) {
            // Only a confirmation whose request is sent from now on counts.
            op.round = round_started_ + 1;
            round_wanted_ = op.round;
            round_reads_.push_back(op.token);
        }
    }
    if (is_change(op.kind) && op.copy == Copy::kNone && !op.mark_only) touch(op);
    issue_own(op);
    const bool sends = op.copy == Copy::kNone && (is_change(op.kind) || op.kind == OpKind::kFlush);
    if (sends) {
        for (Peer& peer : peers_) {
            if (peer.replica && wants(op, peer)) replicate(op, peer);
        }
    }
    if (op.round != 0) start_round();
    if (op.own_done) settle(op);
}

void Node::issue_own(Op& op) {
    if (op.mark_only) {
        op.own_done = true;
        return;
    }
    DiskRequest request{.token = op.token, .kind = op.kind, .fua = op.fua, .keep_allocated = op.keep_allocated,
                        .range = op.range};
    if (op.copy != Copy::kNone) {
        request.kind = OpKind::kRead;
        request.into = op.buffer.bytes.first(op.range.length_bytes);
    } else if (op.kind == OpKind::kWrite) {
        request.data = op.buffer.bytes.empty() ? op.data : op.buffer.bytes.first(op.range.length_bytes);
    } else if (op.kind == OpKind::kRead) {
        request.into = op.into;
    }
    op.own_sent = true;
    ++disk_open_;
    effects_->disk(request);
}

/// Whether `peer` is to get `op` and has not got it under this number.
bool Node::wants(const Op& op, const Peer& peer) const {
    if (!peer.ready || peer.failed) return false;
    const Ack& ack = op.acks[static_cast<std::size_t>(&peer - peers_.data())];
    if (ack.number == number_ && (ack.sent || ack.done)) return false;
    if (op.copy == Copy::kUnion) return peer.member && op.own_done;
    if (op.copy == Copy::kJoin) return peer.joining && op.own_done;
    if (op.kind == OpKind::kFlush) return true;
    // A write without a private copy began when there was nobody else; a copy waits for its lock.
    return is_change(op.kind) && (op.mark_only || op.kind != OpKind::kWrite || !op.buffer.bytes.empty() ||
                                  faults::rule_off("rule.private_copy"));
}

void Node::replicate(Op& op, Peer& peer) {
    Ack& ack = op.acks[place_of(peer)];
    ack = Ack{.number = number_, .open = ack.open + 1, .sent = true};
    ++op.open_messages;
    const bool copies = op.copy != Copy::kNone;
    Message message = message_to(peer.replica, copies ? MessageType::kCopy : MessageType::kReplicate);
    message.kind = copies ? (op.zeroes ? OpKind::kDiscard : OpKind::kWrite) : op.kind;
    message.fua = op.fua;
    message.keep_allocated = op.keep_allocated;
    message.mark_only = op.mark_only;
    message.check = op.copy == Copy::kJoin && !op.zeroes;
    message.token = op.token;
    message.range = op.range;
    message.id = op.id;
    if (message.kind == OpKind::kWrite)
        message.data = op.buffer.bytes.empty() ? op.data : op.buffer.bytes.first(op.range.length_bytes);
    effects_->send(message);
}

void Node::op_disk_done(Op& op, const Result<void>& result) {
    op.own_sent = false;
    if (op.dropped) {
        drop(op);
        return;
    }
    if (op.step == Step::kRewrite) {
        rewrite_done(op, result);
        return;
    }
    if (op.step == Step::kRepair) {
        if (!result && result.error().code == Errc::kNoSpace) {
            op.source = kMaxPeers;    // this disk has the least: it is the source of the next round
            start_timer(TimerKind::kFull, kFullRetryMs);
            return;
        }
        if (!result) {
            op.own_failed = true;
            op.error = result.error();
            fail_self(result.error());
            return;
        }
        if (op.repair_writing) {
            op.own_done = true;
            repair_done(op);
        } else {
            repair_write(op);
        }
        return;
    }
    if (!result) {
        if (op.kind == OpKind::kRead && op.copy == Copy::kNone) {
            read_failed(op, result.error());
        } else if (result.error().code == Errc::kNoSpace) {
            op.own_full = true;
            full(op);
        } else {
            op.own_failed = true;
            op.error = result.error();
            fail_self(result.error());
        }
        return;
    }
    op.own_done = true;
    if (op.copy != Copy::kNone) {
        for (Peer& peer : peers_) {
            if (peer.replica && wants(op, peer)) replicate(op, peer);
        }
    } else if (is_change(op.kind)) {
        ids_->insert(op.id);
        faults::hit("repl.own_applied");
    }
    settle(op);
}

/// Answers the request if all that it needs is there.
void Node::settle(Op& op) {
    if (op.step != Step::kIssued || op.dropped) return;
    if (!op.own_done && !op.own_full) return;
    if (op.kind == OpKind::kRead && op.copy == Copy::kNone) {
        if (op.own_done && op.round <= round_done_) finish(op);
        return;
    }
    bool all = true;
    bool any_full = op.own_full;
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        const Peer& peer = peers_[place];
        const bool needed = op.copy == Copy::kUnion  ? peer.member && !peer.failed
                            : op.copy == Copy::kJoin ? peer.joining
                                                     : peer.needed;
        const Ack& ack = op.acks[place];
        // A joining member that is storing a new number is sent the change before anybody is told of it.
        if (peer.joining && peer.begun && !peer.ready && is_change(op.kind) && op.copy == Copy::kNone) return;
        if (!peer.replica || !needed) continue;
        any_full = any_full || ack.full;
        // It counts under the number at which it was given alone.
        all = all && ((ack.done && ack.number == number_) || ack.full);
    }
    if (faults::rule_off("rule.ack_all") && op.copy == Copy::kNone && op.own_done) {
        all = true;
        any_full = false;
    }
    if (!all) return;
    if (any_full) {
        if (!config_.wait_on_full && op.copy == Copy::kNone && op.open_messages == 0) repair(op);
        return;
    }
    if (op.copy == Copy::kUnion) {
        union_copied(op);
    } else if (op.copy == Copy::kJoin) {
        join_copied(op);
    } else {
        finish(op);
    }
}

void Node::finish(Op& op) {
    if (is_change(op.kind)) {
        untouch(op);
        faults::hit("repl.before_answer");
    } else if (op.kind == OpKind::kFlush && !op.failed) {
        durable_tick_ = std::max(durable_tick_, op.durable_tick);
    }
    answer(op);
    free_op(op);
}

void Node::answer(const Op& op) {
    Message message = message_to(ReplicaId(), MessageType::kAnswer);
    message.kind = op.kind;
    message.token = op.client_token;
    message.id = op.id;
    message.failed = op.failed;
    message.error = op.error;
    effects_->send(message);
}

/// This node serves no longer: the client is told when the own disk is done with the client's memory (R8: a session is
/// drained before its successor is served).
void Node::drop(Op& op) {
    op.dropped = true;
    if (op.own_sent) return;
    untouch(op);
    if (op.copy == Copy::kNone && op.step != Step::kLingering) {
        Message message = message_to(ReplicaId(), MessageType::kMoved);
        message.kind = op.kind;
        message.token = op.client_token;
        message.id = op.id;
        if (record_ || adopting_) message.record = std::make_shared<const Membership>(adopting_ ? *adopting_ : *record_);
        effects_->send(message);
    }
    free_op(op);
}

void Node::free_op(Op& op) {
    if (op.counted_full) --full_count_;
    op.counted_full = false;
    op.step = Step::kLingering;
    linger(op);
}

/// A peer that was not needed (it joins) may still be writing: overlapping changes wait for it, so that it applies them in
/// the order in which all others did; and it is proposed only when it has all. The payload is kept for it, and for those
/// that are no peers any more.
void Node::linger(Op& op) {
    bool owed = false;
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        const Ack& ack = op.acks[place];
        owed = owed || ack.open > 0 || (peers_[place].joining && ack.sent && !ack.done);
    }
    if (!owed && op.lock.queued) locks_.release(op.lock);
    if (owed || op.open_messages > 0) return;
    if (!op.buffer.bytes.empty()) effects_->release_buffer(op.buffer.handle);
    ops_.free(op);
}

/// The place in peers_ is given up: nobody waits for its answers any more.
void Node::forget_acks(std::size_t place) {
    ops_.for_each([&](Op& op) {
        op.acks[place] = Ack{};
        if (op.step == Step::kLingering) linger(op);
    });
}

/// One message about `op` was answered. The answering peer's place, or nullptr where the request needs it no more.
Node::Ack* Node::message_answered(Op& op, const Message& message) {
    --op.open_messages;
    Peer* const peer = find_peer(message.from);
    Ack* const ack = peer == nullptr ? nullptr : &op.acks[place_of(*peer)];
    if (ack != nullptr && ack->open > 0) --ack->open;
    if (op.step != Step::kLingering) return op.dropped ? nullptr : ack;
    const bool refused = message.failed && message.error.code == Errc::kStale;    // sent again when it is ready
    if (ack != nullptr && !message.failed && message.number == ack->number) {
        ack->sent = false;
        ack->done = true;
    }
    linger(op);
    if (peer != nullptr && message.failed && !refused) {
        fail_peer(*peer, message.error);    // it lacks what was answered
    } else if (join_.copied && !join_.asked) {
        finish_join();
    }
    return nullptr;
}

void Node::touch(Op& op) {
    if (op.in_flight) return;
    op.in_flight = true;
    for (std::uint32_t region = first_region(op.range); region < end_region(op.range); ++region)
        ++regions_[region].in_flight;
    start_timer(TimerKind::kBits, kClearBitsMs);
}

void Node::untouch(Op& op) {
    if (!op.in_flight) return;
    op.in_flight = false;
    ++tick_;
    for (std::uint32_t region = first_region(op.range); region < end_region(op.range); ++region) {
        Region& state = regions_[region];
        --state.in_flight;
        state.last_tick = tick_;
    }
}

// ---- R2: confirmations

/// One round at a time: all needed members are asked; reads that came since wait for the next.
void Node::start_round() {
    if (round_running_ != 0 || round_wanted_ <= round_done_) return;
    round_running_ = ++round_started_;
    bool others = false;
    for (Peer& peer : peers_) {
        if (!peer.replica || !peer.needed) continue;
        others = true;
        peer.confirmed = false;
        if (!peer.ready || peer.failed) continue;    // asked when it is ready
        Message message = message_to(peer.replica, MessageType::kConfirm);
        message.value = round_running_;
        effects_->send(message);
    }
    if (others) return;
    round_done_ = std::exchange(round_running_, 0);
    std::vector<std::uint64_t> reads = std::exchange(round_reads_, {});
    for (const std::uint64_t token : reads) {
        if (Op* const op = ops_.find(token); op != nullptr) settle(*op);
    }
}

void Node::on_confirmed(const Message& message) {
    Peer* const peer = find_peer(message.from);
    if (message.failed) {
        learn(message);
        return;
    }
    if (peer == nullptr || message.number != number_ || message.value != round_running_ || round_running_ == 0) return;
    peer->confirmed = true;
    for (const Peer& other : peers_) {
        if (other.replica && other.needed && !other.confirmed) return;
    }
    round_done_ = std::exchange(round_running_, 0);
    std::size_t left = 0;
    for (std::size_t i = 0; i < round_reads_.size(); ++i) {
        Op* const op = ops_.find(round_reads_[i]);
        if (op == nullptr) continue;
        if (op->round > round_done_) {
            round_reads_[left++] = round_reads_[i];
        } else {
            settle(*op);
        }
    }
    round_reads_.resize(left);
    start_round();
}

void Node::on_replicated(const Message& message) {
    Op* const op = ops_.find(message.token);
    if (op == nullptr) return;
    Ack* const answered = message_answered(*op, message);
    if (answered == nullptr) return;
    Ack& ack = *answered;
    Peer* const peer = find_peer(message.from);
    if (message.failed) {
        if (message.error.code == Errc::kStale) {
            learn(message);
        } else if (message.error.code == Errc::kNoSpace && !peer->joining) {
            ack.full = ack.number == number_;
            full(*op);
        } else {
            fail_peer(*peer, message.error);
        }
        return;
    }
    if (message.number != ack.number || message.number != number_) return;
    ack.sent = false;
    ack.done = true;
    settle(*op);
}

// ---- R10

/// Clears the activity bits of regions whose writes are durable on all members: completed before a flush that ended.
void Node::clear_bits() {
    if (role_ != Role::kServing || regions_.empty()) return;
    start_timer(TimerKind::kBits, kClearBitsMs);
    if (proposal_ || adopting_ || self_failed_) return;
    for (const Peer& peer : peers_) {
        if (peer.member && (!peer.ready || peer.failed)) return;
    }
    auto clean = std::make_shared<RegionSet>();
    for (auto at = regions_.begin(); at != regions_.end();) {
        const Region& region = at->second;
        const bool durable = region.last_tick <= durable_tick_ || faults::rule_off("rule.bits_durable");
        const bool copied = !std::binary_search(to_copy_.begin(), to_copy_.end(), at->first);
        if (region.in_flight == 0 && durable && copied) {
            clean->push_back(at->first);
            at = regions_.erase(at);
        } else {
            ++at;
        }
    }
    if (clean->empty()) return;
    faults::hit("repl.before_clear");
    for (const Peer& peer : peers_) {
        if (!peer.member) continue;
        Message message = message_to(peer.replica, MessageType::kClear);
        message.regions = clean;
        effects_->send(message);
    }
    effects_->clear_activity(*clean);
}

}  // namespace ublkd::replication
