// The HTTP/1.1 server of the API: JSON on a unix socket, and where it is told so on a TCP address
// under TLS 1.3, where whoever has a certificate of the given authorities is allowed. Who shows
// none may be let in to a few routes of its own: small bodies, one request a connection, a few
// connections at once. One thread moves bytes, others run handlers, which may block without holding
// up each other (handler_threads.h); none is a reactor's. Keep-alive, a bound on connections,
// headers, bodies and time; a caller is known by SO_PEERCRED and allowed if it is root, the
// daemon's own user or in group ublkd (api/route_table.h refuses others). server.cc is the daemon's
// one user of Boost.Beast.
//
// Owner: Daemon. It listens before there is anything to serve: who connects in between is answered
// as soon as there is. stop() answers what is being handled, then ends; the destructor calls it.
// See docs/api.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ublkd/api/route_table.h"
#include "ublkd/base/result.h"
#include "ublkd/io/tls.h"

namespace ublkd::api {

struct TlsListen {
    std::string address;                    // a literal
    std::uint16_t port = 0;                 // 0: one is chosen
    io::TlsInUse context;                   // refuses clients without a certificate, or asks alone
    const RouteTable* strangers = nullptr;  // theirs, where it asks alone; outlives the server
};

struct ServerOptions {
    std::string socket_path;
    unsigned kept_threads = 16;  // of handlers, where no more are needed
    unsigned max_connections = 256;
    unsigned header_seconds = 30;  // for one request to arrive, and for an idle connection
    std::size_t max_body_bytes = 1024 * 1024;
    std::string group = "ublkd";  // its members may use the socket
    std::optional<TlsListen> tls{};
};

class Server {
  public:
    /// Listens on socket_path, mode 0660, with the group's (base/unix_socket.h says what it does
    /// with what lies there).
    static Result<std::unique_ptr<Server>> listen(const ServerOptions& options);
    /// Once. `routes` must outlive the server.
    void serve(const RouteTable* routes);
    /// Of TLS; 0: it does not listen there.
    std::uint16_t tls_port() const;
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    ~Server();
    void stop();

  private:
    struct Impl;
    explicit Server(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::api
