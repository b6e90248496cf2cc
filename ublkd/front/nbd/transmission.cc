#include "ublkd/front/nbd/transmission.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/io/hang_up.h"

namespace ublkd::front::nbd {
namespace {

constexpr int kSocketBufferBytes = 2 * 1024 * 1024;
constexpr unsigned kReceivesInARow = 16;  // then others on this reactor get their turn

/// A whole batch of replies fits, so that it goes out with one call. More than the system-wide
/// limit is for root alone.
void enlarge_socket_buffers(int fd) {
    for (const auto& [forced, plain] :
         {std::pair{SO_SNDBUFFORCE, SO_SNDBUF}, std::pair{SO_RCVBUFFORCE, SO_RCVBUF}}) {
        if (setsockopt(fd, SOL_SOCKET, forced, &kSocketBufferBytes, sizeof kSocketBufferBytes) != 0)
            (void)setsockopt(fd, SOL_SOCKET, plain, &kSocketBufferBytes, sizeof kSocketBufferBytes);
    }
}

bool is_change(Command command) {
    return command == Command::kWrite || command == Command::kTrim ||
           command == Command::kWriteZeroes;
}

/// What a request is counted with against the bound on data in flight, before it is cut into parts.
std::uint64_t data_bytes(const WireRequest& wire) {
    switch (Command(wire.command)) {
        case Command::kRead:
            return std::min(wire.length_bytes, kMaxPayloadBytes);
        case Command::kWrite:  // each part is counted for itself
            return wire.length_bytes <= kMaxIoBytes ? wire.length_bytes : 0;
        default:
            return 0;
    }
}

}  // namespace

Transmission::Transmission(io::Socket socket, std::span<const std::byte> received,
                           SharedExport* shared, Negotiated negotiated, TransmissionLimits limits)
    : socket_(std::move(socket)),
      reactor_(shared->reactor),
      shared_(shared),
      device_(shared->device),
      geometry_(shared->device->geometry()),
      negotiated_(negotiated),
      limits_(limits),
      received_(new std::byte[kReceiveBytes]),
      id_(shared->next_connection++) {
    CHECK(received.size() <= kReceiveBytes, "what came with the handshake fits the buffer");
    CHECK(geometry_.max_io_bytes >= kMaxIoBytes, "devices take requests of 512 KiB");
    std::ranges::copy(received, received_.get());
    received_end_ = received.size();
    hook_.self = this;
    hook_.run = [](io::TurnHook* hook) noexcept { static_cast<Hook*>(hook)->self->send_ready(); };
    enlarge_socket_buffers(socket_.fd());
}

Transmission::~Transmission() {
    CHECK(replies_ == nullptr && in_flight_ == 0, "run() comes to its end first");
}

io::Task<void> Transmission::run() {
    shared_->connections.push_back(this);
    if (buffered() == 0) co_await wait_readable();
    const bool alone = co_await end_old_connections();
    if (alone) co_await receive_loop();
    input_over_ = true;
    if (!faults::rule_off("rule.nbd_waits_for_requests")) co_await requests_.close();
    std::erase(shared_->connections, this);
    for (Transmission* const other : shared_->connections) other->room_.pulse();
    struct DrainTimer : io::Reactor::Timer {
        Transmission* self = nullptr;
    } timer;
    timer.self = this;
    timer.on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        static_cast<DrainTimer*>(fired)->self->break_off();
    };
    reactor_->start_timer(&timer, io::Clock::now() + limits_.drain_timeout);
    while (replies_ != nullptr) co_await replies_gone_.wait();
    reactor_->cancel_timer(&timer);
    co_await senders_.close();
    reactor_->remove_hook(&hook_);
}

void Transmission::drain() {
    draining_ = true;
    room_.pulse();
    if (waiting_for_client_ != nullptr) reactor_->cancel(waiting_for_client_);
}

// ---- those who were here before

/// Its client has nothing more to say, or is not listened to any more.
bool Transmission::takes_no_more() const {
    return over() || input_over_ || io::has_hung_up(socket_.fd());
}

/// What they have not taken yet is dropped: nobody was told that it was done. False: their requests
/// do not end, so this connection cannot be served.
io::Task<bool> Transmission::end_old_connections() {
    if (faults::rule_off("rule.nbd_old_connections_first")) co_return true;
    std::vector<std::uint64_t> old;
    for (Transmission* const other : shared_->connections) {
        if (other == this || !other->takes_no_more()) continue;
        other->drain();
        old.push_back(other->id_);
    }
    const auto has_ended = [this](std::uint64_t id) {
        return std::ranges::none_of(shared_->connections,
                                    [id](const Transmission* other) { return other->id_ == id; });
    };
    const io::Clock::time_point patience_ends = io::Clock::now() + limits_.old_connections_timeout;
    while (!over()) {
        std::erase_if(old, has_ended);
        if (old.empty()) co_return true;
        if (io::Clock::now() >= patience_ends) {
            log::warn(
                "nbd: a new connection of {} is closed: requests of {} older ones, whose clients "
                "are gone, are still at the disk, and must not come after its own",
                shared_->name, old.size());
            co_return false;
        }
        (void)co_await reactor_->wait_until(&room_, patience_ends);
    }
    co_return false;
}

// ---- bytes in

io::Task<void> Transmission::receive_loop() {
    while (!over()) {
        if (buffered() < kRequestBytes) {
            std::size_t none = 0;
            const bool more = co_await receive_more({}, &none);
            if (!more) co_return;
            continue;
        }
        WireRequest wire;
        if (!decode_request(received_.get() + received_begin_, wire)) {
            log::debug("nbd: wrong request magic, connection closed");
            co_return;
        }
        received_begin_ += kRequestBytes;
        if (Command(wire.command) == Command::kDisconnect) co_return;
        if (!has_room(data_bytes(wire))) co_await wait_for_room(data_bytes(wire));
        if (over()) co_return;
        const bool taken = co_await take_request(wire);
        if (!taken) co_return;
    }
}

io::Task<bool> Transmission::take_request(const WireRequest& wire) {
    Request* const request = take_slot();
    request->wire = wire;
    charge(request, data_bytes(wire));
    const char* why = nullptr;
    const NbdError error = check(wire, &why);
    if (error != NbdError::kNone) {
        if (Command(wire.command) == Command::kWrite) {
            const bool skipped = co_await skip_payload(wire.length_bytes);
            if (!skipped) {
                give_back(request);
                co_return false;
            }
        }
        refuse(request, error, why);
        co_return true;
    }
    if (wire.length_bytes == 0 && Command(wire.command) != Command::kFlush) {
        finish(request, Result<void>{});
        co_return true;
    }
    const bool large =
        Command(wire.command) == Command::kWrite && wire.length_bytes >= kLargeWriteBytes;
    receive_limit_ = large ? kReceiveBytesAmongLarge : kReceiveBytes;
    if (Command(wire.command) == Command::kWrite) {
        if (take_write_now(request)) co_return true;
        co_return co_await take_write(request);
    }
    if (Command(wire.command) == Command::kRead) {
        const std::uint64_t bytes = blocks_of(request->range()).length_bytes;
        if (bytes <= kMaxIoBytes) {
            request->buffer = shared_->buffers->try_acquire(bytes);
            if (!request->buffer) co_await take_buffer(request, bytes);
        }
    }
    start(request);
    co_return true;
}

/// The usual WRITE: whole in what was received, and of one part.
bool Transmission::take_write_now(Request* request) {
    const Range blocks = blocks_of(request->range());
    const std::size_t bytes = request->wire.length_bytes;
    if (blocks.length_bytes > kMaxIoBytes || buffered() < bytes) return false;
    request->buffer = shared_->buffers->try_acquire(blocks.length_bytes);
    if (!request->buffer) return false;
    request->skew_bytes =
        static_cast<std::uint32_t>(request->wire.offset_bytes - blocks.offset_bytes);
    std::memcpy(request->buffer.data() + request->skew_bytes, received_.get() + received_begin_,
                bytes);
    received_begin_ += bytes;
    start(request);
    return true;
}

io::Task<bool> Transmission::take_write(Request* request) {
    const Range blocks = blocks_of(request->range());
    if (blocks.length_bytes > kMaxIoBytes) co_return co_await take_parts(request);
    co_await take_buffer(request, blocks.length_bytes);
    request->skew_bytes =
        static_cast<std::uint32_t>(request->wire.offset_bytes - blocks.offset_bytes);
    const bool whole = co_await take_payload(
        request->buffer.span().subspan(request->skew_bytes, request->wire.length_bytes));
    if (whole) {
        start(request);
    } else {
        give_back(request);
    }
    co_return whole;
}

/// Each part starts as soon as it is there. Only the last one can end within a logical block, and
/// only the first begin so.
io::Task<bool> Transmission::take_parts(Request* parent) {
    std::uint64_t offset = parent->wire.offset_bytes;
    std::uint64_t left = parent->wire.length_bytes;
    parent->parts_left = 1;                                       // the receiving itself
    bytes_in_flight_ -= std::exchange(parent->charged_bytes, 0);  // its parts are counted
    bool whole = true;
    while (left > 0 && whole) {
        const std::uint64_t skew = offset % geometry_.logical_block_bytes;
        const std::uint64_t bytes = std::min(left, kMaxIoBytes - skew);
        if (!has_room(bytes)) co_await wait_for_room(bytes);
        Request* const part = take_slot();
        charge(part, bytes);
        part->wire = parent->wire;
        part->wire.offset_bytes = offset;
        part->wire.length_bytes = static_cast<std::uint32_t>(bytes);
        part->skew_bytes = static_cast<std::uint32_t>(skew);
        co_await take_buffer(part, blocks_of(part->range()).length_bytes);
        whole = co_await take_payload(part->buffer.span().subspan(skew, bytes));
        if (!whole) {
            give_back(part);
            break;
        }
        part->parent = parent;
        ++parent->parts_left;
        start(part);
        offset += bytes;
        left -= bytes;
    }
    if (!whole &&
        !parent->failed) {  // what came before may be written; the request as a whole was not
        parent->failed = true;
        parent->error = Error{Errc::kClosed, 0, "payload incomplete"};
    }
    settle_parent(parent);
    co_return whole;
}

io::Task<bool> Transmission::take_payload(std::span<std::byte> into) {
    const std::size_t at_hand = std::min(buffered(), into.size());
    std::memcpy(into.data(), received_.get() + received_begin_, at_hand);
    received_begin_ += at_hand;
    into = into.subspan(at_hand);
    while (!into.empty()) {
        std::size_t direct = 0;
        const bool more = co_await receive_more(into, &direct);
        if (!more) co_return false;
        into = into.subspan(direct);
    }
    co_return true;
}

io::Task<bool> Transmission::skip_payload(std::uint64_t bytes) {
    for (;;) {
        const std::uint64_t at_hand = std::min<std::uint64_t>(buffered(), bytes);
        received_begin_ += at_hand;
        bytes -= at_hand;
        if (bytes == 0) co_return true;
        std::size_t none = 0;
        const bool more = co_await receive_more({}, &none);
        if (!more) co_return false;
    }
}

io::Task<void> Transmission::take_buffer(Request* request, std::size_t bytes) {
    io::Buffer buffer = co_await shared_->buffers->acquire(bytes);
    request->buffer = std::move(buffer);
}

/// Receives into `direct` first, then behind what is buffered. False: the client is gone, or
/// over().
io::Task<bool> Transmission::receive_more(std::span<std::byte> direct, std::size_t* direct_bytes) {
    if (received_begin_ > 0) {
        std::memmove(received_.get(), received_.get() + received_begin_, buffered());
        received_end_ -= received_begin_;
        received_begin_ = 0;
    }
    iovec parts[2] = {
        {direct.data(), direct.size()},
        {received_.get() + received_end_, std::min(kReceiveBytes - received_end_, receive_limit_)}};
    const std::span<const iovec> into = std::span(parts).subspan(direct.empty() ? 1 : 0);
    const std::size_t capacity = direct.size() + parts[1].iov_len;
    while (!over()) {
        if (!perhaps_more_) co_await wait_readable();
        perhaps_more_ = true;
        if (++receives_in_a_row_ > kReceivesInARow) {
            receives_in_a_row_ = 0;
            co_await reactor_->yield();
        }
        const Result<std::size_t> got = socket_.try_receive(into);
        if (!got && got.error().code == Errc::kBusy) {
            perhaps_more_ = false;
            continue;
        }
        if (!got || *got == 0) co_return false;
        perhaps_more_ = *got == capacity;
        *direct_bytes = std::min(*got, direct.size());
        received_end_ += *got - *direct_bytes;
        co_return true;
    }
    co_return false;
}

io::Task<void> Transmission::wait_readable() {
    if (over()) co_return;
    // Where the device has answered everything at once there is nothing to enter before the
    // replies.
    if (requests_.count() == 0) send_ready();
    receives_in_a_row_ = 0;
    const unsigned events = socket_.readable_events();
    if (events == 0) {
        co_await reactor_->yield();
        co_return;
    }
    io::Operation waiting = reactor_->poll(socket_.ref(), events);
    waiting_for_client_ = &waiting;
    (void)co_await waiting;  // whatever it says, the receive that follows says it better
    waiting_for_client_ = nullptr;
}

/// Also not more than half of what the pool has left: one client that takes no replies leaves two
/// thirds of it to the others, the next one two thirds of that.
bool Transmission::has_room(std::uint64_t bytes) const {
    if (in_flight_ >= limits_.requests) return false;
    const std::uint64_t most =
        std::min<std::uint64_t>(limits_.bytes, shared_->buffers->free_bytes() / 2);
    return bytes_in_flight_ == 0 || bytes_in_flight_ + bytes <= most;
}

io::Task<void> Transmission::wait_for_room(std::uint64_t bytes) {
    while (!over() && !has_room(bytes)) co_await room_.wait();
}

// ---- what a request may be

bool Transmission::flags_allowed(const WireRequest& wire) const {
    unsigned allowed = kFua;  // on every command, as the protocol asks
    switch (Command(wire.command)) {
        case Command::kRead:
            if (negotiated_.structured_replies) allowed |= kDontFragment;
            break;
        case Command::kWriteZeroes:
            allowed |= kNoHole | kFastZero;
            break;
        case Command::kBlockStatus:
            allowed |= kReqOne;
            break;
        default:
            break;
    }
    return (wire.flags & ~allowed) == 0;
}

NbdError Transmission::check(const WireRequest& wire, const char** why) const {
    const auto refused = [why](NbdError error, const char* text) {
        *why = text;
        return error;
    };
    const auto command = Command(wire.command);
    if (command > Command::kBlockStatus) return refused(NbdError::kInvalid, "unknown command");
    if (!flags_allowed(wire))
        return refused(NbdError::kInvalid, "a flag this command does not take");
    if (is_change(command) && geometry_.read_only)
        return refused(NbdError::kPermission, "the export is read-only");
    if (command == Command::kFlush) {
        if (wire.offset_bytes == 0 && wire.length_bytes == 0) return NbdError::kNone;
        return refused(NbdError::kInvalid, "FLUSH takes no range");
    }
    if ((command == Command::kRead || command == Command::kWrite) &&
        wire.length_bytes > kMaxPayloadBytes)
        return refused(NbdError::kInvalid, "more than 32 MiB at once");
    if (command == Command::kBlockStatus && !negotiated_.allocation_context)
        return refused(NbdError::kInvalid, "no metadata context was negotiated");
    if (command == Command::kBlockStatus && wire.length_bytes == 0)
        return refused(NbdError::kInvalid, "BLOCK_STATUS of nothing");
    if (wire.offset_bytes > geometry_.size_bytes ||
        wire.length_bytes > geometry_.size_bytes - wire.offset_bytes) {
        const bool grows = command == Command::kWrite || command == Command::kWriteZeroes;
        return refused(grows ? NbdError::kNoSpace : NbdError::kInvalid,
                       "beyond the end of the export");
    }
    const std::uint64_t unit = geometry_.logical_block_bytes;
    if (negotiated_.knows_block_sizes &&
        (wire.offset_bytes % unit != 0 || wire.length_bytes % unit != 0))
        return refused(NbdError::kInvalid, "not a multiple of the block size");
    return NbdError::kNone;
}

}  // namespace ublkd::front::nbd
