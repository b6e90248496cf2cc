// Transmission, bytes out: the form of each reply, and sending all that are ready at the end of the
// reactor's turn.
#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "ublkd/base/check.h"
#include "ublkd/front/nbd/transmission.h"

namespace ublkd::front::nbd {

// ---- requests come to their end

/// `data`: what a READ gives, or the descriptors of BLOCK_STATUS.
void Transmission::finish(Request* request, const Result<void>& result,
                          std::span<const std::byte> data) {
    if (!result && draining_) {
        // Perhaps the device gives up because we stop. The client is not told of an error that a
        // new connection might not show: it loses this one.
        break_off();
    }
    if (!result) {
        refuse(request, to_nbd_error(result.error()), result.error().where);
        return;
    }
    std::byte* const head = request->head.data();
    const std::uint64_t cookie = request->wire.cookie;
    const auto command = Command(request->wire.command);
    const auto data_bytes = static_cast<std::uint32_t>(data.size());
    request->body = data;
    if (command == Command::kBlockStatus) {
        encode_chunk_header(head, kChunkDone, Chunk::kBlockStatus, cookie, 4 + data_bytes);
        store_be(head + kChunkHeaderBytes, kAllocationContextId);
        request->head_bytes = kChunkHeaderBytes + 4;
    } else if (command == Command::kRead && negotiated_.structured_replies) {
        if (data.empty()) {
            encode_chunk_header(head, kChunkDone, Chunk::kNone, cookie, 0);
            request->head_bytes = kChunkHeaderBytes;
        } else {
            encode_chunk_header(head, kChunkDone, Chunk::kOffsetData, cookie, 8 + data_bytes);
            store_be(head + kChunkHeaderBytes, request->wire.offset_bytes);
            request->head_bytes = kChunkHeaderBytes + 8;
        }
    } else {
        encode_simple_reply(head, NbdError::kNone, cookie);
        request->head_bytes = kSimpleReplyBytes;
    }
    if (command == Command::kWrite) request->buffer.release();
    queue_reply(request);
}

void Transmission::finish_part(Request* part, const Result<void>& result) {
    Request* const parent = part->parent;
    if (!result && !parent->failed) {
        parent->failed = true;
        parent->error = result.error();
    }
    give_back(part);
    settle_parent(parent);
}

void Transmission::settle_parent(Request* parent) {
    if (--parent->parts_left > 0) return;
    if (parent->failed) {
        finish(parent, fail(parent->error));
    } else {
        finish(parent, Result<void>{});
    }
}

/// `why`: a literal, or nullptr.
void Transmission::refuse(Request* request, NbdError error, const char* why) {
    request->buffer.release();
    request->body = {};
    if (negotiated_.structured_replies) {
        const std::string_view text(why == nullptr ? "" : why);
        const auto text_bytes = static_cast<std::uint16_t>(text.size());
        std::byte* const head = request->head.data();
        encode_chunk_header(head, kChunkDone, Chunk::kError, request->wire.cookie, 6U + text_bytes);
        store_be(head + kChunkHeaderBytes, static_cast<std::uint32_t>(error));
        store_be(head + kChunkHeaderBytes + 4, text_bytes);
        request->head_bytes = kChunkHeaderBytes + 6;
        request->body = std::as_bytes(std::span<const char>(text.data(), text.size()));
    } else {
        encode_simple_reply(request->head.data(), error, request->wire.cookie);
        request->head_bytes = kSimpleReplyBytes;
    }
    queue_reply(request);
}

// ---- the queue of replies

void Transmission::queue_reply(Request* request) {
    if (broken_) {
        give_back(request);
        return;
    }
    request->next = nullptr;
    (replies_ == nullptr ? replies_ : last_reply_->next) = request;
    last_reply_ = request;
    if (!send_blocked_) reactor_->at_turn_end(&hook_);
}

void Transmission::send_ready() noexcept {
    std::array<iovec, kMaxParts> parts;
    while (replies_ != nullptr && !send_blocked_ && !broken_) {
        const std::size_t count = gather(parts);
        const Result<std::size_t> sent =
            socket_.try_send(std::span<const iovec>(parts.data(), count));
        if (sent) {
            account_sent(*sent);
        } else if (sent.error().code == Errc::kBusy) {
            send_blocked_ = true;
            const bool started = io::spawn(senders_, wait_writable());
            CHECK(started, "senders are started while replies are queued");
        } else {
            break_off();
        }
    }
    if (replies_ == nullptr) replies_gone_.pulse();
}

io::Task<void> Transmission::wait_writable() {
    const Result<void> writable = co_await socket_.wait_writable();
    send_blocked_ = false;
    if (!writable) break_off();
    send_ready();
}

std::size_t Transmission::gather(std::span<iovec> parts) const {
    std::size_t count = 0;
    std::size_t skip = first_sent_bytes_;
    for (Request* reply = replies_; reply != nullptr && count + 2 <= parts.size();
         reply = reply->next) {
        if (skip < reply->head_bytes)
            parts[count++] = {reply->head.data() + skip, reply->head_bytes - skip};
        const std::size_t body_skip = skip > reply->head_bytes ? skip - reply->head_bytes : 0;
        if (body_skip < reply->body.size()) {
            // sendmsg(2) does not write to it
            parts[count++] = {const_cast<std::byte*>(reply->body.data()) + body_skip,
                              reply->body.size() - body_skip};
        }
        skip = 0;
    }
    return count;
}

void Transmission::account_sent(std::size_t bytes) {
    bytes += first_sent_bytes_;
    while (replies_ != nullptr && bytes >= replies_->head_bytes + replies_->body.size()) {
        Request* const sent = replies_;
        bytes -= sent->head_bytes + sent->body.size();
        replies_ = sent->next;
        give_back(sent);
    }
    first_sent_bytes_ = bytes;
}

void Transmission::drop_replies() {
    while (replies_ != nullptr) {
        Request* const dropped = replies_;
        replies_ = dropped->next;
        give_back(dropped);
    }
    first_sent_bytes_ = 0;
}

/// The client takes no more: what is in flight still ends, and is answered to nobody.
void Transmission::break_off() {
    if (broken_) return;
    broken_ = true;
    socket_.shutdown();  // ends what waits for the client
    drop_replies();
    room_.pulse();
    replies_gone_.pulse();
}

// ---- slots

Request* Transmission::take_slot() {
    Request* slot = free_slots_;
    if (slot == nullptr) {
        slots_.push_back(std::make_unique<Request>());
        slot = slots_.back().get();
    } else {
        free_slots_ = slot->next;
    }
    ++in_flight_;
    return slot;
}

void Transmission::give_back(Request* request) {
    request->buffer.release();
    request->large.release();
    if (request->large_reads != nullptr) request->large_reads->release(request->large_read_bytes);
    request->large_reads = nullptr;
    request->body = {};
    request->parent = nullptr;
    request->parts_left = 0;
    request->failed = false;
    request->skew_bytes = 0;
    bytes_in_flight_ -= request->charged_bytes;
    request->charged_bytes = 0;
    --in_flight_;
    request->next = free_slots_;
    free_slots_ = request;
    room_.pulse();
}

}  // namespace ublkd::front::nbd
