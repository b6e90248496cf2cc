#include "ublkd/api/http_line.h"

#include <sys/socket.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <cerrno>
#include <charconv>
#include <utility>

#include "ublkd/base/unix_socket.h"

namespace ublkd::api {
namespace {

constexpr std::string_view kHttp = "http://";
constexpr std::string_view kHttps = "https://";
constexpr const char* kForms =
    "a store's address is /PATH, http://ADDRESS:PORT or https://ADDRESS:PORT";

}  // namespace

HttpLine::HttpLine(io::TlsContext context, std::size_t answer_bytes_max)
    : context_(std::move(context)), answer_bytes_max_(answer_bytes_max) {
    if (!context_) return;
    boost::asio::ssl::context shared(context_.share());
    tls_.emplace(stream_, shared);
}

boost::beast::error_code HttpLine::connect(const Endpoint& far, TimePoint deadline) {
    stream_.expires_at(deadline);
    stream_.async_connect(far, [this](boost::beast::error_code done) {
        error_ = done;
        if (error_ || !tls_) return;
        tls_->async_handshake(boost::asio::ssl::stream_base::client,
                              [this](boost::beast::error_code shaken) { error_ = shaken; });
    });
    return run();
}

boost::beast::error_code HttpLine::exchange(const HttpRequest& request, TimePoint deadline) {
    answer_.emplace();
    answer_->body_limit(answer_bytes_max_);
    stream_.expires_at(deadline);
    if (tls_)
        exchange_over(*tls_, request);
    else
        exchange_over(stream_, request);
    return run();
}

template <class Way>
void HttpLine::exchange_over(Way& way, const HttpRequest& request) {
    namespace http = boost::beast::http;
    http::async_write(way, request, [this, &way](boost::beast::error_code written, std::size_t) {
        error_ = written;
        if (error_) return;
        http::async_read(way, buffer_, *answer_,
                         [this](boost::beast::error_code read, std::size_t) { error_ = read; });
    });
}

bool HttpLine::usable() {
    char byte = 0;
    const auto got = ::recv(stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

boost::beast::error_code HttpLine::run() {
    io_.restart();
    io_.run();
    stream_.expires_never();
    return error_;
}

bool is_https(std::string_view address) { return address.starts_with(kHttps); }

bool is_of_tls(const boost::beast::error_code& error) {
    return error.category() == boost::asio::error::get_ssl_category();
}

Result<HttpLine::Endpoint> http_endpoint_of(const std::string& address, bool tls) {
    if (address.starts_with('/')) {
        TRY_ASSIGN(const sockaddr_un path, unix_address(address));
        return HttpLine::Endpoint(&path, sizeof path);
    }
    const bool secure = is_https(address);
    const std::string_view scheme = secure ? kHttps : kHttp;
    const auto colon = address.rfind(':');
    if (!address.starts_with(scheme) || colon < scheme.size())
        return fail(Errc::kInvalidArgument, kForms);
    std::string_view name = std::string_view(address).substr(scheme.size(), colon - scheme.size());
    if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
    boost::beast::error_code error;
    const auto host = boost::asio::ip::make_address(name, error);
    const std::string_view digits = std::string_view(address).substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, parsed] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error || parsed != std::errc() || end != digits.data() + digits.size() || port == 0)
        return fail(Errc::kInvalidArgument, kForms);
    if (secure && !tls) return fail(Errc::kInvalidArgument, "https needs certificates");
    if (!secure && !host.is_loopback())
        return fail(Errc::kInvalidArgument, "without TLS a store is on this machine");
    return HttpLine::Endpoint(boost::asio::ip::tcp::endpoint(host, port));
}

}  // namespace ublkd::api
