// Stream sockets (TCP and unix) on a reactor. Two ways to move bytes: awaitables through the ring,
// and try_ calls that go to the kernel directly and never block (a front end batches with these and
// waits with wait_readable()). Closing: shutdown() makes what is pending end; the destructor
// closes, after the last request has ended.
//
// start_tls() puts TLS between a socket and its user, who goes on with the same calls. Two things
// are different then. A send that said kBusy, or took a part, has perhaps encrypted what comes
// next: the next one begins with the same bytes, wherever they are by then, or is none at all. And
// 0 bytes come only where the other side said that it ends; where its bytes just cease, that is
// kClosed.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "ublkd/base/fd.h"
#include "ublkd/base/result.h"
#include "ublkd/base/unix_socket.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/tls.h"

namespace ublkd::io {

class TlsStream;

/// A socket on its way from one reactor to another.
struct SocketInTransit {
    SocketInTransit();
    SocketInTransit(Fd socket, std::unique_ptr<TlsStream> stream);
    SocketInTransit(SocketInTransit&& other) noexcept;
    SocketInTransit& operator=(SocketInTransit&& other) noexcept;
    ~SocketInTransit();

    Fd fd;
    std::unique_ptr<TlsStream> tls;
};

class Socket {
  public:
    Socket();
    /// Takes over `fd`, a connected stream socket.
    Socket(Reactor& reactor, int fd);
    /// The other end of leave().
    Socket(Reactor& reactor, SocketInTransit arriving);
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
    /// The same into several places, one after the other.
    Result<std::size_t> try_receive(std::span<const iovec> parts);
    /// Bytes taken by the kernel, perhaps fewer than given (not more than the first 1024 parts);
    /// kBusy where it takes none now.
    Result<std::size_t> try_send(std::span<const iovec> parts);

    /// What wait_readable() polls for, for who polls himself; 0: nothing, a receive comes first.
    unsigned readable_events() const;

    /// The handshake, as the side that `context` is made for; nothing may have been received that
    /// comes behind its beginning. Who the other side is; for a client that is not all: a server
    /// that refuses its certificate says so afterwards, to the first receive. Errors: kTimedOut,
    /// kNotPermitted (a certificate or key, ours or theirs), kProtocol, kClosed, or the socket's.
    /// The socket is of no use then.
    Task<Result<TlsPeer>> start_tls(TlsContext context, Clock::time_point deadline);
    bool is_tls() const { return tls_ != nullptr; }

    /// Gives the socket to another reactor; nothing of it may be pending here.
    SocketInTransit leave();

    /// Where TLS can still say so, the other side sees an end in order.
    void shutdown() noexcept;
    void close_now() noexcept;
    bool is_open() const { return ref_.fd >= 0; }
    int fd() const { return ref_.fd; }
    FdRef ref() const { return ref_; }
    Reactor& reactor() const { return *reactor_; }

  private:
    Task<Result<void>> shake_hands();

    Reactor* reactor_ = nullptr;
    FdRef ref_;
    std::unique_ptr<TlsStream> tls_;  // nullptr: in the clear
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
