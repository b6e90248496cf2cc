// What a primary does with a request until its own disk has ended: R3, R8, R13, and sending it to
// the members.
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

/// R8: it came again.
bool Node::applied_before(const RequestId& id) const {
    return ids_->applied(id) && !faults::rule_off("rule.retry_ids");
}

/// R8: a change that came again and is perhaps applied: what was written over it since is left out.
void Node::leave_out_overwritten(Op& op) {
    std::optional<std::vector<Range>> pieces = ids_->pieces(op.id);
    if (!pieces || faults::rule_off("rule.retry_ids")) return;
    std::sort(pieces->begin(), pieces->end());
    op.range = pieces->front();
    op.pieces.assign(pieces->begin() + 1, pieces->end());
}

/// The part of its payload that `range` is.
std::span<const std::byte> Node::payload(const Op& op) {
    const std::span<const std::byte> whole =
        op.buffer.bytes.empty() ? op.data : op.buffer.bytes.first(op.change.length_bytes);
    return whole.subspan(op.range.offset_bytes - op.change.offset_bytes, op.range.length_bytes);
}

/// All have this part of a change that came again: its next piece, or a flush at the end.
void Node::next_part(Op& op) {
    if (op.pieces.empty()) {
        op.flush_after = false;
        untouch(op);
        op.kind = OpKind::kFlush;
        op.mark_only = false;
    } else {
        op.range = op.pieces.front();
        op.pieces.erase(op.pieces.begin());
    }
    op.own_done = false;
    op.acks.fill(Ack{});
    issue(op);
}

void Node::on_request(const Message& message) {
    // Its client read a newer record than this node has: it waits until this node is told, or is
    // handed back then.
    const bool early = role_ == Role::kSecondary && message.number > number_;
    if (role_ != Role::kServing && role_ != Role::kPreparing && !early) {
        refuse(message, MessageType::kMoved);
        return;
    }
    if (early) learn(message);
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
    op.client_route = message.route;
    op.attachment = message.attachment;
    op.losses = message.losses;
    op.cut = message.cut;
    op.data = message.data;
    op.into = message.into;
    if (message.kind == OpKind::kMakeEqual) {
        op.kind = OpKind::kWrite;
        op.copy = Copy::kAsked;
        op.fua = true;
    }
    if (op.kind == OpKind::kCut)
        op.hold_ms =
            static_cast<std::uint32_t>(std::min<std::uint64_t>(message.value, kLongestCutMs));
    if (role_ == Role::kServing) {
        start_op(op);
    } else {
        settle(op);
    }
}

void Node::on_release(const Message& message) {
    ops_.for_each([&](Op& op) {
        if (op.step == Step::kHeld && op.client_token == message.token &&
            op.attachment == message.attachment && op.cut == message.cut)
            free_op(op);
    });
}

void Node::start_op(Op& op) {
    if (const std::optional<Error> over = session_over(op)) {
        fail_op(op, *over);
        return;
    }
    if (op.kind == OpKind::kCut) {
        start_cut(op);
        return;
    }
    if (op.kind == OpKind::kFlush || op.kind == OpKind::kCutHolds) {
        issue(op);
        return;
    }
    if (waits_behind_cut(op)) {
        op.step = Step::kBehindCut;
        behind_cut_ = true;
        return;
    }
    if (!to_copy_.empty()) {
        const auto pending =
            std::lower_bound(to_copy_.begin(), to_copy_.end(), first_region(op.range));
        if (pending != to_copy_.end() && *pending < end_region(op.range)) {
            op.step = Step::kRegion;
            if (!union_first_) union_first_ = *pending;
            return;
        }
    }
    op.step = Step::kLock;
    op.lock.owner = op.token;
    // Held from its read here to the last answer, so that it overwrites nothing newer there.
    const bool held = op.copy != Copy::kAsked || !faults::rule_off("rule.repair_held");
    if (locks_.acquire(op.lock, op.range, is_change(op.kind)) || !held) locked(op);
}

void Node::locked(Op& op) {
    if (op.kind == OpKind::kHold) {
        op.step = Step::kHeld;
        answer(op);
        return;
    }
    if (op.copy == Copy::kJoin && op.zeroes) {
        op.step = Step::kIssued;
        effects_->extent(op.token, op.range);  // again, now that no write can come between
        return;
    }
    op.change = op.range;
    const bool changes = op.copy == Copy::kNone && is_change(op.kind);
    op.mark_only = changes && applied_before(op.id);
    if (changes && !op.mark_only) leave_out_overwritten(op);
    // What was written over it may not be durable yet.
    op.flush_after = op.fua && (op.mark_only || op.range != op.change);
    const bool others = std::any_of(peers_.begin(), peers_.end(),
                                    [](const Peer& peer) { return bool(peer.replica); });
    // R13: the guest may change its page while it is written to several members, so all get one
    // private copy.
    const bool private_copy =
        op.kind == OpKind::kWrite && op.copy == Copy::kNone && others && !op.mark_only;
    if ((private_copy && !faults::rule_off("rule.private_copy")) || op.copy != Copy::kNone) {
        op.step = Step::kBuffer;
        effects_->acquire_buffer(op.token, op.change.length_bytes);
        return;
    }
    issue(op);
}

void Node::issue(Op& op) {
    op.step = Step::kIssued;
    if (op.kind == OpKind::kFlush) op.durable_tick = tick_;
    const bool reads = op.kind == OpKind::kRead && op.copy == Copy::kNone;
    if (reads || (op.kind == OpKind::kCutHolds && !faults::rule_off("rule.cut_confirmed"))) {
        const bool others =
            std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.needed; });
        if (others && !faults::rule_off("rule.confirm_reads")) {
            // Only a confirmation whose request is sent from now on counts.
            const bool running = round_running_ != 0 && faults::rule_off("rule.round_after_read");
            op.round = running ? round_running_ : round_started_ + 1;
            round_wanted_ = op.round;
            round_reads_.push_back(op.token);
        }
    }
    if (op.copy == Copy::kAsked) touch(op);
    if (is_change(op.kind) && op.copy == Copy::kNone && !op.mark_only) {
        touch(op);
        if (!faults::rule_off("rule.noted_first"))
            ids_->note_perhaps(op.id, op.change, op.range, op.pieces);
    }
    issue_own(op);
    const bool sends = op.copy == Copy::kNone &&
                       (is_change(op.kind) || op.kind == OpKind::kFlush || op.kind == OpKind::kCut);
    if (sends) {
        for (Peer& peer : peers_) {
            if (peer.replica && wants(op, peer)) replicate(op, peer);
        }
    }
    if (op.round != 0) start_round();
    if (op.own_done) settle(op);
}

void Node::issue_own(Op& op) {
    if (op.mark_only || op.kind == OpKind::kCutHolds) {
        op.own_done = true;
        return;
    }
    DiskRequest request{.token = op.token,
                        .kind = op.kind,
                        .fua = op.fua,
                        .keep_allocated = op.keep_allocated,
                        .range = op.range,
                        .cut = op.cut};
    if (op.copy != Copy::kNone) {
        request.kind = OpKind::kRead;
        request.into = op.buffer.bytes.first(op.range.length_bytes);
    } else if (op.kind == OpKind::kWrite) {
        request.data = payload(op);
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
    if (op.copy == Copy::kUnion) return union_goes_to(op, peer) && op.own_done;
    if (op.copy == Copy::kAsked) return peer.member && op.own_done;
    if (op.copy == Copy::kJoin) return peer.joining && op.own_done;
    if (op.kind == OpKind::kFlush) return true;
    if (op.kind == OpKind::kCut) return peer.needed;  // who lacks something can't carry it
    // A write without a private copy began when there was nobody else; a copy waits for its lock.
    return is_change(op.kind) &&
           (op.mark_only || op.kind != OpKind::kWrite || !op.buffer.bytes.empty() ||
            faults::rule_off("rule.private_copy"));
}

void Node::replicate(Op& op, Peer& peer) {
    Ack& ack = op.acks[place_of(peer)];
    ack = Ack{.number = number_, .open = ack.open + 1, .sent = true};
    ++op.open_messages;
    const bool copies = op.copy != Copy::kNone;
    Message message =
        message_to(peer.replica, copies ? MessageType::kCopy : MessageType::kReplicate);
    message.kind = copies ? (op.zeroes ? OpKind::kDiscard : OpKind::kWrite) : op.kind;
    message.fua = op.fua;
    message.keep_allocated = op.keep_allocated;
    message.mark_only = op.mark_only;
    message.check = op.copy == Copy::kAsked || (op.copy == Copy::kJoin && !op.zeroes);
    message.token = op.token;
    message.range = op.range;
    message.id = op.id;
    message.cut = op.cut;
    if (message.kind == OpKind::kWrite) message.data = payload(op);
    if (op.copy == Copy::kUnion) {
        message.ids = std::make_shared<const IdList>(ids_->about(op.range));
    } else if (!copies && is_change(op.kind) && op.change != op.range) {
        message.ids = noted_after(op);
    }
    effects_->send(message);
}

/// What is noted of the change when this piece is applied.
std::shared_ptr<const IdList> Node::noted_after(const Op& op) {
    IdList noted;
    for (const Range& piece : op.pieces) noted.push_back({op.id, false, op.change, piece});
    if (noted.empty()) noted.push_back({op.id, true, op.change});
    return std::make_shared<const IdList>(std::move(noted));
}

void Node::op_disk_done(Op& op, const Result<void>& result) {
    op.own_sent = false;
    if (op.dropped) {
        drop(op);
        return;
    }
    if (op.step == Step::kLingering) {  // a cut that failed meanwhile
        linger(op);
        return;
    }
    if (op.step == Step::kRewrite) {
        rewrite_done(op, result);
        return;
    }
    if (op.step == Step::kRepair) {
        if (!result && result.error().code == Errc::kNoSpace) {
            op.source = kMaxPeers;  // this disk has the least: it is the source of the next round
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
            if (!faults::rule_off("rule.ids_agree")) ids_->copied(op.range, *op.ids);
            repair_done(op);
        } else {
            ids_->take_stock();
            repair_from(op, ids_->about(op.range));
        }
        return;
    }
    if (!result) {
        if ((op.kind == OpKind::kRead && op.copy == Copy::kNone) || op.copy == Copy::kUnion) {
            read_failed(op, result.error());
        } else if (op.copy == Copy::kJoin) {
            abort_join(source_failed(result.error()));  // the volume goes on as it is
        } else if (op.copy == Copy::kAsked || op.kind == OpKind::kCut) {
            fail_op(op, result.error());
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
        ids_->overwritten(op.range, op.id);
        if (op.pieces.empty()) {
            ids_->note_applied(op.id, op.change);
        } else {
            ids_->note_perhaps(op.id, op.change, op.pieces.front(),
                               std::span(op.pieces).subspan(1));
        }
        faults::hit("repl.own_applied");
    }
    settle(op);
}

}  // namespace ublkd::replication
