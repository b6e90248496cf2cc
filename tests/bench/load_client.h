// A lean NBD client for measuring servers: one connection, simple replies, one thread. It keeps
// `depth` requests under way; one receive takes all replies that are there, one sendmsg sends all
// requests that follow them. So what is measured is the server and the socket, not a client's own
// wake-ups. Plain system calls: it shares no code with our server.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace ublkd::bench {

struct LoadOptions {
    std::string socket_path;
    std::string export_name;
    std::string operation;  // randread, randwrite, read, write; fill: each block once, in order
    std::uint32_t block_bytes = 4096;
    unsigned depth = 1;
    double seconds = 1;
    std::uint64_t range_bytes = 0;  // 0: the whole export
    int server_pid = 0;             // 0: its CPU time is not asked for
};

/// Latencies in buckets of 1/16 of a power of two.
class Latencies {
  public:
    void add(std::uint64_t nanoseconds);
    double percentile_us(double of) const;
    std::uint64_t count() const { return count_; }

  private:
    std::vector<std::uint64_t> buckets_ = std::vector<std::uint64_t>(64 * 16);
    std::uint64_t count_ = 0;
};

class LoadClient {
  public:
    explicit LoadClient(LoadOptions options);
    LoadClient(const LoadClient&) = delete;
    LoadClient& operator=(const LoadClient&) = delete;
    ~LoadClient();
    /// Connects and shakes hands; ends the process with a message where that fails.
    void connect();
    /// Keeps requests under way for the time asked for (fill: until all is written) and takes the
    /// last replies.
    void run();
    /// Tells the server. Its threads of this connection may end then, and their counters with them.
    void disconnect();

    std::uint64_t completed() const { return completed_; }
    double elapsed_seconds() const { return elapsed_seconds_; }
    const Latencies& latencies() const { return latencies_; }

  private:
    struct Slot {
        std::byte header[28];
        std::uint64_t started_ns = 0;
    };
    void receive_exactly(void* into, std::size_t bytes);
    void send_exactly(const void* from, std::size_t bytes);
    std::uint64_t next_offset();
    void queue_request(std::uint32_t slot, std::uint64_t now_ns);
    void send_queued();
    void take_replies(std::uint64_t bytes, std::uint64_t now_ns);
    bool more_to_start(std::uint64_t now_ns) const;

    LoadOptions options_;
    bool writes_ = false;
    bool random_ = false;
    bool fill_ = false;
    int fd_ = -1;
    std::uint64_t blocks_ = 0;
    std::uint64_t next_block_ = 0;
    std::uint64_t end_ns_ = 0;
    std::mt19937_64 random_source_{12345};
    std::vector<Slot> slots_;
    std::vector<std::byte> payload_;
    std::vector<std::byte> received_;
    std::size_t received_bytes_ = 0;  // of a reply header that came in part
    std::uint64_t skip_bytes_ = 0;    // of a READ's data
    std::vector<iovec> out_;
    std::size_t out_done_ = 0;
    unsigned in_flight_ = 0;
    std::uint64_t completed_ = 0;
    double elapsed_seconds_ = 0;
    Latencies latencies_;
};

std::uint64_t now_ns();
[[noreturn]] void die(const std::string& text);

}  // namespace ublkd::bench
