// One client connection of a load, over libnbd's asynchronous calls: connects in the background,
// tells of each request's end, and of its own death. Requests of a connection that died stay
// without an end. One owner, one thread.
#pragma once

#include <libnbd.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace ublkd::history {

class NbdConnection {
  public:
    /// `error`: 0 or a positive errno that the server answered with.
    using Done = std::function<void(int error)>;

    NbdConnection() = default;
    NbdConnection(const NbdConnection&) = delete;
    NbdConnection& operator=(const NbdConnection&) = delete;
    ~NbdConnection() { close(); }

    void start_connecting(const std::string& uri);
    /// Gives it up, with what is under way.
    void close();

    bool is_closed() const { return handle_ == nullptr; }
    bool is_ready() const;  // requests can be sent
    std::uint64_t size_bytes() const;
    int fd() const;
    short poll_events() const;
    /// After poll(). False where the connection is dead; it is closed then.
    bool handle_events(short events);

    /// The memory is the caller's until `done` was called or the connection was closed. False where
    /// it could not be sent.
    bool read(std::span<std::byte> into, std::uint64_t offset_bytes, Done done);
    bool write(std::span<const std::byte> from, std::uint64_t offset_bytes, bool fua, Done done);
    bool zero(std::uint64_t bytes, std::uint64_t offset_bytes, bool fua, Done done);
    bool discard(std::uint64_t bytes, std::uint64_t offset_bytes, bool fua, Done done);
    bool flush(Done done);

  private:
    struct Request;
    nbd_completion_callback callback_for(Done done);
    bool lives() const;

    nbd_handle* handle_ = nullptr;
};

}  // namespace ublkd::history
