// One connection of the peer protocol after its hellos, on its volume's reactor: messages out, as
// they are given, and messages in, one after the other.
//
// Out: send() never waits. What was given in a turn of the reactor leaves at its end, with one
// call. Payloads are not copied. What waits is bounded (ConnectionLimits::send_bytes); beyond that
// send() says kExhausted, and wait_for_room() waits. In: a payload is received into the asker's
// memory (of an answer to a read or fetch), else into a buffer of the pool; a peer whose payloads
// here have not been given back up to receive_bytes is not read from meanwhile. So a peer that does
// not read, and one that sends without end, cost a bounded amount of memory and nobody else's time.
//
// A side that has nothing to say sends an alive frame now and then. One that is silent for too long
// is given up, and so is, after longer, one that takes nothing of what waits for it. A time in
// which this reactor stood still does not count.
//
// Lifetime: run() ends when the connection is over, nothing of it is in the kernel and all payloads
// were given back; then the object may be destroyed. Who asked and has no answer by then gets none:
// its driver knows what it asked. Owner: the driver. See docs/peer-protocol.md.
#pragma once

#include <sys/uio.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/socket.h"
#include "ublkd/io/sync.h"
#include "ublkd/io/task.h"
#include "ublkd/peer/decoder.h"
#include "ublkd/peer/greeting.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer {

struct ConnectionLimits {
    std::size_t send_bytes = 16 * kMiB;     // that wait to be sent; one message always fits
    std::size_t receive_bytes = 16 * kMiB;  // of payloads that are not given back
    io::Clock::duration alive_after = std::chrono::milliseconds(500);
    io::Clock::duration silence = std::chrono::seconds(3);
    io::Clock::duration stuck = std::chrono::seconds(10);  // its disk may hang, or its pool be used
};

class Connection;

/// The memory of a payload that came, as Message::data. Given back when destroyed; not later than
/// the connection's end, which waits for it.
class Payload {
  public:
    Payload() = default;
    Payload(Payload&& other) noexcept;
    Payload& operator=(Payload&& other) noexcept;
    ~Payload() { release(); }
    void release() noexcept;
    bool is_there() const { return connection_ != nullptr; }

  private:
    friend class Connection;
    Payload(Connection* connection, io::Buffer buffer);
    Connection* connection_ = nullptr;
    io::Buffer buffer_;
};

/// The driver's side. Calls come from the connection's own coroutine.
class Receiver {
  public:
    virtual ~Receiver() = default;
    /// A whole message. It may call send() and close().
    virtual void on_message(const replication::Message& message, Payload payload) = 0;
    /// Where the payload of `answer` belongs: the asker's `into`, which stays valid until the
    /// message has come or run() has ended. Another length than `bytes`: nobody asked for that, and
    /// the connection ends.
    virtual std::span<std::byte> memory_for(const replication::Message& answer,
                                            std::size_t bytes) = 0;
    /// Nothing comes any more and nothing is sent, for this reason; payloads may still be here.
    virtual void on_end(const Error& why) = 0;
};

class Connection {
  public:
    /// `buffers`: not what serving a message takes from (copies, reads to check): each would wait
    /// for the other.
    Connection(io::Socket socket, Greeted greeted, const Limits& limits, Receiver* receiver,
               io::BufferPool* buffers, const ConnectionLimits& connection_limits = {});
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    ~Connection();

    /// Serves until the connection is over, and says why: kClosed (by the other side; its refusal
    /// stands in the text), kCancelled (close()), kTimedOut (silence), kProtocol, kCorrupt,
    /// kUnsupported (what came), or the socket's error.
    io::Task<Error> run();
    /// Refuses what comes from now on, and run() ends. What was not sent is not.
    void close(Reason reason);

    /// Takes a message for sending. `payload`: its data's memory, given back when it is sent; else
    /// the data stays valid until it is answered. Errors: kExhausted, kClosed: it was not taken.
    Result<void> send(const replication::Message& message, io::Buffer payload = {});
    /// On the wire.
    static std::size_t bytes_of(const replication::Message& message);
    /// Whether send() takes so much now.
    bool has_room(std::size_t bytes) const {
        return waiting_bytes_ == 0 || waiting_bytes_ + bytes <= connection_limits_.send_bytes;
    }
    /// Until send() takes a message of `bytes`. kClosed: it never will.
    io::Task<Result<void>> wait_for_room(std::size_t bytes);
    std::size_t waiting_bytes() const { return waiting_bytes_; }

  private:
    static constexpr std::size_t kReceiveBytes = 64 * 1024;
    static constexpr std::size_t kMaxParts = 128;  // iovecs of one sendmsg
    static constexpr unsigned kReceivesInARow = 16;

    /// A frame that is to be sent.
    struct Outgoing {
        std::array<std::byte, kMessageBytes> header;
        std::vector<std::byte> long_head;  // of a message with parts, in place of the header
        std::span<const std::byte> head;
        std::span<const std::byte> data;
        io::Buffer buffer;
        std::uint64_t token = 0;  // of a question with data
        Outgoing* next = nullptr;

        std::size_t bytes() const { return head.size() + data.size(); }
    };
    struct Hook : io::TurnHook {
        Connection* self = nullptr;
    };

    // in
    io::Task<void> receive_loop();
    io::Task<void> receive_more();
    io::Task<void> place_payload();
    void take_frame(Decoder::Step step);
    bool answers_what_is_unsent(const replication::Message& message) const;
    friend class Payload;
    void payload_returned(std::size_t bytes);

    // out
    Outgoing* take_slot();
    void give_back(Outgoing* frame);
    void queue(Outgoing* frame);
    void send_ready() noexcept;
    std::size_t gather(std::span<iovec> parts) const;
    void account_sent(std::size_t bytes);
    io::Task<void> wait_writable();
    void drop_unsent();

    io::Task<void> watch();
    void end(const Error& why, std::optional<Reason> told = {});

    io::Socket socket_;
    io::Reactor* reactor_;
    Receiver* receiver_;
    io::BufferPool* buffers_;
    const Limits limits_;
    const ConnectionLimits connection_limits_;
    const std::uint16_t version_;

    Decoder decoder_;
    std::unique_ptr<std::byte[]> received_;
    std::size_t received_begin_ = 0;
    std::size_t received_end_ = 0;
    unsigned receives_in_a_row_ = 0;
    io::Buffer buffer_;           // of the payload that is coming
    std::uint64_t payloads_ = 0;  // that are not given back
    std::size_t payloads_bytes_ = 0;
    io::Event payload_returned_;
    bool reading_paused_ = false;

    std::vector<std::unique_ptr<Outgoing>> slots_;
    Outgoing* free_slots_ = nullptr;
    Outgoing* first_ = nullptr;
    Outgoing* last_ = nullptr;
    std::size_t first_sent_bytes_ = 0;
    std::size_t waiting_bytes_ = 0;
    bool send_blocked_ = false;
    bool send_broken_ = false;
    Hook hook_;
    io::Gate senders_;
    io::Event room_;
    io::Gate room_waiters_;

    io::Clock::time_point last_received_;
    io::Clock::time_point last_sent_;  // or something came to be sent where nothing was
    bool ended_ = false;
    Error why_{Errc::kClosed};
    io::Event end_;
};

}  // namespace ublkd::peer
