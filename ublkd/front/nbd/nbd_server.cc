#include "ublkd/front/nbd/nbd_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/log.h"
#include "ublkd/front/nbd/session.h"

namespace ublkd::front::nbd {
namespace {

constexpr int kFirstActivatedFd = 3;  // sd_listen_fds(3)
constexpr auto kAcceptRetry = std::chrono::milliseconds(100);

bool is_loopback(const in_addr& address) { return (ntohl(address.s_addr) >> 24) == 127; }

/// A listening stream socket, which without TLS only this machine can reach.
bool is_fit_listener(int fd, bool tls) {
    int listening = 0;
    socklen_t length = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0 || listening == 0)
        return false;
    sockaddr_storage address{};
    socklen_t address_length = sizeof address;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &address_length) != 0) return false;
    if (address.ss_family == AF_UNIX) return true;
    if (address.ss_family == AF_INET)
        return tls || is_loopback(reinterpret_cast<sockaddr_in*>(&address)->sin_addr);
    if (address.ss_family != AF_INET6) return false;
    return tls || IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr);
}

/// The number in environment variable `name`, or -1.
long number_from_environment(const char* name) {
    const char* const text = std::getenv(name);
    if (text == nullptr) return -1;
    const std::string_view view(text);
    long value = -1;
    const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
    return error == std::errc{} && end == view.data() + view.size() ? value : -1;
}

}  // namespace

bool is_loopback(const std::string& text) {
    in_addr v4{};
    if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return is_loopback(v4);
    in6_addr v6{};
    return inet_pton(AF_INET6, text.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

NbdServer::NbdServer(io::Reactor* reactor, io::BufferPool* buffers, ExportDirectory* directory,
                     NbdServerOptions options)
    : reactor_(reactor), buffers_(buffers), directory_(directory), options_(std::move(options)) {}

NbdServer::~NbdServer() {
    CHECK(sessions_.empty() && gate_.count() == 0, "stop() comes before destruction");
}

// ---- listening

Result<void> NbdServer::listen_unix(const std::string& path, const SocketAccess& access) {
    TRY_ASSIGN(io::Listener listener, io::Listener::listen_unix(*reactor_, path, access));
    start_accepting(std::move(listener));
    unix_paths_.push_back(path);
    return {};
}

Result<std::uint16_t> NbdServer::listen_tcp(const std::string& address, std::uint16_t port) {
    if (!options_.tls && !is_loopback(address))
        return fail(Errc::kNotPermitted, "NBD over TCP without TLS: loopback addresses only");
    if (stopping_) return fail(Errc::kClosed, "listen");
    TRY_ASSIGN(io::Listener listener, io::Listener::listen_tcp(*reactor_, address, port));
    const std::uint16_t chosen = listener.port();
    start_accepting(std::move(listener));
    return chosen;
}

Result<unsigned> NbdServer::listen_activated() {
    if (number_from_environment("LISTEN_PID") != static_cast<long>(getpid())) return 0U;
    const long count = number_from_environment("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (count < 0 || count > 1024) return fail(Errc::kInvalidArgument, "LISTEN_FDS");
    for (int fd = kFirstActivatedFd; fd < kFirstActivatedFd + static_cast<int>(count); ++fd) {
        if (!is_fit_listener(fd, static_cast<bool>(options_.tls)))
            return fail(Errc::kInvalidArgument,
                        "LISTEN_FDS: not a listening unix socket, nor a TCP socket that is fit");
    }
    for (int fd = kFirstActivatedFd; fd < kFirstActivatedFd + static_cast<int>(count); ++fd) {
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        start_accepting(io::Listener::adopt(*reactor_, fd));
    }
    return static_cast<unsigned>(count);
}

void NbdServer::start_accepting(io::Listener listener) {
    listeners_.push_back(std::move(listener));
    const bool started = io::spawn(gate_, accept_loop(&listeners_.back()));
    CHECK(started, "listening begins before stop()");
}

io::Task<void> NbdServer::accept_loop(io::Listener* listener) {
    while (!stopping_) {
        Result<io::Socket> accepted = co_await listener->accept();
        if (accepted) {
            if (options_.admit && !options_.admit(accepted->fd())) continue;
            // Clients that are gone count until what they asked for is done; that passes.
            const io::Clock::time_point patience_ends = io::Clock::now() + options_.accept_patience;
            while (is_full() && !stopping_ && io::Clock::now() < patience_ends)
                (void)co_await reactor_->wait_until(&session_ended_, patience_ends);
            serve(std::move(*accepted));
            continue;
        }
        if (accepted.error().code == Errc::kCancelled) co_return;
        log::warn("nbd: {}", to_string(accepted.error()));  // out of descriptors, say: it may pass
        co_await reactor_->sleep_for(kAcceptRetry);
    }
}

// ---- sessions

void NbdServer::serve(io::Socket socket) {
    if (stopping_ || is_full()) {
        log::debug("nbd: connection refused, {}", stopping_ ? "shutting down" : "too many of them");
        return;
    }
    sessions_.push_back(std::make_unique<Session>(this, std::move(socket)));
    const bool started = io::spawn(gate_, run_session(sessions_.back().get()));
    CHECK(started, "sessions begin before stop()");
}

io::Task<void> NbdServer::run_session(Session* session) {
    co_await session->run();
    std::erase_if(sessions_, [session](const auto& other) { return other.get() == session; });
    std::erase_if(shared_, [](const auto& entry) { return entry.second.expired(); });
    session_ended_.pulse();
}

std::shared_ptr<SharedExport> NbdServer::share(const Export& opened) {
    std::weak_ptr<SharedExport>& known = shared_[opened.device];
    if (auto shared = known.lock()) return shared;
    io::BufferPool* const buffers = opened.buffers != nullptr ? opened.buffers : buffers_;
    CHECK(opened.buffers != nullptr || opened.home == reactor_,
          "a pool is used on its own reactor alone");
    auto shared = std::make_shared<SharedExport>();
    shared->device = opened.device;
    shared->reactor = opened.home;
    shared->buffers = buffers;
    shared->name = opened.info.name;
    known = shared;
    return shared;
}

void NbdServer::begin_stop() {
    stopping_ = true;
    for (io::Listener& listener : listeners_) listener.shutdown();
    session_ended_.pulse();
    for (const auto& session : sessions_) session->cancel_handshake();
    for (const auto& session : sessions_) session->drain();
}

io::Task<void> NbdServer::stop() {
    begin_stop();
    co_await gate_.close();
    listeners_.clear();
    for (const std::string& path : unix_paths_) (void)unlink(path.c_str());
    unix_paths_.clear();
}

void NbdServer::begin_disconnect(const std::string& name) {
    for (const auto& session : sessions_) {
        if (session->export_name() == name) session->drain();
    }
}

io::Task<void> NbdServer::disconnect(const std::string& name) {
    begin_disconnect(name);
    while (connections(name) > 0) co_await session_ended_.wait();
}

unsigned NbdServer::connections() const { return static_cast<unsigned>(sessions_.size()); }

unsigned NbdServer::connections(const std::string& name) const {
    const auto count =
        std::ranges::count_if(sessions_, [&](const auto& s) { return s->export_name() == name; });
    return static_cast<unsigned>(count);
}

}  // namespace ublkd::front::nbd
