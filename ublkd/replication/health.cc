// R6: failover on a client's request, after a health check. A secondary that is asked to take over
// asks all other members whether they could acknowledge now; the primary answers when its disk, a
// round of confirmations and any open proposal have, so a clock is needed for the asker's deadline
// alone.
#include <algorithm>
#include <utility>

#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

// ---- a secondary

/// An out-of-sync member never accepts, nor one whose disk failed.
bool Node::may_take_over() const {
    return role_ == Role::kSecondary && in_sync_ && !self_failed_ && !joining_here_ && !adopting_ &&
           !proposal_ && record_;
}

void Node::on_failover(const Message& message) {
    if (message.number > number_) learn(message);
    const bool may = may_take_over() && message.number == number_ && attached(message.attachment);
    if (!may || failover_) {
        refuse(message, MessageType::kMoved);  // it asks again
        return;
    }
    failover_ = Failover{.request = message, .token = ++failovers_};
    for (const Member& member : record_->members) {
        if (member.replica == config_.self.replica) continue;
        ++failover_->open;
        Message question = message_to(member.replica, MessageType::kHealth);
        question.attachment = message.attachment;
        question.token = failover_->token;
        effects_->send(question);
    }
    failover_->timed = start_timer(TimerKind::kFailover, config_.health_ms);
}

/// A timer that was started for an earlier question says nothing of this one.
void Node::failover_timed_out() {
    if (!failover_) return;
    if (failover_->timed) {
        decide_failover();
    } else {
        failover_->timed = start_timer(TimerKind::kFailover, config_.health_ms);
    }
}

void Node::on_healthy(const Message& message) {
    if (!failover_ || message.token != failover_->token) return;
    if (message.record) learn(message);
    if (!failover_) return;
    const bool well = !message.failed && message.number == number_;
    if (well && message.from == record_->primary) {
        failover_->healthy = true;
        failover_->others = message.value > 0;
    } else if (well && message.in_sync) {
        failover_->members.push_back(message.from);
    }
    if (--failover_->open == 0) decide_failover();
}

/// All have answered, or it is time. A primary that is well and serves others stays; it is never a
/// member of the record without it as primary, since it may hold what nobody else has.
void Node::decide_failover() {
    if (!failover_) return;
    const Failover asked = *std::exchange(failover_, std::nullopt);
    const bool may = may_take_over() && asked.request.number == number_;
    const bool stays = asked.healthy && asked.others && !asked.request.check &&
                       !faults::rule_off("rule.health_checked");
    if (!may || stays) {
        refuse(asked.request, MessageType::kMoved);
        return;
    }
    failover_asker_ = asked.request;  // told of the outcome
    effects_->notice({.kind = Notice::Kind::kFailover,
                      .replica = record_->primary,
                      .text = asked.request.check ? "is to hand over"
                              : asked.healthy     ? "serves no other attachment"
                                                  : "is not healthy"});
    propose_self(asked.members);
}

// ---- who is asked

void Node::on_health(const Message& message) {
    // A member says whether it can be one; to a client a member that is not primary is not well.
    const bool member = role_ == Role::kSecondary && !adopting_ && !joining_here_ && message.from &&
                        message.from != record_->primary &&
                        record_->primary != config_.self.replica;
    if (message.number == number_ && member) {
        Message answer;
        answer.in_sync = in_sync_ && !self_failed_;
        reply(message, MessageType::kHealthy, answer);
        return;
    }
    if (message.number != number_ || role_ != Role::kServing) {
        refuse(message, MessageType::kHealthy);
        return;
    }
    Check* again = nullptr;  // the same asker once more: it gets one answer
    checks_.for_each([&](Check& open) {
        if (open.request.from == message.from && open.request.attachment == message.attachment)
            again = &open;
    });
    Check& check = again != nullptr ? *again : checks_.make();
    check.request = message;
    check.round = round_started_ + 1;  // that begins after the question
    round_wanted_ = std::max(round_wanted_, check.round);
    if (again != nullptr) {
        start_round();
        return;
    }
    for (const AttachmentId attachment : record_->attachments) {
        if (attachment == message.attachment || !message.from) continue;
        ++check.pings;
        Message ping = message_to(ReplicaId(), MessageType::kPing);
        ping.attachment = attachment;
        ping.token = check.token;
        effects_->send(ping);
    }
    check.timed = check.pings > 0 && start_timer(TimerKind::kPing, config_.health_ms / 2);
    effects_->acquire_buffer(check.token, kPageBytes);
    start_round();
}

/// Who has not answered by now is not attached; those who were asked after the timer began get one
/// of their own.
void Node::pings_timed_out() {
    checks_.for_each([&](Check& check) {
        if (check.pings == 0) return;
        if (check.timed) {
            check.pings = 0;
        } else {
            check.timed = true;
            start_timer(TimerKind::kPing, config_.health_ms / 2);
        }
    });
}

void Node::on_pong(const Message& message) {
    Check* const check = checks_.find(message.token);
    if (check == nullptr || check->pings == 0) return;
    --check->pings;
    if (!message.failed) ++check->attached;
}

/// Answers those who asked whether this node is well, where it is known by now.
void Node::answer_checks() {
    checks_.for_each([&](Check& check) {
        if (check.disk_open) return;  // its disk uses the buffer
        const bool over =
            role_ != Role::kServing || self_failed_ || check.request.number != number_;
        const bool known = check.disk_done && check.round <= round_done_ && !proposal_ &&
                           !adopting_ && (check.pings == 0 || check.attached > 0);
        if (!over && !known) return;
        if (over) {
            refuse(check.request, MessageType::kHealthy);
        } else {
            Message answer;
            answer.in_sync = in_sync_;
            answer.value = check.attached;
            answer.losses = record_->loss_count;
            reply(check.request, MessageType::kHealthy, answer);
        }
        if (!check.buffer.bytes.empty()) effects_->release_buffer(check.buffer.handle);
        checks_.free(check);
    });
}

}  // namespace ublkd::replication
