#include "ublkd/api/server.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "ublkd/api/handler_threads.h"
#include "ublkd/api/peer.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/log.h"
#include "ublkd/base/unix_socket.h"

namespace ublkd::api {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Protocol = asio::generic::stream_protocol;
using Stream = beast::basic_stream<Protocol>;

constexpr auto kHandshakeLimit = std::chrono::seconds(5);
constexpr unsigned kHandshakesAtOnce = 64;
constexpr unsigned kStrangersAtOnce = 8;
constexpr unsigned kStrangerSeconds = 5;
constexpr std::size_t kStrangerBodyMax = 16 * 1024;

}  // namespace

struct Server::Impl {
    struct Connection;

    explicit Impl(ServerOptions given)
        : options(std::move(given)), acceptor(io), handlers(options.kept_threads) {}

    Result<void> listen_tls();
    void accept_next();
    void accept_tls_next();
    void stop();

    const RouteTable* routes = nullptr;  // from serve() on
    ServerOptions options;
    std::optional<gid_t> group;
    std::set<Connection*> connections;  // on the I/O thread alone
    asio::io_context io{1};
    // Keeps the I/O thread until the last handler has handed over its answer.
    asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
    asio::local::stream_protocol::acceptor acceptor;
    std::optional<asio::ip::tcp::acceptor> tls_acceptor;
    unsigned shaking_hands = 0;  // on the I/O thread alone
    unsigned strangers = 0;      // the same
    HandlerThreads handlers;
    std::thread thread;
    std::atomic<bool> stopping = false;
};

/// One client. Lives while a read, a handler or a write of it is under way.
struct Server::Impl::Connection : std::enable_shared_from_this<Server::Impl::Connection> {
    Connection(Impl* server, Protocol::socket socket) : impl(server), stream(std::move(socket)) {
        impl->connections.insert(this);
    }
    ~Connection() {
        impl->connections.erase(this);
        if (is_stranger) --impl->strangers;
    }

    void begin() {
        caller = caller_of(stream.socket().native_handle(), impl->group);
        read_next();
    }

    void begin_tls() {
        asio::ssl::context context(impl->options.tls->context.now().share());
        tls.emplace(stream, context);
        ++impl->shaking_hands;
        stream.expires_after(kHandshakeLimit);
        tls->async_handshake(asio::ssl::stream_base::server, [self = shared_from_this()](
                                                                 beast::error_code error) {
            --self->impl->shaking_hands;
            if (self->impl->stopping) return;
            if (error) {
                log::info("a connection without a certificate that counts: {}", error.message());
                return;
            }
            self->take_certificate();
        });
    }

    void take_certificate() {
        ssl_st* const connection = tls->native_handle();
        caller.certified = io::tls_peer_of(connection).uris;
        caller.allowed = true;
        if (!io::has_certificate(connection)) {
            if (impl->options.tls->strangers == nullptr || impl->strangers == kStrangersAtOnce)
                return;
            is_stranger = true;
            ++impl->strangers;
        }
        read_next();
    }
    unsigned patience() const {
        return is_stranger ? kStrangerSeconds : impl->options.header_seconds;
    }

    void read_next() {
        parser.emplace();
        parser->header_limit(16 * 1024);
        parser->body_limit(is_stranger ? kStrangerBodyMax : impl->options.max_body_bytes);
        stream.expires_after(std::chrono::seconds(patience()));
        auto done = [self = shared_from_this()](beast::error_code error, std::size_t) {
            self->on_read(error);
        };
        if (tls)
            http::async_read(*tls, buffer, *parser, std::move(done));
        else
            http::async_read(stream, buffer, *parser, std::move(done));
    }

    void on_read(beast::error_code error) {
        if (error == http::error::body_limit) {
            keep_alive = false;
            answer(refused(ApiError{"RequestTooLarge",
                                    is_stranger
                                        ? fmt::format("a request's body has at most {} KiB here",
                                                      kStrangerBodyMax >> 10)
                                        : fmt::format("a request's body has at most {} MiB",
                                                      impl->options.max_body_bytes >> 20)}));
            return;
        }
        if (error == http::error::end_of_stream || error == beast::error::timeout ||
            error == asio::error::operation_aborted ||
            (error &&
             error.category() != http::make_error_code(http::error::bad_method).category())) {
            return;  // the client is gone, or says nothing
        }
        if (error) {
            keep_alive = false;
            answer(refused(ApiError{"InvalidRequest", "this is not HTTP/1.1: " + error.message()}));
            return;
        }
        stream.expires_never();
        busy = true;
        const auto& message = parser->get();
        keep_alive = message.keep_alive() && !impl->stopping && !is_stranger;
        RawRequest raw{std::string(message.method_string()), std::string(message.target()),
                       message.body(), caller};
        impl->handlers.submit([self = shared_from_this(), raw = std::move(raw)]() mutable {
            const RouteTable* const routes =
                self->is_stranger ? self->impl->options.tls->strangers : self->impl->routes;
            auto response = routes->dispatch(raw);
            auto* const io = &self->impl->io;
            asio::post(*io, [self = std::move(self), response = std::move(response)]() mutable {
                self->answer(std::move(response));
            });
        });
    }

    static Response refused(const ApiError& error) {
        const std::string id = format_id("req-", random_u64());
        return Response{api_code(error.code).http_status, error_body(error, id).dump() + "\n", id};
    }

    void answer(Response response) {
        reply = http::response<http::string_body>(static_cast<http::status>(response.status), 11);
        reply.set(http::field::content_type, "application/json");
        reply.set(http::field::server, "ublkd/" UBLKD_VERSION);
        reply.set("x-request-id", response.request_id);
        reply.body() = std::move(response.body);
        reply.keep_alive(keep_alive);
        reply.prepare_payload();
        stream.expires_after(std::chrono::seconds(patience()));
        auto done = [self = shared_from_this()](beast::error_code error, std::size_t) {
            self->on_written(error);
        };
        if (tls)
            http::async_write(*tls, reply, std::move(done));
        else
            http::async_write(stream, reply, std::move(done));
    }

    void on_written(beast::error_code error) {
        busy = false;
        if (error || !keep_alive || impl->stopping) {
            beast::error_code ignored;
            stream.socket().shutdown(Protocol::socket::shutdown_both, ignored);
            return;
        }
        read_next();
    }

    Impl* impl;
    Stream stream;
    std::optional<asio::ssl::stream<Stream&>> tls;  // over `stream`
    Caller caller;
    beast::flat_buffer buffer{32 * 1024};
    std::optional<http::request_parser<http::string_body>> parser;
    http::response<http::string_body> reply;
    bool keep_alive = true;
    bool is_stranger = false;  // has shown no certificate
    bool busy = false;         // a handler or an answer is under way
};

void Server::Impl::accept_next() {
    acceptor.async_accept(
        [this](beast::error_code error, asio::local::stream_protocol::socket socket) {
            if (error == asio::error::operation_aborted || stopping) return;
            if (error) {
                log::warn("accept on the API's socket: {}", error.message());
            } else if (connections.size() < options.max_connections) {
                std::make_shared<Connection>(this, std::move(socket))->begin();
            }  // else: the socket closes, the client tries again
            accept_next();
        });
}

void Server::Impl::accept_tls_next() {
    tls_acceptor->async_accept([this](beast::error_code error, asio::ip::tcp::socket socket) {
        if (error == asio::error::operation_aborted || stopping) return;
        if (error) {
            log::warn("accept on {}: {}", options.tls->address, error.message());
        } else if (connections.size() < options.max_connections &&
                   shaking_hands < kHandshakesAtOnce) {
            socket.set_option(asio::ip::tcp::no_delay(true), error);
            std::make_shared<Connection>(this, std::move(socket))->begin_tls();
        }
        accept_tls_next();
    });
}

Result<void> Server::Impl::listen_tls() {
    beast::error_code error;
    const auto address = asio::ip::make_address(options.tls->address, error);
    if (error) return fail(Errc::kInvalidArgument, "an address is a literal");
    const asio::ip::tcp::endpoint own(address, options.tls->port);
    auto& listening = tls_acceptor.emplace(io);
    listening.open(own.protocol(), error);
    if (!error) listening.set_option(asio::ip::tcp::acceptor::reuse_address(true), error);
    if (!error) listening.bind(own, error);
    if (!error) listening.listen(asio::ip::tcp::acceptor::max_listen_connections, error);
    if (error) return fail_errno(error.value(), "listen");
    return {};
}

void Server::Impl::stop() {
    if (stopping.exchange(true)) return;
    asio::post(io, [this] {
        beast::error_code ignored;
        acceptor.close(ignored);
        if (tls_acceptor) tls_acceptor->close(ignored);
        for (Connection* connection : connections) {
            if (!connection->busy) connection->stream.cancel();
        }
    });
    handlers.join();  // what is being handled posts its answer to `io`
    work.reset();
    if (thread.joinable()) thread.join();
    (void)unlink(options.socket_path.c_str());
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() { stop(); }
void Server::stop() { impl_->stop(); }

Result<std::unique_ptr<Server>> Server::listen(const ServerOptions& options) {
    auto impl = std::make_unique<Impl>(options);
    impl->group = group_id(options.group);
    TRY_ASSIGN(Fd listening, listen_unix(options.socket_path, {.group = impl->group}));
    beast::error_code error;
    impl->acceptor.assign(asio::local::stream_protocol(), listening.get(), error);
    if (error) return fail(Errc::kIo, "take over the API's socket", error.value());
    (void)listening.release();
    if (options.tls) {
        TRY(impl->listen_tls());
    }
    return std::unique_ptr<Server>(new Server(std::move(impl)));
}

std::uint16_t Server::tls_port() const {
    return impl_->tls_acceptor ? impl_->tls_acceptor->local_endpoint().port() : std::uint16_t{0};
}

void Server::serve(const RouteTable* routes) {
    impl_->routes = routes;
    impl_->accept_next();
    if (impl_->tls_acceptor) impl_->accept_tls_next();
    impl_->thread = std::thread([io = &impl_->io] {
        (void)pthread_setname_np(pthread_self(), "api-io");
        io->run();
    });
}

}  // namespace ublkd::api
