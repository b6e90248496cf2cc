// When a request of a primary is answered and what is left of it then: R2 (acknowledge when all
// have it, read when all confirm), R3 (the lock until the answer), R10 (activity bits).
#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

/// Answers the request if all that it needs is there.
void Node::settle(Op& op) {
    if (op.step == Step::kQueued && nobody_left()) {
        fail_op(op, *self_failed_);
        return;
    }
    if (op.step != Step::kIssued || op.dropped) return;
    if (!op.own_done && !op.own_full) return;
    if ((op.kind == OpKind::kRead && op.copy == Copy::kNone) || op.kind == OpKind::kCutHolds) {
        if (op.own_done && op.round <= round_done_) {
            finish(op);
        } else if (op.own_done && nobody_left()) {
            fail_op(op, *self_failed_);
        }
        return;
    }
    bool all = true;
    bool any_full = op.own_full;
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        const Peer& peer = peers_[place];
        const bool proposed_counts =
            peer.member || !faults::rule_off("rule.joint_acknowledgement");  // R4
        const bool needed = op.copy == Copy::kUnion   ? union_goes_to(op, peer) && !peer.failed
                            : op.copy == Copy::kJoin  ? peer.joining
                            : op.copy == Copy::kAsked ? peer.member
                                                      : peer.needed && proposed_counts;
        const Ack& ack = op.acks[place];
        // A joining member that is storing a new number is sent the change before anybody is told
        // of it.
        if (peer.joining && peer.begun && !peer.ready && is_change(op.kind) &&
            op.copy == Copy::kNone)
            return;
        if (!peer.replica || !needed) continue;
        if (peer.failed && faults::rule_off("rule.lost_leaves_first")) continue;
        any_full = any_full || ack.full;
        // It counts under the number at which it was given alone.
        all = all && ((ack.done && ack.number == number_) || ack.full);
    }
    if (faults::rule_off("rule.ack_all") && op.copy == Copy::kNone && op.own_done) {
        all = true;
        any_full = false;
    }
    if (!all) {
        if (is_request(op) && nobody_left()) fail_op(op, *self_failed_);
        return;
    }
    if (any_full) {
        if (!config_.wait_on_full && op.copy == Copy::kNone && op.open_messages == 0) repair(op);
        return;
    }
    if (op.copy == Copy::kUnion) {
        union_copied(op);
    } else if (op.copy == Copy::kJoin) {
        join_copied(op);
    } else if (!op.pieces.empty() || op.flush_after) {
        if (op.open_messages == 0) next_part(op);
    } else {
        finish(op);
    }
}

void Node::fail_op(Op& op, const Error& error) {
    op.failed = true;
    op.error = error;
    finish(op);
}

void Node::finish(Op& op) {
    if (is_change(op.kind)) {
        untouch(op);
        faults::hit("repl.before_answer");
    } else if (op.kind == OpKind::kFlush && !op.failed) {
        durable_tick_ = std::max(durable_tick_, op.durable_tick);
    } else if (op.kind == OpKind::kCut && !op.failed) {
        cut_counts(op);
        return;
    } else if (op.kind == OpKind::kCutHolds && !op.failed) {
        check_cut(op);
    }
    const bool for_bits = op.internal;
    if (!for_bits) answer(op);
    free_op(op);
    if (for_bits) mark_bits();
}

Message Node::message_to_client(const Op& op, MessageType type) const {
    Message message = message_to(ReplicaId(), type);
    message.kind = op.kind;
    message.token = op.client_token;
    message.route = op.client_route;
    message.id = op.id;
    message.cut = op.cut;
    return message;
}

void Node::answer(const Op& op) {
    Message message = message_to_client(op, MessageType::kAnswer);
    message.failed = op.failed;
    message.error = op.error;
    effects_->send(message);
}

/// This node serves no longer: the client is told when the own disk is done with the client's
/// memory (R8: a session is drained before its successor is served).
void Node::drop(Op& op) {
    op.dropped = true;
    if (op.own_sent) return;
    untouch(op);
    if (is_request(op) && !op.internal && op.step != Step::kLingering) {
        Message message = message_to_client(op, MessageType::kMoved);
        if (record_ || adopting_)
            message.record = std::make_shared<const Membership>(adopting_ ? *adopting_ : *record_);
        effects_->send(message);
    }
    free_op(op);
}

void Node::free_op(Op& op) {
    if (op.counted_full) --full_count_;
    op.counted_full = false;
    if (op.fetch_waits) --fetches_wait_;
    op.fetch_waits = false;
    if (op.kind == OpKind::kCut) end_cut(op);
    op.step = Step::kLingering;
    linger(op);
}

/// A peer that was not needed (it joins) may still be writing: overlapping changes wait for it, so
/// that it applies them in the order in which all others did; and it is proposed only when it has
/// all. The payload is kept for it, and for those that are no peers any more.
void Node::linger(Op& op) {
    bool owed = false;
    for (std::size_t place = 0; place < kMaxPeers; ++place) {
        const Ack& ack = op.acks[place];
        owed = owed || ack.open > 0 || (peers_[place].joining && ack.sent && !ack.done);
    }
    if (!owed && op.lock.queued) locks_.release(op.lock);
    // The disk may still be at a cut that failed; the next one waits for that.
    if (owed || op.open_messages > 0 || (op.kind == OpKind::kCut && op.own_sent)) return;
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

/// One message about `op` was answered. The answering peer's place, or nullptr where the request
/// needs it no more.
Node::Ack* Node::message_answered(Op& op, const Message& message) {
    --op.open_messages;
    Peer* const peer = find_peer(message.from);
    Ack* const ack = peer == nullptr ? nullptr : &op.acks[place_of(*peer)];
    if (ack != nullptr && ack->open > 0) --ack->open;
    if (op.step != Step::kLingering) {
        if (op.dropped) return nullptr;
        // Of one that is no peer any more: what waits until nobody owes an answer may go on.
        if (ack == nullptr) settle(op);
        return ack;
    }
    const bool refused =
        message.failed && message.error.code == Errc::kStale;  // sent again when it is ready
    if (ack != nullptr && !message.failed && message.number == ack->number) {
        ack->sent = false;
        ack->done = true;
    }
    const bool owes = op.kind != OpKind::kCut;  // a cut is no content
    linger(op);                                 // may free it
    if (peer != nullptr && message.failed && !refused && owes) {
        fail_peer(*peer, message.error);  // it lacks what was answered
    } else if (join_.copied && !join_.asked) {
        finish_join();
    }
    return nullptr;
}

void Node::touch(Op& op) {
    if (op.in_flight) return;
    op.in_flight = true;
    for (std::uint32_t region = first_region(op.change); region < end_region(op.change); ++region)
        ++regions_[region].in_flight;
    start_timer(TimerKind::kBits, kClearBitsMs);
}

void Node::untouch(Op& op) {
    if (!op.in_flight) return;
    op.in_flight = false;
    ++tick_;
    for (std::uint32_t region = first_region(op.change); region < end_region(op.change); ++region) {
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
        if (!peer.ready || peer.failed) continue;  // asked when it is ready
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
        if (message.error.code == Errc::kStale) {
            learn(message);
        } else if (peer != nullptr) {
            fail_peer(*peer, message.error);
        }
        return;
    }
    if (peer == nullptr || message.number != number_ || message.value != round_running_ ||
        round_running_ == 0)
        return;
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
        } else if (op->kind == OpKind::kCut) {
            fail_op(*op, message.error);  // it lacks nothing
        } else if (message.error.code == Errc::kNoSpace && (!peer->joining || proposed(*peer))) {
            ack.full = ack.number == number_;
            full(*op);
        } else {
            fail_peer(*peer, message.error);
        }
        return;
    }
    if (message.number == ack.number && message.number == number_) {
        ack.sent = false;
        ack.done = true;
    }
    settle(*op);
}

// ---- R10

/// Regions whose writes are durable on all members (completed before a flush that ended): all
/// members mark that in their superblocks, and then the bits are cleared. So a member that comes
/// back with a smaller mark than the one for which bits were cleared is an older image of itself.
void Node::mark_bits() {
    if (role_ != Role::kServing || regions_.empty()) return;
    start_timer(TimerKind::kBits, kClearBitsMs);
    if (marking_.through != 0) {
        all_marked();
        return;
    }
    if (proposal_ || adopting_ || self_failed_ || join_.asked) return;
    for (const Peer& peer : peers_) {
        if (peer.member && (!peer.ready || peer.failed)) return;
    }
    RegionSet clean;
    for (const auto& [index, region] : regions_) {
        const bool durable =
            region.last_tick <= durable_tick_ || faults::rule_off("rule.bits_durable");
        const bool copied = !std::binary_search(to_copy_.begin(), to_copy_.end(), index);
        if (region.in_flight == 0 && durable && copied) clean.push_back(index);
    }
    if (clean.empty()) return;
    greatest_mark_ = std::max(greatest_mark_, durable_through_) + 1;
    marking_ = Marking{.through = greatest_mark_, .tick = tick_, .regions = std::move(clean)};
    for (const Peer& peer : peers_) {
        if (!peer.member) continue;
        Message message = message_to(peer.replica, MessageType::kMark);
        message.value = marking_.through;
        effects_->send(message);
    }
    effects_->mark(marking_.through);
}

void Node::on_mark(const Message& message) {
    if (message.type == MessageType::kMark) {
        if (!from_primary(message)) return;  // the next number begins anew
        mark_request_ = message;
        effects_->mark(message.value);
        return;
    }
    const Peer* const peer = find_peer(message.from);
    if (peer == nullptr || message.number != number_ || message.value != marking_.through) return;
    if (message.failed) {
        marking_ = Marking{};  // the bits stay for now: more is copied than needed
        return;
    }
    marking_.done[place_of(*peer)] = true;
    all_marked();
}

void Node::on_marked(std::uint64_t through, Result<void> result) {
    if (result) durable_through_ = std::max(durable_through_, through);
    if (mark_request_ && mark_request_->value == through) {
        Message answer;
        answer.value = through;
        answer.failed = !result;
        reply(*mark_request_, MessageType::kMarked, answer);
        mark_request_.reset();
    } else if (marking_.through == through && role_ == Role::kServing) {
        marking_.own_done = true;
        result ? all_marked() : void(marking_ = Marking{});
    }
    run();
}

void Node::all_marked() {
    // Who is asked to finish joining gets the mark that is there (R12), and nothing is cleared for
    // a greater one until it is a member.
    if (!marking_.own_done || proposal_ || adopting_ || join_.asked) return;
    for (const Peer& peer : peers_) {
        if (peer.member && !marking_.done[place_of(peer)]) return;
    }
    const Marking marked = std::exchange(marking_, Marking{});
    auto clean = std::make_shared<RegionSet>();
    for (const std::uint32_t index : marked.regions) {
        const auto region = regions_.find(index);
        if (region == regions_.end() || region->second.in_flight != 0 ||
            region->second.last_tick > marked.tick)
            continue;  // it is active again
        clean->push_back(index);
        regions_.erase(region);
    }
    if (clean->empty()) return;
    cleared_through_ = marked.through;
    faults::hit("repl.before_clear");
    for (const Peer& peer : peers_) {
        if (!peer.member) continue;
        Message message = message_to(peer.replica, MessageType::kClear);
        message.through = marked.through;
        message.regions = clean;
        effects_->send(message);
    }
    effects_->clear_activity(*clean, marked.through);
}

/// Where each change is durable when it is answered, guests need not flush: the node does it for
/// the bits of what has ended since the last flush; then they are cleared.
void Node::flush_for_bits() {
    if (!config_.durable_changes || role_ != Role::kServing || regions_.empty()) return;
    if (tick_ <= durable_tick_ || ops_.find(bits_flush_) != nullptr) return;
    Op& op = ops_.make();
    op.kind = OpKind::kFlush;
    op.internal = true;
    bits_flush_ = op.token;
    start_op(op);
}

}  // namespace ublkd::replication
