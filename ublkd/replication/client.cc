#include "ublkd/replication/client.h"

#include "ublkd/base/check.h"

namespace ublkd::replication {

void Client::submit(ClientRequest& request) {
    CHECK(request.place == ClientRequest::Place::kNone, "a request is submitted once");
    ++open_;
    if (!is_change(request.kind)) {
        begin(request);
        return;
    }
    if (request.id.sequence == 0) request.id = RequestId{client_start_, ++sequence_};
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
    if (!record_) {
        request.place = ClientRequest::Place::kParked;
        ++parked_;
        return;
    }
    request.place = ClientRequest::Place::kSent;
    request.sent_number = record_->number;
    Message message;
    message.type = MessageType::kRequest;
    message.kind = request.kind;
    message.fua = request.fua;
    message.keep_allocated = request.keep_allocated;
    message.volume = volume_;
    message.to = record_->primary;
    message.number = record_->number;
    message.id = request.id;
    message.token = request.token;
    message.range = request.range;
    message.data = request.data;
    message.into = request.into;
    effects_->send_to_node(message);
}

void Client::release(ClientRequest& request) {
    Message message;
    message.type = MessageType::kRelease;
    message.volume = volume_;
    message.to = record_->primary;
    message.number = record_->number;
    message.token = request.token;
    if (!request.lost) effects_->send_to_node(message);
    remove(request);
}

void Client::on_message(const Message& message) {
    Open* const open = tokens_.find(message.token);
    if (message.volume != volume_ || open == nullptr) return;
    ClientRequest& request = *open->request;
    if (request.place == ClientRequest::Place::kHeld) {
        request.lost = request.lost || message.type == MessageType::kMoved;
        return;
    }
    if (request.place != ClientRequest::Place::kSent) return;
    if (message.type == MessageType::kMoved) {
        request.place = ClientRequest::Place::kParked;
        ++parked_;
        if (message.record && (!record_ || message.record->number > record_->number))
            record_ = *message.record;
        send_parked(false);
        return;
    }
    if (message.type != MessageType::kAnswer) return;
    request.result = message.failed ? Result<void>(fail(message.error)) : Result<void>();
    const bool change = is_change(request.kind);
    const std::uint64_t client_start = request.id.client_start;
    if (request.kind == OpKind::kHold && !message.failed) {
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

void Client::set_record(const Membership& record, bool again) {
    if (!record_ || record.number > record_->number) record_ = record;
    send_parked(again && record_->number == record.number);
}

void Client::send_parked(bool again) {
    if (parked_ == 0) return;
    for (ClientRequest* request = first_; request != nullptr; request = request->next) {
        if (request->place != ClientRequest::Place::kParked) continue;
        if (!again && request->sent_number >= record_->number) continue;
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
