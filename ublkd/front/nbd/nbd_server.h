// The NBD server: listens on a unix socket, on loopback TCP and on sockets given by socket
// activation, shakes hands and serves exports; over TCP under TLS where it has been given
// certificates or keys, and then beyond this machine. Write path step 1 of 4: an NBD request ->
// BlockDevice -> an NBD error.
//
// A connection is accepted and shakes hands on the server's reactor; once its export is known it
// lives on the export's own reactor (`Export::home`), to which the socket and the bytes received so
// far are handed over. So a request never changes threads. A connection's failure never leaves the
// connection.
//
// Owner: the daemon, on the reactor given to the constructor; all calls are made there. stop()
// comes before destruction and before any reactor that serves an export stops. See docs/nbd.md;
// source: NetworkBlockDevice/nbd doc/proto.md.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/base/units.h"
#include "ublkd/front/nbd/export_directory.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/io/socket.h"
#include "ublkd/io/sync.h"

namespace ublkd::front::nbd {

class Session;
struct SharedExport;

struct NbdServerOptions {
    unsigned max_connections = 100;                                 // one more waits, and is closed
    io::Clock::duration accept_patience = std::chrono::seconds(1);  // so long for one to end
    io::Clock::duration handshake_timeout = std::chrono::seconds(10);  // from accept to GO
    io::Clock::duration drain_timeout =
        std::chrono::seconds(10);  // for a client to take its last replies
    io::Clock::duration old_connections_timeout =
        std::chrono::seconds(10);                   // for requests of clients that are gone
    unsigned max_requests_in_flight = 128;          // of one connection; then it is not read from
    std::uint64_t max_bytes_in_flight = 16 * kMiB;  // the same, in data; one request always fits
    std::function<bool(int fd)> admit;              // asked at accept; false: closed at once
    io::TlsContext tls;  // a server's: TCP clients begin TLS; unix sockets stay in the clear
};

/// Whether `text` is an IP literal that this machine alone can reach.
bool is_loopback(const std::string& text);

class NbdServer {
  public:
    NbdServer(io::Reactor* reactor, io::BufferPool* buffers, ExportDirectory* directory,
              NbdServerOptions options = {});
    NbdServer(const NbdServer&) = delete;
    NbdServer& operator=(const NbdServer&) = delete;
    ~NbdServer();

    /// A socket left behind by a dead process is replaced; kBusy where another process serves it.
    Result<void> listen_unix(const std::string& path, const SocketAccess& access = {});
    /// `address`: an IP literal, without TLS a loopback one, else kNotPermitted. `port` 0: one is
    /// chosen. Gives the port. kClosed after stop().
    Result<std::uint16_t> listen_tcp(const std::string& address, std::uint16_t port);
    /// Takes the sockets of LISTEN_FDS where LISTEN_PID is this process, and gives their number (0:
    /// not activated).
    Result<unsigned> listen_activated();
    /// Serves a connected socket as if it had been accepted (inetd mode, tests).
    void serve(io::Socket socket);

    /// Refuses new clients, ends those that shake hands, answers what is in flight, closes. Called
    /// once.
    io::Task<void> stop();
    /// Its first half, which waits for nothing: from here on a request that fails is not answered,
    /// and its client loses the connection. For who must then make a device give up waiting.
    void begin_stop();
    /// Ends all connections of an export (detach) after answering what is in flight. Clients that
    /// come later are the directory's to refuse. `name`: ExportInfo::name.
    io::Task<void> disconnect(const std::string& name);
    void begin_disconnect(const std::string& name);

    unsigned connections() const;                         // handshaking ones too
    unsigned connections(const std::string& name) const;  // of one export

  private:
    friend class Session;
    io::Task<void> accept_loop(io::Listener* listener);
    bool is_full() const { return sessions_.size() >= options_.max_connections; }
    void start_accepting(io::Listener listener);
    std::shared_ptr<SharedExport> share(const Export& opened);
    io::Task<void> run_session(Session* session);

    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    ExportDirectory* directory_;
    NbdServerOptions options_;
    std::list<io::Listener> listeners_;
    std::vector<std::string> unix_paths_;
    std::list<std::unique_ptr<Session>> sessions_;
    std::map<block::BlockDevice*, std::weak_ptr<SharedExport>> shared_;
    io::Gate gate_;
    io::Event session_ended_;
    bool stopping_ = false;
};

}  // namespace ublkd::front::nbd
