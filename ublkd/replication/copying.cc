// Copies: regions of the union of the activity maps before they are served (R7), all of a volume to
// a joining member (R12), and a range that a client asks to be made equal (R14). A copy holds the
// range lock from its read at the source to the acknowledgement of its targets.
#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {
namespace {

constexpr std::uint64_t kHoleBytesMax = 64 * kMiB;  // zeroed under one lock

}  // namespace

// ---- R7

void Node::next_union_copy() {
    if (role_ != Role::kServing || union_op_ != 0 || to_copy_.empty() || self_failed_) return;
    if (union_offset_ == 0) {
        const bool asked =
            union_first_ && std::binary_search(to_copy_.begin(), to_copy_.end(), *union_first_);
        union_region_ = asked ? *union_first_ : to_copy_.front();
    }
    const std::uint64_t begin = std::uint64_t{union_region_} * config_.region_bytes + union_offset_;
    const std::uint64_t end =
        std::min(config_.size_bytes, std::uint64_t{union_region_ + 1} * config_.region_bytes);
    Op& op = ops_.make();
    op.kind = OpKind::kWrite;
    op.copy = Copy::kUnion;
    op.range = Range{begin, std::min<std::uint64_t>(config_.copy_bytes, end - begin)};
    op.fua = !faults::rule_off("rule.copies_durable");  // or a power cut brings back what was lost
    op.step = Step::kLock;
    op.lock.owner = op.token;
    union_op_ = op.token;
    if (locks_.acquire(op.lock, op.range, true)) locked(op);
}

void Node::union_copied(Op& op) {
    const std::uint64_t end =
        std::min(config_.size_bytes, std::uint64_t{union_region_ + 1} * config_.region_bytes);
    const bool region_done = op.range.end_bytes() == end;
    union_offset_ = region_done ? 0 : union_offset_ + op.range.length_bytes;
    union_op_ = 0;
    free_op(op);
    if (region_done) {
        std::erase(to_copy_, union_region_);
        faults::hit("repl.region_copied");
        union_first_.reset();
        ops_.for_each([&](Op& waiting) {
            if (waiting.step == Step::kRegion) start_op(waiting);
        });
    }
    next_union_copy();
}

/// Whether a member is there to be made equal; one that failed leaves by the next number.
bool Node::has_union_target() const {
    return std::any_of(peers_.begin(), peers_.end(),
                       [](const Peer& peer) { return peer.member && !peer.failed; });
}

/// Content that came from another member is new to a joining replica too.
bool Node::union_goes_to(const Op& op, const Peer& peer) {
    return peer.member || (op.ids != nullptr && peer.joining);
}

/// No other member is left: nothing has to be copied before it is served, and what can't be read
/// concerns those alone who ask for it.
void Node::end_union_copies() {
    if (role_ != Role::kServing || to_copy_.empty() || has_union_target()) return;
    to_copy_.clear();
    union_first_.reset();
    Op* const op = ops_.find(union_op_);
    if (op != nullptr && (op->own_failed || op->step == Step::kFetch)) union_copied(*op);
    ops_.for_each([&](Op& waiting) {
        if (waiting.step == Step::kRegion) start_op(waiting);
    });
}

// ---- R12

bool Node::add(const Member& member) {
    const auto free =
        std::find_if(peers_.begin(), peers_.end(), [](const Peer& peer) { return !peer.replica; });
    if (role_ != Role::kServing || join_.replica || record_->has(member.replica) || adopting_ ||
        record_->members.size() >= kMaxMembers || free == peers_.end() || self_failed_)
        return false;
    join_ = Join{.replica = member.replica, .member = member};
    *free = Peer{.replica = member.replica, .joining = true};
    effects_->send(message_to(member.replica, MessageType::kExamine));
    run();
    return true;
}

/// A join begins, also where this node takes part in one: that one was given up there.
void Node::on_examine(const Message& message) {
    new_join_ = true;
    Message answer;
    answer.value = member_number_;
    answer.regions = std::make_shared<const RegionSet>(effects_->activity());
    reply(message, MessageType::kExamined, answer);
}

/// R11: a map fits where it was begun at the loss of just what is there now: the replica was a
/// member last under a smaller number than the one without it, and is no older image of itself.
void Node::on_examined(const Message& message) {
    Peer* const peer = find_peer(message.from);
    if (role_ != Role::kServing || peer == nullptr || !peer->joining || join_.examined) return;
    if (message.failed) {
        abort_join(message.error);
        return;
    }
    join_.examined = true;
    const auto map = std::find_if(lost_.begin(), lost_.end(), [&](const LostMember& entry) {
        return entry.replica == message.from;
    });
    const bool fits = map != lost_.end() && message.value != 0 &&
                      (message.value < map->number || faults::rule_off("rule.map_is_bound")) &&
                      (message.through >= map->through || faults::rule_off("rule.older_image"));
    join_.by_map = fits;
    join_.active = *message.regions;
    if (!adopting_) invite(*peer);  // else with the record that is being stored
}

/// Units of changes that the own disk has not done yet: their bits may not be set. One that began
/// when there was nobody else is sent to nobody; the copy waits for its lock.
UnitSet Node::open_units() {
    UnitSet units;
    ops_.for_each([&](const Op& op) {
        if (op.copy != Copy::kNone || !is_change(op.kind) || !op.own_sent || op.own_done) return;
        const std::uint64_t last = (op.change.end_bytes() - 1) / config_.unit_bytes;
        for (std::uint64_t unit = op.change.offset_bytes / config_.unit_bytes; unit <= last; ++unit)
            units.push_back(static_cast<std::uint32_t>(unit));
    });
    std::sort(units.begin(), units.end());
    units.erase(std::unique(units.begin(), units.end()), units.end());
    return units;
}

/// R12: what may differ by the map here, which has all changes that were done before now, what is
/// under way here (from now on it is sent what begins), and what was under way there.
void Node::plan_join() {
    join_.total_bytes = config_.size_bytes;
    if (!join_.by_map) return;
    UnitSet there;
    const std::uint32_t per_region = config_.region_bytes / config_.unit_bytes;
    const auto units =
        static_cast<std::uint32_t>(divide_up(config_.size_bytes, config_.unit_bytes));
    for (const std::uint32_t region : join_.active) {
        for (std::uint32_t i = 0; i < per_region && region * per_region + i < units; ++i)
            there.push_back(region * per_region + i);
    }
    if (faults::rule_off("rule.joining_activity")) there.clear();
    const UnitSet open = faults::rule_off("rule.open_writes_copied") ? UnitSet{} : open_units();
    const UnitSet done = effects_->dirty(join_.replica);
    UnitSet here;
    std::set_union(done.begin(), done.end(), open.begin(), open.end(), std::back_inserter(here));
    std::set_union(here.begin(), here.end(), there.begin(), there.end(),
                   std::back_inserter(join_.units));
    join_.total_bytes = std::uint64_t{config_.unit_bytes} * join_.units.size();
}

/// The next range of a copy by a map or of all; empty: none is left.
Range Node::next_to_copy() {
    if (!join_.by_map)
        return Range{join_.cursor, std::min(kHoleBytesMax, config_.size_bytes - join_.cursor)};
    const auto begin_of = [&](std::uint32_t unit) {
        return std::uint64_t{unit} * config_.unit_bytes;
    };
    const UnitSet& units = join_.units;
    while (join_.next_unit < units.size() && begin_of(units[join_.next_unit] + 1) <= join_.cursor)
        ++join_.next_unit;
    if (join_.next_unit == units.size()) return Range{};
    std::size_t end = join_.next_unit + 1;
    while (end < units.size() && units[end] == units[end - 1] + 1 &&
           begin_of(units[end]) - begin_of(units[join_.next_unit]) < kHoleBytesMax)
        ++end;
    const std::uint64_t begin = std::max(join_.cursor, begin_of(units[join_.next_unit]));
    return Range{begin, std::min(config_.size_bytes, begin_of(units[end - 1] + 1)) - begin};
}

void Node::next_join_copy() {
    if (role_ != Role::kServing || !join_.replica || join_op_ != 0 || join_.copied) return;
    const Peer* const peer = find_peer(join_.replica);
    if (peer == nullptr || !peer->ready) return;
    const Range range = next_to_copy();
    if (range.length_bytes == 0) {
        join_.copied = true;
        finish_join();
        return;
    }
    Op& op = ops_.make();
    op.kind = OpKind::kWrite;
    op.copy = Copy::kJoin;
    op.fua = !faults::rule_off("rule.copies_durable");
    op.range = range;
    op.step = Step::kIssued;
    join_op_ = op.token;
    effects_->extent(op.token, op.range);
}

/// Found: data, or a hole. A hole is looked at once more under its lock.
void Node::join_probed(Op& op, const Result<block::Extent>& extent) {
    if (op.dropped) {
        drop(op);
        return;
    }
    if (!extent) {
        abort_join(source_failed(extent.error()));
        return;
    }
    if (op.lock.queued) {
        if (extent->allocated || extent->length_bytes < op.range.length_bytes) {
            join_op_ = 0;  // a write came first
            free_op(op);
            next_join_copy();
            return;
        }
        op.own_done = true;
        for (Peer& peer : peers_) {
            if (peer.replica && wants(op, peer)) replicate(op, peer);
        }
        return;
    }
    op.zeroes = !extent->allocated;
    const std::uint64_t most = op.zeroes ? op.range.length_bytes : config_.copy_bytes;
    op.range.length_bytes = std::min(extent->length_bytes, most);
    op.step = Step::kLock;
    op.lock.owner = op.token;
    if (locks_.acquire(op.lock, op.range, true) || faults::rule_off("rule.copy_lock")) locked(op);
}

void Node::on_copied(const Message& message) {
    Op* const op = ops_.find(message.token);
    if (op == nullptr) return;
    if (op->step == Step::kRepair) {
        if (Ack* const ack = message_answered(*op, message); ack != nullptr) {
            Peer& peer = *find_peer(message.from);
            const bool stays = !peer.joining || proposed(peer);
            if (!message.failed) {
                ack->done = true;
            } else if (message.error.code == Errc::kNoSpace && stays) {
                ack->full = true;
            } else if (message.error.code != Errc::kStale) {
                fail_peer(peer, message.error);
            }
        }
        if (!op->dropped) repair_done(*op);
        return;
    }
    if (op->copy == Copy::kAsked) {
        asked_copied(*op, message);
        return;
    }
    const bool checked =
        op->copy == Copy::kJoin && !op->zeroes && !message.failed && op->step == Step::kIssued;
    if (checked && !op->dropped &&
        message.value != crc32c(op->buffer.bytes.first(op->range.length_bytes)) &&
        !faults::rule_off("rule.copy_compared")) {
        (void)message_answered(*op, message);
        abort_join(Error{Errc::kCorrupt, 0, "copied content differs on the target's disk"});
        return;
    }
    on_replicated(message);
}

/// R14: a member holds the range durably, or says why not; whoever asked is told of the latter.
void Node::asked_copied(Op& op, const Message& message) {
    Ack* const ack = message_answered(op, message);
    if (ack == nullptr) return;
    if (message.failed && message.error.code == Errc::kStale) {
        learn(message);  // sent again when it is ready
        return;
    }
    const bool counts = message.number == ack->number && message.number == number_;
    const auto content = op.buffer.bytes.first(op.range.length_bytes);
    if (message.failed) {
        op.failed = true;
        op.error = message.error;
        if (message.error.code != Errc::kNoSpace) {
            fail_peer(*find_peer(message.from), message.error);
            return;
        }
    } else if (message.value != crc32c(content) && !faults::rule_off("rule.copy_compared")) {
        op.failed = true;
        op.error = Error{Errc::kIo, 0, "a member's disk does not keep what is written to it"};
    }
    if (!counts) return;
    ack->sent = false;
    ack->done = true;
    settle(op);
}

void Node::join_copied(Op& op) {
    const std::uint64_t copied = op.zeroes ? 0 : op.range.length_bytes;
    join_.cursor = op.range.end_bytes();
    join_.done_bytes += op.range.length_bytes;
    join_op_ = 0;
    free_op(op);
    faults::hit("repl.part_copied");
    if (config_.copy_bytes_per_second != 0 && copied != 0) {
        const std::uint64_t wait_ms = copied * 1000 / config_.copy_bytes_per_second;
        start_timer(TimerKind::kCopy,
                    static_cast<std::uint32_t>(std::min<std::uint64_t>(wait_ms, 10'000)));
        return;
    }
    next_join_copy();
}

/// All is copied: from now on acknowledgements and flushes need it, and it makes durable what it
/// has.
void Node::finish_join() {
    Peer* const peer = find_peer(join_.replica);
    if (peer == nullptr || !peer->ready) return;
    if (!std::exchange(peer->needed, true)) confirm_too(*peer);
    ops_.for_each([&](Op& op) {
        if (op.kind == OpKind::kCut && op.step == Step::kIssued && wants(op, *peer))
            replicate(op, *peer);
    });
    // What was answered without it, it has first: a flush may have been answered since.
    bool owed = false;
    ops_.for_each([&](const Op& op) {
        const Ack& ack = op.acks[place_of(*peer)];
        owed = owed || (op.step == Step::kLingering && (ack.open > 0 || (ack.sent && !ack.done)));
    });
    if (owed) return;  // message_answered() comes here again
    join_.asked = true;
    Message message = message_to(join_.replica, MessageType::kFinish);
    message.record = std::make_shared<const Membership>(*record_);
    message.ids = std::make_shared<const IdList>(ids_->list());
    effects_->send(message);
}

void Node::on_finished(const Message& message) {
    if (message.from != join_.replica || !join_.copied) return;
    if (message.failed) {
        if (message.error.code != Errc::kStale) abort_join(message.error);
        return;
    }
    if (message.number != number_) return;
    join_.finished = true;
    reconsider();
}

/// A copy ends by this primary's own disk: the joining replica is lost with a cause that blames no
/// disk of its own.
Error Node::source_failed(const Error& error) {
    return Error{Errc::kCancelled, error.sys_errno,
                 "the primary's disk, the copy's source, can't be read"};
}

void Node::abort_join(const Error& cause) {
    Peer* const peer = find_peer(join_.replica);
    if (peer == nullptr) return;
    const std::size_t place = place_of(*peer);
    const ReplicaId replica = std::exchange(join_, Join{}).replica;
    *peer = Peer{};
    if (Op* const op = ops_.find(std::exchange(join_op_, 0)); op != nullptr) {
        op->dropped = true;
        // Looking for the next extent, it holds nothing: on_extent() finds it dropped.
        if (!op->own_sent) free_op(*op);
    }
    effects_->notice({.kind = Notice::Kind::kLost, .replica = replica, .cause = cause});
    forget_acks(place);
    ops_.for_each([&](Op& op) { settle(op); });
    round_running_ = 0;  // it may wait for this replica alone: what is open is asked for again (R2)
    start_round();
    reconsider();
}

}  // namespace ublkd::replication
