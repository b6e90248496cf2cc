// One connection of a client of HTTP/1.1 to another ublkd: a unix socket, TCP on this machine, or
// TLS. Blocking, each call until its deadline: for that Beast's asynchronous calls are needed. For
// remote_rows.cc and post.cc alone. Used by one thread at a time.
#pragma once

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "ublkd/base/result.h"
#include "ublkd/io/tls.h"

namespace ublkd::api {

using HttpRequest = boost::beast::http::request<boost::beast::http::string_body>;
using HttpAnswer = boost::beast::http::response<boost::beast::http::string_body>;
using TimePoint = std::chrono::steady_clock::time_point;

class HttpLine {
  public:
    using Protocol = boost::asio::generic::stream_protocol;
    using Endpoint = Protocol::endpoint;

    /// `context`: nobody's where it goes in the clear.
    HttpLine(io::TlsContext context, std::size_t answer_bytes_max);

    boost::beast::error_code connect(const Endpoint& far, TimePoint deadline);
    boost::beast::error_code exchange(const HttpRequest& request, TimePoint deadline);
    /// After exchange().
    HttpAnswer take_answer() { return answer_->release(); }
    /// Whether the other side has not ended it, and has said nothing that nobody asked for.
    bool usable();

  private:
    using Stream = boost::beast::basic_stream<Protocol>;
    template <class Way>
    void exchange_over(Way& way, const HttpRequest& request);
    boost::beast::error_code run();

    const io::TlsContext context_;  // OpenSSL's own may point into it
    const std::size_t answer_bytes_max_;
    boost::asio::io_context io_{1};
    Stream stream_{io_};
    std::optional<boost::asio::ssl::stream<Stream&>> tls_;  // over stream_
    boost::beast::flat_buffer buffer_;
    std::optional<boost::beast::http::response_parser<boost::beast::http::string_body>> answer_;
    boost::beast::error_code error_;
};

bool is_https(std::string_view address);
/// A certificate that does not count, here or there.
bool is_of_tls(const boost::beast::error_code& error);
/// /PATH, http://ADDRESS:PORT of this machine, or https://ADDRESS:PORT where there is `tls`.
Result<HttpLine::Endpoint> http_endpoint_of(const std::string& address, bool tls);

}  // namespace ublkd::api
