#include "ublkd/io/socket.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "ublkd/io/deadline.h"
#include "ublkd/io/tls_stream.h"

namespace ublkd::io {
namespace {

struct TcpAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;
};

Result<TcpAddress> tcp_address(const std::string& text, std::uint16_t port) {
    TcpAddress address;
    auto* const v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
    if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        address.length = sizeof *v4;
        return address;
    }
    auto* const v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
    if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        address.length = sizeof *v6;
        return address;
    }
    return fail(Errc::kInvalidArgument, "IP address");
}

void set_no_delay(int fd) {
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on,
                     sizeof on);  // fails on a unix socket, where it is not needed
}

Result<Socket> begin_connect(Reactor& reactor, const sockaddr* address, socklen_t length) {
    const int fd = ::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fail_errno(errno, "socket");
    Socket socket(reactor, fd);
    if (::connect(fd, address, length) != 0 && errno != EINPROGRESS)
        return fail_errno(errno, "connect");
    return socket;
}

}  // namespace

SocketInTransit::SocketInTransit() = default;
SocketInTransit::SocketInTransit(Fd socket, std::unique_ptr<TlsStream> stream)
    : fd(std::move(socket)), tls(std::move(stream)) {}
SocketInTransit::SocketInTransit(SocketInTransit&& other) noexcept = default;
SocketInTransit& SocketInTransit::operator=(SocketInTransit&& other) noexcept = default;
SocketInTransit::~SocketInTransit() = default;

Socket::Socket() = default;
Socket::Socket(Reactor& reactor, int fd) : reactor_(&reactor), ref_(reactor.register_fd(fd)) {
    set_no_delay(fd);
}
Socket::Socket(Reactor& reactor, SocketInTransit arriving)
    : reactor_(&reactor),
      ref_(reactor.register_fd(arriving.fd.release())),
      tls_(std::move(arriving.tls)) {}
Socket::Socket(Socket&& other) noexcept
    : reactor_(std::exchange(other.reactor_, nullptr)),
      ref_(std::exchange(other.ref_, FdRef{})),
      tls_(std::move(other.tls_)) {}
Socket& Socket::operator=(Socket&& other) noexcept {
    if (this != &other) {
        close_now();
        reactor_ = std::exchange(other.reactor_, nullptr);
        ref_ = std::exchange(other.ref_, FdRef{});
        tls_ = std::move(other.tls_);
    }
    return *this;
}
Socket::~Socket() { close_now(); }

void Socket::close_now() noexcept {
    if (ref_.fd < 0) return;
    if (tls_ != nullptr) tls_->say_end();
    tls_.reset();
    reactor_->unregister_fd(ref_);
    ::close(ref_.fd);
    ref_ = FdRef{};
}

void Socket::shutdown() noexcept {
    if (ref_.fd < 0) return;
    if (tls_ != nullptr) tls_->say_end();
    (void)::shutdown(ref_.fd, SHUT_RDWR);
}

SocketInTransit Socket::leave() {
    reactor_->unregister_fd(ref_);
    return {Fd(std::exchange(ref_, FdRef{}).fd), std::move(tls_)};
}

// ---- TLS

Task<Result<TlsPeer>> Socket::start_tls(TlsContext context, Clock::time_point deadline) {
    CHECK(tls_ == nullptr, "TLS begins once");
    tls_ = std::make_unique<TlsStream>(context, ref_.fd);
    const Deadline limit(this, deadline);
    const Result<void> done = co_await shake_hands();
    if (limit.passed()) co_return fail(Errc::kTimedOut, "TLS handshake");
    if (!done) co_return fail(done.error());
    co_return tls_->peer();
}

Task<Result<void>> Socket::shake_hands() {
    for (;;) {
        const Result<void> done = tls_->shake_hands();
        if (done || done.error().code != Errc::kBusy) co_return done;
        const int result = co_await reactor_->poll(ref_, tls_->handshake_events());
        if (result < 0) co_return fail_errno(-result, "poll");
    }
}

// ---- bytes

Task<Result<std::size_t>> Socket::receive_some(std::span<std::byte> into) {
    while (tls_ != nullptr) {
        const Result<std::size_t> got = try_receive(into);
        if (got || got.error().code != Errc::kBusy) co_return got;
        CO_TRY(co_await wait_readable());
    }
    for (;;) {
        const int got = co_await reactor_->receive(ref_, into);
        if (got == -EINTR) continue;
        if (got == -EAGAIN) {
            CO_TRY(co_await wait_readable());
            continue;
        }
        if (got < 0) co_return fail_errno(-got, "receive");
        co_return static_cast<std::size_t>(got);
    }
}

Task<Result<void>> Socket::send_all(std::span<const std::byte> from) {
    while (tls_ != nullptr && !from.empty()) {
        // nobody writes to it
        const iovec part{const_cast<std::byte*>(from.data()), from.size()};
        const Result<std::size_t> put = try_send({&part, 1});
        if (put) {
            from = from.subspan(*put);
            continue;
        }
        if (put.error().code != Errc::kBusy) co_return fail(put.error());
        CO_TRY(co_await wait_writable());
    }
    while (!from.empty()) {
        const int put = co_await reactor_->send(ref_, from, MSG_WAITALL);
        if (put == -EINTR) continue;
        if (put == -EAGAIN) {
            CO_TRY(co_await wait_writable());
            continue;
        }
        if (put < 0) co_return fail_errno(-put, "send");
        from = from.subspan(static_cast<std::size_t>(put));
    }
    co_return Result<void>{};
}

Task<Result<void>> Socket::wait_readable() {
    const unsigned events = readable_events();
    if (events == 0) {
        if (tls_->is_interrupted()) co_await reactor_->yield();
        co_return Result<void>{};
    }
    const int result = co_await reactor_->poll(ref_, events);
    if (result < 0) co_return fail_errno(-result, "poll");
    co_return Result<void>{};
}

Task<Result<void>> Socket::wait_writable() {
    const int result = co_await reactor_->poll(ref_, POLLOUT);
    if (result < 0) co_return fail_errno(-result, "poll");
    co_return Result<void>{};
}

unsigned Socket::readable_events() const {
    return tls_ != nullptr ? tls_->receive_events() : POLLIN | POLLRDHUP;
}

Result<std::size_t> Socket::try_receive(std::span<std::byte> into) {
    const iovec part{into.data(), into.size()};
    return try_receive({&part, 1});
}

Result<std::size_t> Socket::try_receive(std::span<const iovec> parts) {
    DCHECK(std::ranges::any_of(parts, [](const iovec& part) { return part.iov_len > 0; }),
           "no bytes asked for looks like the end of the stream");
    if (tls_ != nullptr) return tls_->try_receive(parts);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());  // recvmsg(2) does not write to it
    message.msg_iovlen = parts.size();
    for (;;) {
        const auto got = ::recvmsg(ref_.fd, &message, MSG_DONTWAIT);
        if (got >= 0) return static_cast<std::size_t>(got);
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return fail(Errc::kBusy, "receive");
        return fail_errno(errno, "receive");
    }
}

Result<std::size_t> Socket::try_send(std::span<const iovec> parts) {
    if (tls_ != nullptr) return tls_->try_send(parts);
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(parts.data());  // sendmsg(2) does not write to it
    message.msg_iovlen = std::min<std::size_t>(parts.size(), IOV_MAX);
    for (;;) {
        const auto put = ::sendmsg(ref_.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put >= 0) return static_cast<std::size_t>(put);
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return fail(Errc::kBusy, "send");
        return fail_errno(errno, "send");
    }
}

Result<Socket> Socket::connect_tcp(Reactor& reactor, const std::string& address_text,
                                   std::uint16_t port) {
    TcpAddress address;
    TRY_ASSIGN(address, tcp_address(address_text, port));
    return begin_connect(reactor, reinterpret_cast<const sockaddr*>(&address.storage),
                         address.length);
}

Result<Socket> Socket::connect_unix(Reactor& reactor, const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail(Errc::kInvalidArgument, "socket path: too long");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return begin_connect(reactor, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

Result<Listener> Listener::listen_unix(Reactor& reactor, const std::string& path,
                                       const SocketAccess& access) {
    TRY_ASSIGN(Fd listening, ublkd::listen_unix(path, access));
    return adopt(reactor, listening.release());
}

Result<Listener> Listener::listen_tcp(Reactor& reactor, const std::string& address_text,
                                      std::uint16_t port) {
    TcpAddress address;
    TRY_ASSIGN(address, tcp_address(address_text, port));
    const int fd =
        ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fail_errno(errno, "socket");
    Listener listener = adopt(reactor, fd);
    const int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.length) != 0)
        return fail_errno(errno, "bind");
    if (listen(fd, 128) != 0) return fail_errno(errno, "listen");
    return listener;
}

Listener Listener::adopt(Reactor& reactor, int fd) {
    Listener listener;
    listener.reactor_ = &reactor;
    listener.ref_ = reactor.register_fd(fd);
    return listener;
}

Listener::Listener(Listener&& other) noexcept
    : reactor_(std::exchange(other.reactor_, nullptr)),
      ref_(std::exchange(other.ref_, FdRef{})),
      stopped_(other.stopped_) {
    CHECK(!other.in_accept_, "a Listener is not moved while it accepts");
}
Listener& Listener::operator=(Listener&& other) noexcept {
    if (this != &other) {
        CHECK(!in_accept_ && !other.in_accept_, "a Listener is not moved while it accepts");
        close_now();
        reactor_ = std::exchange(other.reactor_, nullptr);
        ref_ = std::exchange(other.ref_, FdRef{});
        stopped_ = other.stopped_;
    }
    return *this;
}
Listener::~Listener() { close_now(); }

void Listener::close_now() noexcept {
    if (ref_.fd < 0) return;
    CHECK(!in_accept_, "shutdown() and the end of accept() come before a Listener is destroyed");
    reactor_->unregister_fd(ref_);
    ::close(ref_.fd);
    ref_ = FdRef{};
}

Task<Result<Socket>> Listener::accept() {
    CHECK(!in_accept_, "one accept() at a time");
    in_accept_ = true;
    auto result = co_await accept_one();
    in_accept_ = false;
    co_return result;
}

Task<Result<Socket>> Listener::accept_one() {
    while (!stopped_) {
        Operation operation = reactor_->accept(ref_);
        accepting_ = &operation;
        const int result = co_await operation;
        accepting_ = nullptr;
        if (result >= 0) {
            Socket socket(*reactor_, result);
            if (stopped_) break;
            co_return socket;
        }
        if (stopped_) break;
        if (result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS) {
            co_await reactor_->sleep_for(std::chrono::milliseconds(100));
            continue;
        }
        // A connection that broke before it was taken says nothing about the listener. Source:
        // accept(2), "Error handling".
        if (result == -EINTR || result == -EAGAIN || result == -ECONNABORTED || result == -EPROTO ||
            result == -ENETDOWN || result == -EHOSTUNREACH || result == -ENETUNREACH)
            continue;
        co_return fail_errno(-result, "accept");
    }
    co_return fail(Errc::kCancelled, "accept");
}

void Listener::shutdown() {
    stopped_ = true;
    if (accepting_ != nullptr) reactor_->cancel(accepting_);
}

std::uint16_t Listener::port() const {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    if (getsockname(ref_.fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return 0;
    if (storage.ss_family == AF_INET)
        return ntohs(reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
    if (storage.ss_family == AF_INET6)
        return ntohs(reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port);
    return 0;
}

}  // namespace ublkd::io
