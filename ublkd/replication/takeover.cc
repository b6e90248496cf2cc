// R7: becoming primary, or starting again as one; R9: after a restart in another boot.
#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {
void Node::take_over(const Membership& record) {
    role_ = Role::kPreparing;
    adopting_ = record;
    if (quiet()) drained();
}

void Node::on_adopted(const Message& message) {
    Peer* const peer = find_peer(message.from);
    if (peer == nullptr || adopting_) return;
    if (role_ != Role::kServing && role_ != Role::kPreparing) return;
    if (message.failed) {
        if (message.error.code == Errc::kStale) {
            learn(message);
            return;
        }
        fail_peer(*peer, message.error);
        if (role_ == Role::kPreparing) prepared();
        return;
    }
    if (message.number != number_) return;  // an earlier number's
    if (!message.in_sync && !peer->joining && !loss_takeover_ &&
        !faults::rule_off("rule.boot_check")) {
        // R9: its unflushed writes are gone; it is lost, and another takes its place by a copy.
        fail_peer(*peer, Error{Errc::kStale, 0, "restarted in another boot"});
        if (role_ == Role::kPreparing) prepared();
        return;
    }
    if (!peer->joining && !faults::rule_off("rule.older_image")) {
        if (message.cleared > durable_through_ && !self_failed_) {
            // R10: this replica lacks what others cleared their bits for; one of them goes on.
            peer_ready(*peer);
            fail_self(Error{Errc::kStale, 0, "an older image of the replica"});
            return;
        }
        if (message.through < cleared_through_) {
            fail_peer(*peer, Error{Errc::kStale, 0, "an older image of the replica"});
            if (role_ == Role::kPreparing) prepared();
            return;
        }
    }
    greatest_mark_ = std::max(greatest_mark_, message.through);
    if (peer->joining) {
        // It may have been primary, and have begun changes, since it was examined.
        if (message.regions) join_.active = united(join_.active, *message.regions);
    } else if (message.regions && role_ == Role::kServing) {
        // One that has joined: its bits go when what is in the regions is durable on all.
        ++tick_;
        for (const std::uint32_t region : *message.regions) regions_[region].last_tick = tick_;
        start_timer(TimerKind::kBits, kClearBitsMs);
    } else if (message.regions) {
        to_copy_ = united(to_copy_, *message.regions);
    }
    if (peer->joining && !peer->begun) plan_join();
    peer_ready(*peer);
    if (peer->joining) {
        if (join_.copied) {
            finish_join();
        } else {
            next_join_copy();
        }
    }
    if (role_ == Role::kPreparing) {
        prepared();
    } else {
        reconsider();
        next_union_copy();
    }
}

/// Serves when every member has answered; those that failed are proposed out first, and so is this
/// node.
void Node::prepared() {
    if (self_failed_) {
        reconsider();
        return;
    }
    bool all_ready = true;
    for (const Peer& peer : peers_) {
        if (!peer.replica || !peer.member) continue;
        if (peer.failed) {
            reconsider();
            return;
        }
        all_ready = all_ready && peer.ready;
    }
    if (all_ready) serve();
}

void Node::serve() {
    RegionSet may_differ = united(to_copy_, effects_->activity());
    // Their bits are cleared like those of writes: after a flush on all members (R10).
    ++tick_;
    for (const std::uint32_t region : may_differ) regions_[region].last_tick = tick_;
    const bool others =
        std::any_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.member; });
    to_copy_ = others && !faults::rule_off("rule.union_copy") ? std::move(may_differ) : RegionSet{};
    to_copy_total_ = to_copy_.size();
    role_ = Role::kServing;
    faults::hit("repl.serving");
    effects_->notice(
        {.kind = Notice::Kind::kServing, .replica = config_.self.replica, .record = &*record_});
    if (!regions_.empty()) start_timer(TimerKind::kBits, kClearBitsMs);
    ops_.for_each([&](Op& op) {
        if (op.step == Step::kQueued) start_op(op);
    });
    next_union_copy();
    reconsider();
}

// ---- R9

void Node::probe() {
    role_ = Role::kProbing;
    probes_open_ = 0;
    probed_in_sync_.clear();
    probe_failed_ = false;
    ++probe_round_;
    for (const Member& member : record_->members) {
        if (member.replica == config_.self.replica || is_missing(member.replica)) continue;
        ++probes_open_;
        Message message = message_to(member.replica, MessageType::kProbe);
        message.token = probe_round_;
        effects_->send(message);
    }
    if (probes_open_ == 0) decide_after_probe();
}

void Node::on_probed(const Message& message) {
    if (message.record) learn(message);
    if (role_ != Role::kProbing || probes_open_ == 0 || message.token != probe_round_ || proposal_)
        return;
    if (message.failed) {
        probe_failed_ = true;
    } else if (message.in_sync) {
        probed_in_sync_.push_back(message.from);
    }
    if (--probes_open_ == 0) decide_after_probe();
}

void Node::decide_after_probe() {
    if (!probed_in_sync_.empty()) {
        // A member that did not restart is the source; this one is copied.
        Message message = message_to(probed_in_sync_.front(), MessageType::kTakeOver);
        message.record = std::make_shared<const Membership>(*record_);
        effects_->send(message);
        role_ = Role::kSecondary;
        if (config_.health_ms != 0) start_timer(TimerKind::kProbe, config_.health_ms);
        return;
    }
    if (probe_failed_ && !faults::rule_off("rule.all_restarted")) {
        // Who can't be asked may hold what was answered: only when all say that they restarted.
        start_timer(TimerKind::kProbe, config_.health_ms);
        return;
    }
    // All restarted: this disk is the source, under a loss number of this boot.
    Membership next = *record_;
    ++next.number;
    ++next.loss_count;
    propose(std::move(next));
}

}  // namespace ublkd::replication
