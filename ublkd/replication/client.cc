#include "ublkd/replication/client.h"

#include "ublkd/base/check.h"
#include "ublkd/replication/applied_ids.h"

namespace ublkd::replication {

void Client::submit(ClientRequest& request) {
    CHECK(request.place == ClientRequest::Place::kNone, "a request is submitted once");
    if (is_change(request.kind) && request.id.sequence == 0)
        request.id = RequestId{client_start_, ++sequence_};
    request.previous = last_;
    request.next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = &request;
    last_ = &request;
    ++open_;
    if (is_change(request.kind) && !in_window(request)) {
        request.place = ClientRequest::Place::kWindow;
        ++waiting_;
        return;
    }
    send(request);
}

bool Client::in_window(const ClientRequest& request) const {
    for (const ClientRequest* open = first_; open != nullptr; open = open->next) {
        if (!is_change(open->kind) || open->id.client_start != request.id.client_start) continue;
        return request.id.sequence <
               open->id.sequence + AppliedIds::kWindow;  // the oldest of this client
    }
    return true;
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
    if (request.kind == OpKind::kHold && !message.failed) {
        request.place = ClientRequest::Place::kHeld;
    } else {
        remove(request);
    }
    request.on_done(&request);
    send_waiting();
}

void Client::remove(ClientRequest& request) {
    (request.previous == nullptr ? first_ : request.previous->next) = request.next;
    (request.next == nullptr ? last_ : request.next->previous) = request.previous;
    request.place = ClientRequest::Place::kNone;
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

void Client::send_waiting() {
    if (waiting_ == 0) return;
    for (ClientRequest* request = first_; request != nullptr; request = request->next) {
        if (request->place != ClientRequest::Place::kWindow || !in_window(*request)) continue;
        --waiting_;
        send(*request);
    }
}

}  // namespace ublkd::replication
