#include "ublkd/daemon/peer_listener.h"

#include <utility>

#include "ublkd/base/log.h"
#include "ublkd/daemon/engine.h"

namespace ublkd::daemon {
namespace {

constexpr auto kHelloLimit = std::chrono::seconds(2);

}  // namespace

Result<std::unique_ptr<PeerListener>> PeerListener::listen(io::Reactor* reactor,
                                                           const std::string& address,
                                                           std::uint16_t port, io::TlsInUse tls,
                                                           Take take) {
    std::unique_ptr<PeerListener> made(new PeerListener(reactor, std::move(tls), std::move(take)));
    TRY(call_on(*reactor, [&]() -> Result<void> {
        TRY_ASSIGN(made->listener_, io::Listener::listen_tcp(*reactor, address, port));
        made->port_ = made->listener_.port();
        io::spawn(made->gate_, made->serve());
        return {};
    }));
    return made;
}

PeerListener::~PeerListener() {
    io::run_on(*reactor_, [this] { return stop(); });
}

io::Task<void> PeerListener::stop() {
    listener_.shutdown();
    co_await gate_.close();
    listener_ = {};
}

io::Task<void> PeerListener::serve() {
    for (;;) {
        auto socket = co_await listener_.accept();
        if (!socket) co_return;
        if (greeting_ == kAtOnce) {
            if (!tls_) peer::refuse(&*socket, peer::Reason::kBusy);
        } else {
            io::spawn(gate_, hear(std::move(*socket)));
        }
    }
}

io::Task<void> PeerListener::hear(io::Socket socket) {
    ++greeting_;
    HeardPeer heard;
    auto hearing = hear_hello(&socket, &heard);
    const Result<void> done = co_await hearing;
    --greeting_;
    if (done) {
        heard.socket = socket.leave();
        take_(std::move(heard));
    } else {
        log::info("a connection that was no host's: {}", to_string(done.error()));
    }
}

io::Task<Result<void>> PeerListener::hear_hello(io::Socket* socket, HeardPeer* heard) {
    const io::Clock::time_point limit = io::Clock::now() + kHelloLimit;
    if (tls_) {
        auto shaking = socket->start_tls(tls_.now(), limit);
        CO_TRY_ASSIGN(heard->proven, co_await shaking);
    }
    auto hearing = peer::hear_hello(socket, limit);
    CO_TRY_ASSIGN(heard->greeted, co_await hearing);
    co_return Result<void>{};
}

}  // namespace ublkd::daemon
