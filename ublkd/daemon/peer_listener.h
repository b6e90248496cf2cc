// Takes the connections of other hosts to this one's volumes, as far as whose they are: hears the
// hello on one reactor, inside of TLS where hosts have certificates, and hands socket and hello on
// (docs/peer-protocol.md). Who says nothing, or something else, is dropped after a while; a few at
// once.
//
// Owner: Daemon. Thread: of the reactor, but for listen() and the destructor, which block.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ublkd/base/result.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/socket.h"
#include "ublkd/io/sync.h"
#include "ublkd/peer/greeting.h"

namespace ublkd::daemon {

/// A connection whose hello is not answered yet.
struct HeardPeer {
    io::SocketInTransit socket;
    peer::Greeted greeted;
    io::TlsPeer proven{};  // whether it is the host of the hello is not looked at yet
};

class PeerListener {
  public:
    /// Must not block.
    using Take = std::function<void(HeardPeer heard)>;
    /// `port` 0: one is chosen. `tls` nobody's: in the clear.
    static Result<std::unique_ptr<PeerListener>> listen(io::Reactor* reactor,
                                                        const std::string& address,
                                                        std::uint16_t port, io::TlsInUse tls,
                                                        Take take);
    PeerListener(const PeerListener&) = delete;
    PeerListener& operator=(const PeerListener&) = delete;
    ~PeerListener();

    std::uint16_t port() const { return port_; }

  private:
    static constexpr unsigned kAtOnce = 64;

    PeerListener(io::Reactor* reactor, io::TlsInUse tls, Take take)
        : reactor_(reactor), tls_(std::move(tls)), take_(std::move(take)) {}
    io::Task<void> serve();
    io::Task<void> hear(io::Socket socket);
    io::Task<Result<void>> hear_hello(io::Socket* socket, HeardPeer* heard);
    io::Task<void> stop();

    io::Reactor* reactor_;
    io::TlsInUse tls_;
    Take take_;
    io::Listener listener_;
    std::uint16_t port_ = 0;
    unsigned greeting_ = 0;
    io::Gate gate_;
};

}  // namespace ublkd::daemon
