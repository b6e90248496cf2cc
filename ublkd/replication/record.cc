// The membership record of a node: in the superblock, proposed (R4), taken over, and the peers that
// follow from it.
#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {
namespace {

constexpr std::uint32_t kAuthorityRetryMs = 100;
constexpr std::uint32_t kAuthorityRetryMaxMs = 2000;

}  // namespace

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
    request.lost = lost_;
    switch (storing_) {
        case Storing::kNothing:
            return;
        case Storing::kPending:
            request.record = &*record_;
            request.pending = &proposal_;
            request.in_sync = in_sync_;
            break;
        case Storing::kRecord: {
            const bool member = adopting_->has(config_.self.replica);
            const bool by_loss = loss_takeover_ || (adopt_request_ && adopt_request_->in_sync);
            storing_number_ = adopting_->number;
            request.pending = &proposal_;
            request.in_sync = member && (in_sync_ || by_loss);
            if (member) {
                request.record = &*adopting_;
                request.lost = lost_after(*adopting_);
            } else {  // by what it was last, it may be brought back (R11)
                request.keep_record = true;
                if (!faults::rule_off("rule.left_is_known")) request.left_by = &*adopting_;
            }
            break;
        }
        case Storing::kJoinBegin:
            storing_number_ = adopting_->number;
            request.keep_record = adopt_request_->by_map;
            request.left_by = &*adopting_;
            request.lost = {};
            break;
        case Storing::kJoinFinish:
            request.record = &*record_;
            request.in_sync = true;
            request.durable_through = std::max(durable_through_, finish_request_->through);
            break;
    }
    storing_lost_ = request.lost;
    effects_->store(request);
}

/// R5, R11: who leaves gets a map, who is a member needs none. Where there is no place the one that
/// was lost first gives it up: its replica is copied whole.
LostMembers Node::lost_after(const Membership& next) const {
    LostMembers lost = lost_;
    for (LostMember& entry : lost) {
        if (next.has(entry.replica)) entry = LostMember{};
    }
    if (!record_ || !record_->has(config_.self.replica)) return lost;
    for (const Member& member : record_->members) {
        const bool known = std::any_of(lost.begin(), lost.end(), [&](const LostMember& entry) {
            return entry.replica == member.replica;
        });
        if (known || next.has(member.replica)) continue;
        *std::min_element(lost.begin(), lost.end(), [](const LostMember& a, const LostMember& b) {
            return a.number < b.number;
        }) = LostMember{member.replica, next.number, cleared_through_};
    }
    return lost;
}

void Node::on_stored(std::uint64_t token, Result<void> result) {
    if (token != store_token_ || storing_ == Storing::kNothing) return;
    if (!result && result.error().code == Errc::kNoSpace) {
        store_waits_ = true;
        start_timer(TimerKind::kFull, kAuthorityRetryMs);
        return;  // retry_full() stores again; a full pool puts nobody out
    }
    const Storing what = std::exchange(storing_, Storing::kNothing);
    if (result) {
        stored(what);
    } else {
        store_failed(what, result.error());
    }
    store_next();
    run();
}

/// It had found no space: what is to be stored by now.
void Node::store_again() {
    const Storing what = std::exchange(storing_, Storing::kNothing);
    const bool finishes = what == Storing::kJoinFinish && finish_request_;
    if (!adopting_ && (what == Storing::kPending || finishes)) {
        store(what);
    } else {
        store_next();
    }
}

/// A record or a proposal that came while something else was being stored.
void Node::store_next() {
    if (adopting_ && storing_ == Storing::kNothing && (role_ == Role::kServing || quiet()))
        drained();
    const bool backs_off = timers_[static_cast<std::size_t>(TimerKind::kAuthority)];
    if (storing_ == Storing::kNothing && proposal_ && !proposal_sent_ && !adopting_ && !backs_off) {
        if (std::exchange(proposal_waits_, false)) {
            store(Storing::kPending);
        } else {
            send_proposal();
        }
    }
    reconsider();
}

void Node::stored(Storing what) {
    lost_ = storing_lost_;
    switch (what) {
        case Storing::kNothing:
            break;
        case Storing::kPending:
            faults::hit("repl.pending_stored");
            break;  // on_stored() sends it
        case Storing::kRecord:
        case Storing::kJoinBegin:
            faults::hit("repl.record_stored");
            if (!adopting_ || adopting_->number != storing_number_)
                break;  // a newer one came meanwhile
            record_stored();
            break;
        case Storing::kJoinFinish:
            faults::hit("repl.join_marked");
            in_sync_ = true;
            member_number_ = number_;
            if (finish_request_)
                durable_through_ = std::max(durable_through_, finish_request_->through);
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
        case Storing::kNothing:
            break;
        case Storing::kPending:
            proposal_.reset();  // it was not sent
            if (failover_asker_)
                refuse(*std::exchange(failover_asker_, std::nullopt), MessageType::kMoved);
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
            // A primary's: the record counts (it is the authority's), but this disk holds nothing
            // any more.
            if (!self_failed_ && adopting_->has(config_.self.replica))
                effects_->notice(
                    {.kind = Notice::Kind::kLost, .replica = config_.self.replica, .cause = error});
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
    if (self_failed_ || faults::rule_off("rule.pending_first")) {
        send_proposal();
    } else if (storing_ == Storing::kNothing) {
        store(Storing::kPending);
    } else {
        proposal_waits_ = true;  // on_stored() goes on
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
    start_timer(TimerKind::kAuthority,
                std::min(kAuthorityRetryMs << doublings, kAuthorityRetryMaxMs));
}

void Node::on_outcome(Result<Verdict> verdict, const Membership* current) {
    if (!proposal_ || !proposal_sent_) return;
    if (verdict && *verdict == Verdict::kBarred && current != nullptr &&
        current->number == number_) {
        withdraw(*current);
        return;
    }
    // The old number read back says nothing: the proposal may still arrive, so the same one is sent
    // again.
    if (!verdict || (!accepted(*verdict) && (current == nullptr || current->number <= number_))) {
        if (verdict) trouble("the authority declined a proposal under its own number");
        retry_authority();
        run();
        return;
    }
    authority_failures_ = 0;
    faults::hit("repl.authorized");
    const bool ours = accepted(*verdict);
    const Membership next = ours ? proposal_->next : *current;
    const std::vector<ReplicaId> missing = missing_;
    proposal_.reset();
    if (std::exchange(resolving_, false)) {
        begin(next, missing);
    } else {
        loss_takeover_ = loss_takeover_ || (ours && next.loss_count > record_->loss_count);
        came_late_ = !ours;
        adopt(next);
    }
    run();
}

/// R4, the one declined proposal whose outcome is certain at its base number: the authority
/// answered that this base is current and that the proposal adds a replica that is barred. No copy
/// of it was authorized before (the number would be greater), and one that arrives later is
/// declined as well, since a bar is for ever. So it will never count: nothing waits for the replica
/// any more, and the volume goes on under the number that it has. It is taken out of the superblock
/// by the next store; until then a restart sends it again, and is answered the same.
void Node::withdraw(const Membership& current) {
    authority_failures_ = 0;
    proposal_.reset();
    faults::hit("repl.barred");
    if (std::exchange(resolving_, false)) {
        const std::vector<ReplicaId> missing = missing_;
        begin(Membership(current), missing);
        run();
        return;
    }
    if (!self_failed_ && !adopting_ && storing_ == Storing::kNothing)
        store(Storing::kPending);  // there is none now
    abort_join(
        Error{Errc::kConflict, 0, "the replica may not join: its permission was taken from it"});
    reconsider();
    run();
}

void Node::on_current(Result<const Membership*> current) {
    asking_ = false;
    if (current && *current != nullptr && (*current)->number > number_ && !proposal_)
        adopt(**current);
    run();
}

// ---- records

/// Takes over a record with a greater number that came from the authority or from an authenticated
/// peer with the record.
void Node::adopt(const Membership& record) {
    if (record.number <= number_ || (adopting_ && adopting_->number >= record.number)) return;
    const bool primary_here = record.primary == config_.self.replica;
    proposal_.reset();
    proposal_waits_ = false;
    resolving_ = false;
    adopting_ = record;
    if (adopt_request_) {  // under a number that is over before it was stored
        refuse(*adopt_request_, MessageType::kAdopted);
        adopt_request_.reset();
    }
    if (primary_here && !in_sync_ && !loss_takeover_ && !faults::rule_off("rule.boot_check")) {
        // R9: a handover of the boot before, which came late.
        record_ = std::move(*adopting_);
        adopting_.reset();
        number_ = record_->number;
        probe();
        return;
    }
    if (!primary_here && (role_ == Role::kServing || role_ == Role::kPreparing)) leave_primary();
    if (!record.has(config_.self.replica)) {
        role_ = Role::kOut;
    } else if (!primary_here) {
        role_ = Role::kSecondary;
    } else if (role_ != Role::kServing) {
        role_ = Role::kPreparing;
    }
    if (role_ == Role::kServing || quiet()) drained();
}

/// R7 (2): no own disk request of the older number is open any more.
bool Node::quiet() const {
    return (disk_open_ == 0 && applies_.count() == 0) || faults::rule_off("rule.drain_first");
}

/// What was under way under the older number has ended (a serving primary's goes on): the record
/// may be stored.
void Node::drained() {
    if (storing_ != Storing::kNothing || !adopting_) return;
    const bool joins = adopt_request_ && adopt_request_->joining;
    if (self_failed_) {
        record_stored();
        return;
    }
    if (joins && std::exchange(new_join_, false)) ids_->clear();  // nothing notes ids now
    store(joins ? Storing::kJoinBegin : Storing::kRecord);
}

void Node::record_stored() {
    const Membership before = record_ ? *record_ : *adopting_;
    was_in_sync_ = in_sync_;
    record_ = std::move(*adopting_);
    adopting_.reset();
    number_ = record_->number;
    if (record_->has(config_.self.replica)) member_number_ = number_;
    std::erase_if(missing_, [&](ReplicaId replica) {  // those that have returned
        return record_->has(replica) && !before.has(replica);
    });
    marking_ = Marking{};
    mark_request_.reset();
    if (failover_asker_) refuse(*std::exchange(failover_asker_, std::nullopt), MessageType::kMoved);
    const bool joins = adopt_request_ && adopt_request_->joining;
    const bool joined = joining_here_ && !joins;
    joining_here_ = joins;
    if (joins) {
        role_ = Role::kSecondary;
        in_sync_ = false;
        if (!adopt_request_->by_map) member_number_ = 0;
    } else if (loss_takeover_ || (adopt_request_ && adopt_request_->in_sync)) {
        in_sync_ = true;
    }
    if (!record_->has(config_.self.replica) && !joins) in_sync_ = false;
    if (!joins)
        effects_->notice(
            {.kind = Notice::Kind::kRecord, .replica = config_.self.replica, .record = &*record_});
    if (adopt_request_) {
        ops_.for_each([&](Op& op) { drop(op); });
        answer_adopt(joined);
        return;
    }
    if (role_ == Role::kSecondary || role_ == Role::kOut) {
        ops_.for_each([&](Op& op) { drop(op); });
        // A primary that handed over tells its successor, after its own disk has become quiet.
        // So does one whose own proposal came too late: the new primary's may have died with it.
        const bool tells =
            std::exchange(came_late_, false) ||
            (before.primary == config_.self.replica && record_->primary != config_.self.replica);
        if (role_ == Role::kSecondary && in_sync_ && is_missing(record_->primary) && !proposal_) {
            propose_handover();  // another's proposal came first, and names a primary that is gone
        } else if (tells) {
            tell_members();
        }
        return;
    }
    if (role_ == Role::kPreparing) ids_->take_stock();  // nothing of before is under way any more
    set_peers();
    for (Peer& peer : peers_) {
        const bool examined = !peer.joining || join_.examined;
        if (peer.replica && !peer.failed && examined) invite(peer);
    }
    if (role_ == Role::kPreparing) {
        prepared();
        return;
    }
    if (join_.replica && record_->has(join_.replica)) {
        if (const Peer* const peer = find_peer(join_.replica); peer != nullptr && !peer->failed)
            effects_->notice({.kind = Notice::Kind::kJoined,
                              .replica = join_.replica,
                              .by_map = join_.by_map,
                              .done = join_.done_bytes});
        join_ = Join{};
    }
    // One that failed while it was proposed, and is no member by the record that came instead.
    if (const Peer* const peer = find_peer(join_.replica);
        join_.replica && peer != nullptr && peer->joining && peer->failed)
        abort_join(Error(*peer->failed));
    // Acknowledgements and confirmations were given under the old number: what is open is asked for
    // again (R2).
    round_running_ = 0;
    start_round();
    end_sessions();
    ops_.for_each([&](Op& op) { settle(op); });
    end_union_copies();
    reconsider();
}

/// The primary; where it is gone all other members: one of them goes on in its place.
void Node::tell_members() {
    const bool gone = is_missing(record_->primary);
    for (const Member& member : record_->members) {
        if (member.replica == config_.self.replica || is_missing(member.replica)) continue;
        if (!gone && member.replica != record_->primary) continue;
        Message message = message_to(member.replica, MessageType::kAdopt);
        message.record = std::make_shared<const Membership>(*record_);
        effects_->send(message);
    }
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
        if (peer.joining) join_.asked = join_.finished = false;  // it stores the new number first
        if (peer.member || peer.joining) continue;
        peer = Peer{};
        forget_acks(place);
    }
    for (const Member& member : record_->members) {
        if (member.replica == config_.self.replica || find_peer(member.replica) != nullptr)
            continue;
        const auto free = std::find_if(peers_.begin(), peers_.end(),
                                       [](const Peer& peer) { return !peer.replica; });
        CHECK(free != peers_.end(), "a place for each other member");
        *free = Peer{.replica = member.replica, .member = true, .needed = true};
        if (is_missing(member.replica)) {
            free->failed = Error{Errc::kNotFound, 0, "the replica can't be opened"};
            effects_->notice(
                {.kind = Notice::Kind::kLost, .replica = free->replica, .cause = *free->failed});
        }
    }
}

Node::Peer* Node::find_peer(ReplicaId replica) {
    const auto found = std::find_if(peers_.begin(), peers_.end(), [&](const Peer& peer) {
        return peer.replica == replica && peer.replica;
    });
    return found == peers_.end() ? nullptr : &*found;
}

/// R7 (2), and each later number: the peer closes what is older, drains, stores the record and
/// answers.
void Node::invite(Peer& peer) {
    Message message = message_to(peer.replica, MessageType::kAdopt);
    message.record = std::make_shared<const Membership>(*record_);
    message.takeover = role_ == Role::kPreparing;
    message.joining = peer.joining;
    message.by_map = peer.joining && join_.by_map;
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
        ops_.for_each([&](Op& op) { settle(op); });  // some waited to be sent to it
    if (peer.needed) confirm_too(peer);
}

/// A round that is under way waits for this one as well from now on.
void Node::confirm_too(const Peer& peer) {
    if (round_running_ == 0) return;
    Message message = message_to(peer.replica, MessageType::kConfirm);
    message.value = round_running_;
    effects_->send(message);
}

/// Proposes what the state of members and disks asks for, when nothing is being decided (R5, R12).
void Node::reconsider() {
    if (role_ != Role::kServing && role_ != Role::kPreparing) return;
    if (proposal_ || adopting_ || storing_ != Storing::kNothing || !record_) return;
    Membership next = *record_;
    ++next.number;
    if (attachments_) next.attachments = *attachments_;
    std::erase_if(next.members, [&](const Member& member) {
        const Peer* const peer = find_peer(member.replica);
        return peer != nullptr && peer->failed;
    });
    if (self_failed_) {
        std::erase_if(next.members,
                      [&](const Member& member) { return member.replica == config_.self.replica; });
        if (next.members.empty()) {
            give_up_changes();  // the last member is never removed: its errors go to the guest
            return;
        }
        const Peer* const heir = find_peer(next.members.front().replica);
        if (heir == nullptr || !heir->ready) return;
        next.primary = heir->replica;
        propose(std::move(next));
        return;
    }
    if (next.members.size() < record_->members.size()) {
        if (faults::rule_off("rule.lost_leaves_first")) return;
        propose(std::move(next));
    } else if (join_.finished && role_ == Role::kServing) {
        next.members.push_back(join_.member);
        propose(std::move(next));
    } else if (next.attachments != record_->attachments) {
        propose(std::move(next));
    }
}

}  // namespace ublkd::replication
