// R18: cuts, from which snapshots are made. A cut is a moment at which no change is under way:
// changes that come later wait, those that have begun end, what members may differ in is copied
// (R7); then each member preserves what its disk holds. So "all writes up to c" are on every
// member, and none past c is on any. Changes go on when the asker releases the cut, or when its
// time is over: several volumes are cut by one request, and none of them may answer a change before
// all have been cut.
#include <algorithm>

#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

void Node::start_cut(Op& op) {
    if (Op* const other = ops_.find(cut_.token); other != nullptr) {
        if (other->cut != op.cut || other->attachment != op.attachment) {
            fail_op(op, Error{Errc::kBusy, 0, "another cut is under way"});
            return;
        }
        // It came again: its asker has lost the connection over which it had asked. Who is a member
        // since it counted is to have it too.
        if (other->client_token != op.client_token && other->step != Step::kHeld) {
            Message message = message_to_client(*other, MessageType::kAnswer);
            message.failed = true;
            message.error = Error{Errc::kCancelled, 0, "it was asked for again"};
            effects_->send(message);
        }
        other->client_token = op.client_token;
        other->client_route = op.client_route;
        free_op(op);
        if (other->step != Step::kHeld) return;
        if (cut_.number == number_) {
            answer(*other);
        } else {
            other->step = Step::kDraining;
            other->own_done = false;
            other->acks.fill(Ack{});
        }
        return;
    }
    cut_ = Cut{.token = op.token};
    op.step = Step::kDraining;
    effects_->start_timer(TimerKind::kCut, op.hold_ms);  // in place of an earlier one's
}

bool Node::waits_behind_cut(const Op& op) const {
    return cut_.token != 0 && is_request(op) && is_change(op.kind) &&
           !faults::rule_off("rule.cut_holds");
}

/// Begins when nothing is under way that it has to have, nor an earlier one that failed.
void Node::drain_cut() {
    Op* const cut = ops_.find(cut_.token);
    if (cut == nullptr || cut->step != Step::kDraining) return;
    bool open = !to_copy_.empty() && !faults::rule_off("rule.cut_after_copies");
    ops_.for_each([&](const Op& op) {
        const bool waits = op.step == Step::kBehindCut || op.step == Step::kRegion;
        const bool changes =
            is_request(op) && is_change(op.kind) && !waits && !faults::rule_off("rule.cut_drains");
        open = open || changes || (op.kind == OpKind::kCut && op.token != cut->token);
    });
    if (!open) issue(*cut);
}

/// All members have it under this number. It holds nothing for who was taken off meanwhile.
void Node::cut_counts(Op& op) {
    if (const std::optional<Error> over = session_over(op)) {
        fail_op(op, *over);
        return;
    }
    op.step = Step::kHeld;
    cut_.number = number_;
    answer(op);
}

/// The same cut, the same number, still held. Members confirm the number in a round that began
/// after the question (R2), so nobody else has answered a change either.
void Node::check_cut(Op& op) {
    const Op* const cut = ops_.find(cut_.token);
    const bool same = cut_.number == number_ || faults::rule_off("rule.cut_number");
    if (cut != nullptr && cut->cut == op.cut && cut->step == Step::kHeld && same) return;
    op.failed = true;
    op.error = Error{Errc::kStale, 0, "the cut is not held any more"};
}

void Node::cut_timed_out() {
    Op* const cut = ops_.find(cut_.token);
    if (cut == nullptr || cut->dropped) return;
    if (cut->step == Step::kHeld) {
        free_op(*cut);
    } else {
        fail_op(*cut, Error{Errc::kTimedOut, 0, "what was under way did not end in time"});
    }
}

/// Its request ends. Who has not got it owes nothing: a cut is no content.
void Node::end_cut(Op& op) {
    if (op.token == cut_.token) cut_ = Cut{};
    for (Ack& ack : op.acks) ack.sent = false;
}

void Node::go_on_after_cut() {
    behind_cut_ = false;
    ops_.for_each([&](Op& op) {
        if (op.step == Step::kBehindCut) start_op(op);
    });
}

}  // namespace ublkd::replication
