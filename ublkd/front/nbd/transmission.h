// The transmission phase of one connection: requests in, replies out. Write path step 1 of 4.
//
// One receive takes as many requests as have come, and all of them start before the next receive;
// what they ask of the disk enters the kernel before replies are sent (Reactor::at_turn_end), and
// all replies that are ready go out with one sendmsg. Sockets are called directly and never block;
// the ring is for disks and for waiting. A WRITE's payload is received straight into its aligned
// buffer as far as it had not come with the header.
//
// Bounds: requests and bytes in flight (TransmissionLimits). A client beyond them is not read from
// until replies have gone.
//
// A client that lost its connection sends on a new one what was not answered, and then changes what
// that wrote. So no request of an old connection, waiting in a socket or at the device, may come
// after one of the new connection: before its first request a connection drains those of the same
// export whose client has hung up, and waits until their last request has left the device.
//
// Lifetime: run() ends when the connection is over, every request has left
// the device and every reply has been sent or given up; then the object may be destroyed. So
// nothing ever answers into a closed descriptor. Owner: a Session, on the export's reactor. See
// docs/nbd.md.
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ublkd/front/nbd/handshake.h"
#include "ublkd/front/nbd/request.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/socket.h"
#include "ublkd/io/sync.h"
#include "ublkd/io/task.h"

namespace ublkd::front::nbd {

struct TransmissionLimits {
    unsigned requests = 128;
    std::uint64_t bytes = 16 * kMiB;
    io::Clock::duration drain_timeout = std::chrono::seconds(10);
    io::Clock::duration old_connections_timeout = std::chrono::seconds(10);
};

class Transmission;

/// What the connections of one export share, on its reactor.
struct SharedExport {
    block::BlockDevice* device = nullptr;
    io::Reactor* reactor = nullptr;
    io::BufferPool* buffers = nullptr;
    /// Changes of whole logical blocks, on any connection. NBD clients that did not ask for block
    /// sizes may write single bytes: a read-modify-write here, exclusive, so that no write beside
    /// it is lost.
    io::ChangeQueue changes;
    /// Memory for reads of more than 512 KiB, which must be whole before their reply begins.
    static constexpr std::uint64_t kLargeReadBytes = 2ULL * kMaxPayloadBytes;
    io::Semaphore large_reads{kLargeReadBytes};
    /// Those that take requests or have some at the device.
    std::vector<Transmission*> connections;
    std::uint64_t next_connection = 0;
    std::string name;  // for the log
};

class Transmission {
  public:
    /// `received`: bytes that came behind the handshake; copied.
    Transmission(io::Socket socket, std::span<const std::byte> received, SharedExport* shared,
                 Negotiated negotiated, TransmissionLimits limits);
    Transmission(const Transmission&) = delete;
    Transmission& operator=(const Transmission&) = delete;
    ~Transmission();

    /// Serves until the client disconnects, breaks the protocol, or drain().
    io::Task<void> run();
    /// Takes no further request; what was taken is answered, then run() ends.
    void drain();

  private:
    static constexpr std::size_t kReceiveBytes = 256 * 1024;
    // Among large WRITEs little is received behind a header, so that payloads go straight into
    // their buffers.
    static constexpr std::size_t kLargeWriteBytes = 32 * 1024;
    static constexpr std::size_t kReceiveBytesAmongLarge = 4 * 1024;
    static constexpr std::size_t kMaxParts = 128;  // iovecs of one sendmsg

    struct Hook : io::TurnHook {
        Transmission* self = nullptr;
    };

    // transmission.cc: bytes in
    io::Task<bool> end_old_connections();
    bool takes_no_more() const;
    io::Task<void> receive_loop();
    io::Task<bool> take_request(const WireRequest& wire);
    bool take_write_now(Request* request);
    io::Task<bool> take_write(Request* request);
    io::Task<bool> take_parts(Request* parent);
    io::Task<bool> take_payload(std::span<std::byte> into);
    io::Task<bool> skip_payload(std::uint64_t bytes);
    io::Task<void> take_buffer(Request* request, std::size_t bytes);
    io::Task<bool> receive_more(std::span<std::byte> direct, std::size_t* direct_bytes);
    io::Task<void> wait_readable();
    io::Task<void> wait_for_room(std::uint64_t bytes);
    bool has_room(std::uint64_t bytes) const;
    void charge(Request* request, std::uint64_t bytes) {
        request->charged_bytes = bytes;
        bytes_in_flight_ += bytes;
    }
    NbdError check(const WireRequest& wire, const char** why) const;
    bool flags_allowed(const WireRequest& wire) const;
    std::size_t buffered() const { return received_end_ - received_begin_; }
    bool over() const { return draining_ || broken_; }
    Range blocks_of(Range range) const { return align_out(range, geometry_.logical_block_bytes); }

    // serve.cc: the requests at the device
    void start(Request* request);
    io::Task<void> serve_read(Request* request);
    io::Task<void> serve_large_read(Request* request);
    io::Task<void> serve_write(Request* request);
    io::Task<void> serve_flush(Request* request);
    io::Task<void> serve_trim(Request* request);
    io::Task<void> serve_write_zeroes(Request* request);
    io::Task<void> serve_block_status(Request* request);
    io::Task<void> read_part(std::uint64_t offset_bytes, std::span<std::byte> into,
                             Result<void>* result);
    io::Task<Result<void>> fill_edges(std::span<std::byte> blocks, Range covered, Range payload);
    io::Task<Result<void>> zero_edge(Range range, bool fua);
    io::Task<Result<void>> zero_blocks(Range range, const WireRequest& wire,
                                       io::QueuedChange* change);
    bool must_wait(const io::QueuedChange& change) const;

    // reply.cc: bytes out
    void finish(Request* request, const Result<void>& result, std::span<const std::byte> data = {});
    void finish_part(Request* part, const Result<void>& result);
    void settle_parent(Request* parent);
    void refuse(Request* request, NbdError error, const char* why);
    void queue_reply(Request* request);
    void send_ready() noexcept;
    std::size_t gather(std::span<iovec> parts) const;
    void account_sent(std::size_t bytes);
    void drop_replies();
    io::Task<void> wait_writable();
    void break_off();
    Request* take_slot();
    void give_back(Request* request);

    io::Socket socket_;
    io::Reactor* reactor_;
    SharedExport* shared_;
    block::BlockDevice* device_;
    const block::Geometry geometry_;
    const Negotiated negotiated_;
    const TransmissionLimits limits_;

    std::unique_ptr<std::byte[]> received_;
    std::size_t received_begin_ = 0;
    std::size_t received_end_ = 0;
    std::size_t receive_limit_ = kReceiveBytes;
    bool perhaps_more_ = true;  // the last receive filled what it was given
    unsigned receives_in_a_row_ = 0;
    io::Operation* waiting_for_client_ = nullptr;

    std::vector<std::unique_ptr<Request>> slots_;
    Request* free_slots_ = nullptr;
    unsigned in_flight_ = 0;
    std::uint64_t bytes_in_flight_ = 0;
    io::Event room_;

    Request* replies_ = nullptr;  // ready, in order of completion
    Request* last_reply_ = nullptr;
    std::size_t first_sent_bytes_ = 0;  // of replies_, by an incomplete send
    bool send_blocked_ = false;
    Hook hook_;
    io::Event replies_gone_;

    const std::uint64_t id_;  // in shared_
    io::Gate requests_;       // in the device
    io::Gate senders_;
    bool draining_ = false;
    bool broken_ = false;      // nothing can be sent any more
    bool input_over_ = false;  // no request will be taken
};

}  // namespace ublkd::front::nbd
