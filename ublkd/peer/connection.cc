#include "ublkd/peer/connection.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/peer/encode.h"

namespace ublkd::peer {

using replication::Message;
using replication::MessageType;

// ---- memory of payloads that came

Payload::Payload(Connection* connection, io::Buffer buffer)
    : connection_(connection), buffer_(std::move(buffer)) {}
Payload::Payload(Payload&& other) noexcept
    : connection_(std::exchange(other.connection_, nullptr)), buffer_(std::move(other.buffer_)) {}
Payload& Payload::operator=(Payload&& other) noexcept {
    if (this != &other) {
        release();
        connection_ = std::exchange(other.connection_, nullptr);
        buffer_ = std::move(other.buffer_);
    }
    return *this;
}

void Payload::release() noexcept {
    Connection* const connection = std::exchange(connection_, nullptr);
    if (connection == nullptr) return;
    const std::size_t bytes = buffer_.size();
    buffer_.release();
    connection->payload_returned(bytes);
}

void Connection::payload_returned(std::size_t bytes) {
    --payloads_;
    payloads_bytes_ -= bytes;
    payload_returned_.pulse();
}

// ---- begin and end

Connection::Connection(io::Socket socket, Greeted greeted, const Limits& limits, Receiver* receiver,
                       io::BufferPool* buffers, const ConnectionLimits& connection_limits)
    : socket_(std::move(socket)),
      reactor_(&socket_.reactor()),
      receiver_(receiver),
      buffers_(buffers),
      limits_(limits),
      connection_limits_(connection_limits),
      version_(greeted.agreed.version),
      decoder_(std::move(greeted.decoder)),
      received_(new std::byte[kReceiveBytes]),
      received_end_(greeted.rest.size()) {
    CHECK(greeted.rest.size() <= kReceiveBytes, "what came with the hello fits the buffer");
    std::ranges::copy(greeted.rest, received_.get());
    decoder_.begin_messages(version_, limits_);
    hook_.self = this;
    hook_.run = [](io::TurnHook* hook) noexcept { static_cast<Hook*>(hook)->self->send_ready(); };
    last_received_ = last_sent_ = io::Clock::now();
}

Connection::~Connection() {
    CHECK(first_ == nullptr && payloads_ == 0, "run() comes to its end first");
}

io::Task<Error> Connection::run() {
    io::TaskGroup both;
    both.start(receive_loop());
    both.start(watch());
    co_await both.wait();
    drop_unsent();
    reactor_->remove_hook(&hook_);
    co_await senders_.close();
    co_await room_waiters_.close();
    buffer_.release();
    receiver_->on_end(why_);
    while (payloads_ > 0) co_await payload_returned_.wait();
    co_return why_;
}

void Connection::close(Reason reason) {
    end(Error{Errc::kCancelled, 0, to_string(reason)}, reason);
}

/// Whatever waits goes on and finds it. `told`: what the other side is told, where that does not go
/// into the midst of a frame, and the last send went (under TLS the next one has to be the same).
void Connection::end(const Error& why, std::optional<Reason> told) {
    if (std::exchange(ended_, true)) return;
    why_ = why;
    if (told && first_sent_bytes_ == 0 && !send_blocked_) refuse(&socket_, *told);
    socket_.shutdown();
    end_.set();
    payload_returned_.pulse();
    room_.pulse();
}

/// Says that this side is there, and looks whether the other one is.
io::Task<void> Connection::watch() {
    const io::Clock::duration alive_after = connection_limits_.alive_after;
    const io::Clock::duration silence = connection_limits_.silence;
    io::Clock::time_point looked = io::Clock::now();
    while (!ended_) {
        const io::Clock::time_point now = io::Clock::now();
        const bool stood_still = now - looked >= alive_after + silence / 2;
        looked = now;
        if (reading_paused_ || stood_still) last_received_ = now;
        if (stood_still) last_sent_ = now;
        const bool silent = now - last_received_ >= silence;
        const bool takes_nothing =
            first_ != nullptr && now - last_sent_ >= connection_limits_.stuck;
        if (silent || takes_nothing) {
            end(Error{Errc::kTimedOut, 0, silent ? "peer: silent" : "peer: takes nothing"});
            break;
        }
        if (first_ == nullptr && now - last_sent_ >= alive_after) {
            Outgoing* const alive = take_slot();
            std::ranges::copy(encode_alive(version_), alive->header.begin());
            alive->head = std::span(alive->header).first(kAliveBytes);
            queue(alive);
        }
        (void)co_await reactor_->wait_until(&end_,
                                            std::min(last_received_ + silence, now + alive_after));
    }
}

// ---- in

io::Task<void> Connection::receive_loop() {
    while (!ended_) {
        std::size_t used = 0;
        const Result<Decoder::Step> step = decoder_.next(
            {received_.get() + received_begin_, received_end_ - received_begin_}, used);
        received_begin_ += used;
        if (!step) {
            end(step.error(), Reason::kProtocol);
        } else if (*step == Decoder::Step::kNeedBytes) {
            received_begin_ = received_end_ = 0;
            co_await receive_more();
        } else if (*step == Decoder::Step::kNeedBuffer) {
            co_await place_payload();
        } else {
            take_frame(*step);
        }
    }
}

/// A payload straight to where it belongs, all else behind what has come.
io::Task<void> Connection::receive_more() {
    while (!ended_) {
        const std::span<std::byte> room = decoder_.payload_room();
        const std::span<std::byte> into =
            room.empty() ? std::span<std::byte>(received_.get(), kReceiveBytes) : room;
        if (++receives_in_a_row_ > kReceivesInARow) {
            receives_in_a_row_ = 0;
            co_await reactor_->yield();
            if (ended_) co_return;
        }
        const Result<std::size_t> got = socket_.try_receive(into);
        if (!got && got.error().code == Errc::kBusy) {
            receives_in_a_row_ = 0;
            (void)co_await socket_.wait_readable();  // the receive that follows says it better
            continue;
        }
        if (!got || *got == 0) {
            end(got ? Error{Errc::kClosed, 0, "peer: closed"} : got.error());
            co_return;
        }
        last_received_ = io::Clock::now();
        if (room.empty()) {
            received_end_ = *got;
        } else {
            decoder_.payload_received(*got);
        }
        co_return;
    }
}

io::Task<void> Connection::place_payload() {
    const std::size_t bytes = decoder_.payload_bytes();
    const MessageType type = decoder_.message().type;
    if (type == MessageType::kAnswer || type == MessageType::kFetched) {
        const std::span<std::byte> into = receiver_->memory_for(decoder_.message(), bytes);
        if (into.size() == bytes) {
            decoder_.give_buffer(into);
        } else {
            end(Error{Errc::kProtocol, 0, "peer: data that nobody asked for"}, Reason::kProtocol);
        }
        co_return;
    }
    reading_paused_ = true;
    while (!ended_ && payloads_bytes_ != 0 &&
           payloads_bytes_ + bytes > connection_limits_.receive_bytes)
        co_await payload_returned_.wait();
    if (!ended_) buffer_ = co_await buffers_->acquire(bytes);
    reading_paused_ = false;
    last_received_ = io::Clock::now();
    if (!ended_) decoder_.give_buffer(buffer_.span());
}

void Connection::take_frame(Decoder::Step step) {
    if (step == Decoder::Step::kRefusal) {
        end(Error{Errc::kClosed, 0, to_string(decoder_.refusal().reason)});
        return;
    }
    if (step != Decoder::Step::kMessage) return;
    const Message& message = decoder_.message();
    if (answers_what_is_unsent(message)) {
        end(Error{Errc::kProtocol, 0, "peer: an answer to what it has not got"}, Reason::kProtocol);
        return;
    }
    if (!buffer_) {
        receiver_->on_message(message, Payload());
        return;
    }
    ++payloads_;
    payloads_bytes_ += buffer_.size();
    receiver_->on_message(message, Payload(this, std::move(buffer_)));
}

/// Its asker would give back memory from which it is still being sent.
bool Connection::answers_what_is_unsent(const Message& message) const {
    if (message.type != MessageType::kAnswer && message.type != MessageType::kMoved &&
        message.type != MessageType::kReplicated && message.type != MessageType::kCopied)
        return false;
    for (const Outgoing* frame = first_; frame != nullptr; frame = frame->next) {
        if (frame->token != 0 && frame->token == message.token) return true;
    }
    return false;
}

// ---- out

Result<void> Connection::send(const Message& message, io::Buffer payload) {
    if (ended_ || send_broken_) return fail(Errc::kClosed, "peer: send");
    const std::size_t head_bytes = peer::head_bytes(message);
    const std::span<const std::byte> data = payload_of(message);
    if (!has_room(head_bytes + data.size())) return fail(Errc::kExhausted, "peer: send");
    Outgoing* const frame = take_slot();
    frame->head = frame->header;
    if (head_bytes > kMessageBytes) {
        frame->long_head.resize(head_bytes);
        frame->head = frame->long_head;
    }
    std::byte* const head =
        head_bytes > kMessageBytes ? frame->long_head.data() : frame->header.data();
    encode_head(message, version_, limits_, {head, head_bytes});
    frame->data = data;
    frame->buffer = std::move(payload);
    const bool asks = message.type == MessageType::kRequest ||
                      message.type == MessageType::kReplicate || message.type == MessageType::kCopy;
    frame->token = asks && !data.empty() ? message.token : 0;
    queue(frame);
    return {};
}

std::size_t Connection::bytes_of(const Message& message) {
    return peer::head_bytes(message) + payload_of(message).size();
}

io::Task<Result<void>> Connection::wait_for_room(std::size_t bytes) {
    if (!room_waiters_.try_enter()) co_return fail(Errc::kClosed, "peer: send");
    while (!ended_ && !has_room(bytes)) co_await room_.wait();
    room_waiters_.leave();
    if (ended_) co_return fail(Errc::kClosed, "peer: send");
    co_return Result<void>{};
}

Connection::Outgoing* Connection::take_slot() {
    if (free_slots_ == nullptr) {
        slots_.push_back(std::make_unique<Outgoing>());
        return slots_.back().get();
    }
    return std::exchange(free_slots_, free_slots_->next);
}

void Connection::give_back(Outgoing* frame) {
    waiting_bytes_ -= frame->bytes();
    frame->buffer.release();
    frame->long_head = {};
    frame->head = frame->data = {};
    frame->token = 0;
    frame->next = std::exchange(free_slots_, frame);
}

void Connection::queue(Outgoing* frame) {
    frame->next = nullptr;
    if (first_ == nullptr) last_sent_ = io::Clock::now();
    (first_ == nullptr ? first_ : last_->next) = frame;
    last_ = frame;
    waiting_bytes_ += frame->bytes();
    if (!send_blocked_) reactor_->at_turn_end(&hook_);
}

void Connection::send_ready() noexcept {
    std::array<iovec, kMaxParts> parts;
    while (first_ != nullptr && !send_blocked_ && !send_broken_ && !ended_) {
        const std::size_t count = gather(parts);
        const Result<std::size_t> sent =
            socket_.try_send(std::span<const iovec>(parts.data(), count));
        if (sent) {
            last_sent_ = io::Clock::now();
            account_sent(*sent);
        } else if (sent.error().code == Errc::kBusy) {
            send_blocked_ = true;
            const bool started = io::spawn(senders_, wait_writable());
            CHECK(started, "senders are started while the connection is there");
        } else {
            send_broken_ = true;  // what the other side said before it closed is still to be read
        }
    }
}

io::Task<void> Connection::wait_writable() {
    (void)co_await socket_.wait_writable();  // the send that follows says it better
    send_blocked_ = false;
    send_ready();
}

std::size_t Connection::gather(std::span<iovec> parts) const {
    std::size_t count = 0;
    std::size_t skip = first_sent_bytes_;
    for (const Outgoing* frame = first_; frame != nullptr && count + 2 <= parts.size();
         frame = frame->next) {
        for (std::span<const std::byte> part : {frame->head, frame->data}) {
            const std::size_t skipped = std::min(skip, part.size());
            skip -= skipped;
            part = part.subspan(skipped);
            // sendmsg(2) does not write to it
            if (!part.empty()) parts[count++] = {const_cast<std::byte*>(part.data()), part.size()};
        }
    }
    return count;
}

void Connection::account_sent(std::size_t bytes) {
    bytes += first_sent_bytes_;
    while (first_ != nullptr && bytes >= first_->bytes()) {
        Outgoing* const sent = first_;
        bytes -= sent->bytes();
        first_ = sent->next;
        give_back(sent);
    }
    first_sent_bytes_ = bytes;
    room_.pulse();
}

void Connection::drop_unsent() {
    while (first_ != nullptr) {
        Outgoing* const dropped = first_;
        first_ = dropped->next;
        give_back(dropped);
    }
    first_sent_bytes_ = 0;
}

}  // namespace ublkd::peer
