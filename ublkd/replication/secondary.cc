// What a member that is not primary does, and one that joins: takes over records, applies what its
// primary sends, confirms the number.
#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/replication/node.h"

namespace ublkd::replication {

namespace {

std::vector<Range> pieces_of(const IdList& noted) {
    std::vector<Range> pieces;
    for (const NotedId& piece : noted) {
        if (!piece.applied) pieces.push_back(piece.piece);
    }
    return pieces;
}

}  // namespace

/// R1: from the primary of the record that is stored here, under its number, and no newer record is
/// being stored.
bool Node::from_primary(const Message& message) const {
    const bool number = message.number == number_ || faults::rule_off("rule.number_checked");
    return role_ == Role::kSecondary && !adopting_ && record_ && message.from == record_->primary &&
           number && (in_sync_ || joining_here_);
}

void Node::on_replicate(const Message& message) {
    const bool copy = message.type == MessageType::kCopy;
    const MessageType type = copy ? MessageType::kCopied : MessageType::kReplicated;
    if (!from_primary(message)) {
        refuse(message, type);
        return;
    }
    // Whatever else the primary sends is applied, also where it is known here: a primary that does
    // not know it has others before it, and its order counts.
    if (!copy && is_change(message.kind) && message.mark_only) {
        ids_->note_applied(message.id, message.range);
        Message answer;
        reply(message, type, answer);
        return;
    }
    if (copy) {
        if (message.ids && in_sync_ && !faults::rule_off("rule.ids_agree"))
            ids_->may_be_copied(message.range, *message.ids);
    } else if (is_change(message.kind) && !faults::rule_off("rule.noted_first")) {
        const std::vector<Range> more =
            message.ids ? pieces_of(*message.ids) : std::vector<Range>{};
        const Range& change = message.ids ? message.ids->front().change : message.range;
        ids_->note_perhaps(message.id, change, message.range, more);
    }
    Apply& apply = applies_.make();
    apply.request = message;
    ++disk_open_;
    effects_->disk({.token = apply.token,
                    .kind = message.kind,
                    .fua = message.fua,
                    .keep_allocated = message.keep_allocated,
                    .range = message.range,
                    .data = message.data,
                    .cut = message.cut});
}

void Node::on_confirm(const Message& message) {
    if (!from_primary(message)) {
        refuse(message, MessageType::kConfirmed);
        return;
    }
    Message answer;
    answer.value = message.value;
    reply(message, MessageType::kConfirmed, answer);
}

void Node::on_fetch(const Message& message) {
    if (!from_primary(message)) {
        refuse(message, MessageType::kFetched);
        return;
    }
    Apply& apply = applies_.make();
    apply.request = message;
    ++disk_open_;
    effects_->disk({.token = apply.token,
                    .kind = OpKind::kRead,
                    .range = message.range,
                    .into = message.into});
}

void Node::on_adopt(const Message& message) {
    if (!message.record) return;
    const Membership& record = *message.record;
    if (record.volume != config_.volume || record.number < number_ ||
        (adopting_ && adopting_->number > record.number)) {
        refuse(message, MessageType::kAdopted);
        return;
    }
    if (record.primary == config_.self.replica) {
        // The former primary hands over.
        const bool known = role_ == Role::kServing || role_ == Role::kPreparing;
        if (!known) adopt(record);
        return;
    }
    if (is_missing(record.primary) && in_sync_ && record.has(config_.self.replica)) {
        adopt(record);  // a former primary says so: one of the members goes on
        return;
    }
    if (message.from != record.primary || (!record.has(config_.self.replica) && !message.joining))
        return;
    if (role_ == Role::kServing || role_ == Role::kPreparing) leave_primary();
    new_join_ = new_join_ || (message.joining && !joining_here_);
    // R4: one of its own under this number may have been authorized already.
    if (record.number > number_) proposal_.reset();
    resolving_ = false;
    role_ = Role::kSecondary;
    adopting_ = record;
    adopt_request_ = message;
    if (quiet()) drained();
}

/// The record is durable here, and nothing of the older number is under way.
void Node::answer_adopt(bool joined) {
    const Message request = std::move(*adopt_request_);
    adopt_request_.reset();
    if (request.takeover && request.ids && !faults::rule_off("rule.ids_agree"))
        ids_->agree(*request.ids);
    Message answer;
    answer.in_sync = was_in_sync_ || request.in_sync;
    // R10: all that was copied to a joining member is active there, and nowhere else. R12: what was
    // written here until now, as by one that did not know that it is primary no more, is copied.
    if (request.takeover || joined || (request.joining && request.by_map))
        answer.regions = std::make_shared<const RegionSet>(effects_->activity());
    faults::hit("repl.adopted");
    reply(request, MessageType::kAdopted, answer);
}

void Node::on_finish(const Message& message) {
    if (!from_primary(message) || !joining_here_ || storing_ != Storing::kNothing) {
        refuse(message, MessageType::kFinished);
        return;
    }
    Apply& apply = applies_.make();
    apply.request = message;
    if (faults::rule_off("rule.join_flushes")) {
        apply_disk_done(apply, {});
        return;
    }
    ++disk_open_;
    effects_->disk({.token = apply.token, .kind = OpKind::kFlush});
}

void Node::apply_disk_done(Apply& apply, const Result<void>& result) {
    const Message& request = apply.request;
    if (!result) {
        apply_done(apply, result, 0);
        return;
    }
    switch (request.type) {
        case MessageType::kReplicate:
            if (is_change(request.kind)) {
                ids_->overwritten(request.range, request.id);
                if (!request.ids || request.ids->front().applied) {
                    ids_->note_applied(request.id,
                                       request.ids ? request.ids->front().change : request.range);
                } else {
                    const std::vector<Range> left = pieces_of(*request.ids);
                    ids_->note_perhaps(request.id, request.ids->front().change, left.front(),
                                       std::span(left).subspan(1));
                }
            }
            faults::hit("repl.applied");
            apply_done(apply, result, 0);
            break;
        case MessageType::kCopy:
            if (request.check && apply.step == 0) {
                apply.step = 1;  // what the disk holds now is read back and compared
                effects_->acquire_buffer(apply.token, request.range.length_bytes);
                break;
            }
            if (request.ids && !faults::rule_off("rule.ids_agree")) {
                if (in_sync_)
                    ids_->copied(request.range, *request.ids);
                else
                    ids_->copied_while_joining(request.range, *request.ids);
            }
            ids_->erase(request.id);
            apply_done(
                apply, result,
                apply.step == 0 ? 0 : crc32c(apply.buffer.bytes.first(request.range.length_bytes)));
            break;
        case MessageType::kFinish:
            ids_->join(*request.ids);
            finish_request_ = request;
            applies_.free(apply);
            store(Storing::kJoinFinish);
            break;
        default:
            apply_done(apply, result, 0);
            break;
    }
}

void Node::apply_done(Apply& apply, const Result<void>& result, std::uint64_t value) {
    Message answer;
    answer.value = value;
    answer.failed = !result;
    if (!result) answer.error = result.error();
    if (apply.request.type == MessageType::kFetch && apply.request.check) {
        ids_->take_stock();  // as follow() does where the content goes
        answer.ids = std::make_shared<const IdList>(ids_->about(apply.request.range));
    }
    MessageType type = MessageType::kReplicated;
    if (apply.request.type == MessageType::kCopy) type = MessageType::kCopied;
    if (apply.request.type == MessageType::kFetch) type = MessageType::kFetched;
    if (apply.request.type == MessageType::kFinish) type = MessageType::kFinished;
    reply(apply.request, type, answer);
    if (!apply.buffer.bytes.empty()) effects_->release_buffer(apply.buffer.handle);
    applies_.free(apply);
}

}  // namespace ublkd::replication
