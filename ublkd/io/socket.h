// Stream sockets (TCP and unix) on a reactor. Two ways to move bytes: awaitables through the ring,
// and try_ calls that go to the kernel directly and never block (a front end batches with these and
// waits with wait_readable()). Closing: shutdown() makes what is pending end; the destructor
// closes, after the last request has ended.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "ublkd/base/fd.h"
#include "ublkd/base/result.h"
#include "ublkd/base/unix_socket.h"
#include "ublkd/io/reactor.h"

namespace ublkd::io {

class Socket {
  public:
    Socket() = default;
    /// Takes over `fd`, a connected stream socket.
    Socket(Reactor& reactor, int fd);
    Socket(Socket&& other) noexcept;
    Socket& operator=(Socket&& other) noexcept;
    ~Socket();

    /// Begins to connect; what is sent waits until that is done, and gets its error. `address`: an
    /// IPv4 or IPv6 literal.
    static Result<Socket> connect_tcp(Reactor& reactor, const std::string& address,
                                      std::uint16_t port);
    static Result<Socket> connect_unix(Reactor& reactor, const std::string& path);

    /// At least one byte; 0 means that the other side has closed.
    Task<Result<std::size_t>> receive_some(std::span<std::byte> into);
    Task<Result<void>> send_all(std::span<const std::byte> from);
    /// Until bytes, the end or an error can be taken by try_receive().
    Task<Result<void>> wait_readable();
    Task<Result<void>> wait_writable();

    /// Bytes taken; 0 at the end; kBusy where nothing is there now.
    Result<std::size_t> try_receive(std::span<std::byte> into);
    /// Bytes taken by the kernel, perhaps fewer than given (not more than the first 1024 parts);
    /// kBusy where it takes none now.
    Result<std::size_t> try_send(std::span<const iovec> parts);

    void shutdown() noexcept;
    void close_now() noexcept;
    /// The descriptor, of no reactor any more: for a socket of another one. Nothing is pending.
    Fd release() noexcept;
    bool is_open() const { return ref_.fd >= 0; }
    int fd() const { return ref_.fd; }
    FdRef ref() const { return ref_; }
    Reactor& reactor() const { return *reactor_; }

  private:
    Reactor* reactor_ = nullptr;
    FdRef ref_;
};

class Listener {
  public:
    /// As base/unix_socket.h.
    static Result<Listener> listen_unix(Reactor& reactor, const std::string& path,
                                        const SocketAccess& access);
    /// `address`: an IPv4 or IPv6 literal. `port` 0: one is chosen, see port().
    static Result<Listener> listen_tcp(Reactor& reactor, const std::string& address,
                                       std::uint16_t port);
    /// Takes over a listening socket, as given by socket activation (LISTEN_FDS).
    static Listener adopt(Reactor& reactor, int fd);
    Listener() = default;
    Listener(Listener&& other) noexcept;
    Listener& operator=(Listener&& other) noexcept;
    ~Listener();

    /// kCancelled after shutdown(). Where the process is out of descriptors or memory it waits
    /// until it no longer is.
    Task<Result<Socket>> accept();
    /// Makes a pending accept() end.
    void shutdown();
    std::uint16_t port() const;
    bool is_open() const { return ref_.fd >= 0; }

  private:
    void close_now() noexcept;
    Task<Result<Socket>> accept_one();
    Reactor* reactor_ = nullptr;
    FdRef ref_;
    bool stopped_ = false;
    bool in_accept_ = false;
    Operation* accepting_ = nullptr;  // while it is in the kernel
};

}  // namespace ublkd::io
