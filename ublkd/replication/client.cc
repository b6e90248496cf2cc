#include "ublkd/replication/client.h"

#include <utility>

#include "ublkd/base/check.h"

namespace ublkd::replication {

void Client::submit(ClientRequest& request) {
    CHECK(request.place == ClientRequest::Place::kNone, "a request is submitted once");
    ++open_;
    if (greeting_ && !timer_ && record_) ask_primary();
    watch();
    if (!is_change(request.kind)) {
        begin(request);
        return;
    }
    if (request.id.sequence == 0) request.id = RequestId{config_.client_start, ++sequence_};
    const std::uint64_t sequence = request.id.sequence;
    Start& start = start_of(request.id.client_start);
    const bool older_waits =
        start.waiting_first != nullptr && start.waiting_first->id.sequence < sequence;
    if (older_waits || !start.open.may_add(sequence)) {
        wait(start, request);
        return;
    }
    start.open.add(sequence);
    begin(request);
}

Client::Start& Client::start_of(std::uint64_t client_start) {
    for (Start& start : starts_) {
        if (start.client_start == client_start) return start;
    }
    starts_.push_back(Start{.client_start = client_start});
    return starts_.back();
}

void Client::forget_if_unused(std::uint64_t client_start) {
    Start& start = start_of(client_start);
    if (!start.open.empty() || start.waiting_first != nullptr) return;
    start = starts_.back();
    starts_.pop_back();
}

/// Into its place by sequence; mostly that is the last one.
void Client::wait(Start& start, ClientRequest& request) {
    request.place = ClientRequest::Place::kWindow;
    ClientRequest* before = start.waiting_last;
    while (before != nullptr && before->id.sequence > request.id.sequence)
        before = before->previous;
    request.previous = before;
    request.next = before == nullptr ? start.waiting_first : before->next;
    (before == nullptr ? start.waiting_first : before->next) = &request;
    (request.next == nullptr ? start.waiting_last : request.next->previous) = &request;
}

void Client::begin(ClientRequest& request) {
    request.previous = last_;
    request.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &request;
    last_ = &request;
    send(request);
}

void Client::send(ClientRequest& request) {
    if (request.token == 0) {
        Open& open = tokens_.make();
        open.request = &request;
        request.token = open.token;
    }
    if (!record_ || greeting_) {
        request.place = ClientRequest::Place::kParked;
        ++parked_;
        return;
    }
    request.place = ClientRequest::Place::kSent;
    request.sent_number = record_->number;
    request.sent_round = round_;
    request.sent_to = record_->primary;
    Message message = message_to_primary(MessageType::kRequest);
    message.kind = request.kind;
    message.fua = request.fua;
    message.keep_allocated = request.keep_allocated;
    message.id = request.id;
    message.token = request.token;
    message.range = request.range;
    message.data = request.data;
    message.into = request.into;
    message.cut = request.cut;
    message.value = request.hold_ms;
    effects_->send_to_node(message);
}

Message Client::message_to_primary(MessageType type) const {
    Message message;
    message.type = type;
    message.volume = config_.volume;
    message.to = record_->primary;
    message.attachment = config_.attachment;
    message.losses = losses_;
    message.number = record_->number;
    return message;
}

void Client::release(ClientRequest& request) {
    Message message = message_to_primary(MessageType::kRelease);
    message.kind = request.kind;
    message.token = request.token;
    message.cut = request.cut;
    // A hold ended with its connection; a cut holds until its time is over.
    if (!request.lost || request.kind == OpKind::kCut) effects_->send_to_node(message);
    remove(request);
}

void Client::on_message(const Message& message) {
    if (message.volume != config_.volume) return;
    if (message.type == MessageType::kPing) {
        Message answer;
        answer.type = MessageType::kPong;
        answer.volume = config_.volume;
        answer.to = message.from;
        answer.token = message.token;
        answer.route = message.route;
        effects_->send_to_node(answer);
        return;
    }
    if (message.record) learn(*message.record);
    if (message.type == MessageType::kHealthy && !message.failed) {
        heard_ = true;
        if (std::exchange(greeting_, false)) {
            losses_ = message.losses;
            send_parked(true);
        }
    }
    Open* const open = tokens_.find(message.token);
    if (message.type != MessageType::kAnswer) {
        if (open != nullptr && message.type == MessageType::kMoved) hand_back(*open->request);
        send_parked(false);
        return;
    }
    if (open == nullptr || open->request->place != ClientRequest::Place::kSent) return;
    ClientRequest& request = *open->request;
    heard_ = true;
    request.result = message.failed ? Result<void>(fail(message.error)) : Result<void>();
    const bool change = is_change(request.kind);
    const std::uint64_t client_start = request.id.client_start;
    const bool holds = request.kind == OpKind::kHold || request.kind == OpKind::kCut;
    if (holds && !message.failed) {
        request.place = ClientRequest::Place::kHeld;
    } else {
        remove(request);
    }
    request.on_done(&request);
    if (change) {
        send_waiting(client_start);
        forget_if_unused(client_start);
    }
}

void Client::remove(ClientRequest& request) {
    (request.previous == nullptr ? first_ : request.previous->next) = request.next;
    (request.next == nullptr ? last_ : request.next->previous) = request.previous;
    request.place = ClientRequest::Place::kNone;
    if (is_change(request.kind)) start_of(request.id.client_start).open.remove(request.id.sequence);
    --open_;
    Open* const open = tokens_.find(request.token);
    CHECK(open != nullptr, "an open request has a token");
    tokens_.free(*open);
    request.token = 0;
}

/// A newer record: the primary that it names is the one to talk to.
void Client::learn(const Membership& record) {
    if (record_ && record.number <= record_->number) return;
    const ReplicaId before = record_ ? record_->primary : ReplicaId{};
    record_ = record;
    silence_ = Silence::kNone;
    if (config_.deadline_ms != 0 && before && before != record_->primary) {
        if (effects_->close(before)) leave(before);
    }
}

/// It is to be sent again.
void Client::hand_back(ClientRequest& request) {
    if (request.place == ClientRequest::Place::kHeld) request.lost = true;
    if (request.place != ClientRequest::Place::kSent) return;
    request.place = ClientRequest::Place::kParked;
    ++parked_;
}

void Client::leave(ReplicaId replica) {
    for (ClientRequest* request = first_; request != nullptr; request = request->next) {
        if (request->sent_to == replica) hand_back(*request);
    }
}

// ---- R6: an answer that does not come

void Client::watch() {
    if (config_.deadline_ms == 0 || timer_ || open_ == 0) return;
    timer_ = true;
    effects_->start_timer(config_.deadline_ms);
}

void Client::on_timer() {
    timer_ = false;
    if (open_ == 0 || !record_) {
        silence_ = Silence::kNone;
        watch();
        return;
    }
    if (std::exchange(heard_, false)) {
        silence_ = Silence::kNone;
        send_parked(true);
    } else if (silence_ == Silence::kNone) {
        silence_ = Silence::kAsked;
        ask_primary();
    } else if (silence_ == Silence::kAsked) {
        silence_ = Silence::kReconnected;
        if (effects_->close(record_->primary)) leave(record_->primary);
        ask_primary();
    } else {
        ask_to_take_over();
    }
    watch();
}

/// A connection that was refused or reset counts at once.
void Client::on_closed(ReplicaId replica) {
    leave(replica);
    if (!record_ || replica != record_->primary || open_ == 0) return;
    if (silence_ == Silence::kNone || silence_ == Silence::kAsked) {
        silence_ = Silence::kReconnected;
        ask_primary();
    } else if (silence_ == Silence::kReconnected) {
        ask_to_take_over();
    }
}

void Client::ask_primary() {
    send_parked(true);
    effects_->send_to_node(message_to_primary(MessageType::kHealth));
}

/// The next member that is not the primary; after the last one the authority is asked for a newer
/// record, and the primary is tried again.
void Client::ask_to_take_over() {
    silence_ = Silence::kFailover;
    for (; asked_ < record_->members.size(); ++asked_) {
        const ReplicaId secondary = record_->members[asked_].replica;
        if (secondary == record_->primary) continue;
        Message message = message_to_primary(MessageType::kFailover);
        message.to = secondary;
        effects_->send_to_node(message);
        ++asked_;
        return;
    }
    asked_ = 0;
    silence_ = Silence::kReconnected;
    effects_->ask_authority();
    ask_primary();
}

void Client::set_record(const Membership& record, bool again) {
    learn(record);
    if (again && record_->number == record.number) ++round_;
    send_parked(false);
}

void Client::send_parked(bool again) {
    if (parked_ == 0) return;
    for (ClientRequest* request = first_; request != nullptr; request = request->next) {
        if (request->place != ClientRequest::Place::kParked) continue;
        const bool sent = request->sent_number >= record_->number && request->sent_round == round_;
        if (sent && !again) continue;
        --parked_;
        send(*request);
    }
}

void Client::send_waiting(std::uint64_t client_start) {
    while (true) {
        Start& start = start_of(client_start);
        ClientRequest* const request = start.waiting_first;
        if (request == nullptr || !start.open.may_add(request->id.sequence)) return;
        start.waiting_first = request->next;
        (request->next == nullptr ? start.waiting_last : request->next->previous) = nullptr;
        start.open.add(request->id.sequence);
        begin(*request);
    }
}

}  // namespace ublkd::replication
