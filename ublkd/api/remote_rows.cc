#include "ublkd/api/remote_rows.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <charconv>
#include <mutex>
#include <optional>
#include <vector>

#include "ublkd/api/row_json.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/log.h"
#include "ublkd/base/unix_socket.h"

namespace ublkd::api {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Protocol = asio::generic::stream_protocol;
using HttpRequest = http::request<http::string_body>;
using TimePoint = std::chrono::steady_clock::time_point;

constexpr std::size_t kAnswerMax = std::size_t{64} * 1024 * 1024;
constexpr std::size_t kKeptMax = 4;
constexpr std::string_view kHttp = "http://";
constexpr std::string_view kHttps = "https://";

/// One connection. The stream's time limit needs the asynchronous calls.
struct Line {
    /// `context`: none where it goes in the clear.
    explicit Line(std::optional<asio::ssl::context>& context) {
        if (context) tls.emplace(stream, *context);
    }

    beast::error_code connect(const Protocol::endpoint& far, TimePoint deadline) {
        stream.expires_at(deadline);
        stream.async_connect(far, [this](beast::error_code done) {
            error = done;
            if (error || !tls) return;
            tls->async_handshake(asio::ssl::stream_base::client,
                                 [this](beast::error_code shaken) { error = shaken; });
        });
        return run();
    }

    beast::error_code exchange(const HttpRequest& request, TimePoint deadline) {
        answer.emplace();
        answer->body_limit(kAnswerMax);
        stream.expires_at(deadline);
        if (tls)
            exchange_over(*tls, request);
        else
            exchange_over(stream, request);
        return run();
    }

    template <class Way>
    void exchange_over(Way& way, const HttpRequest& request) {
        http::async_write(way, request, [this, &way](beast::error_code written, std::size_t) {
            error = written;
            if (error) return;
            http::async_read(way, buffer, *answer,
                             [this](beast::error_code read, std::size_t) { error = read; });
        });
    }

    /// Whether the other side has not ended it, and has said nothing that nobody asked for.
    bool usable() {
        char byte = 0;
        const auto got = ::recv(stream.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    }

    beast::error_code run() {
        io.restart();
        io.run();
        stream.expires_never();
        return error;
    }

    asio::io_context io{1};
    beast::basic_stream<Protocol> stream{io};
    std::optional<asio::ssl::stream<beast::basic_stream<Protocol>&>> tls;  // over `stream`
    beast::flat_buffer buffer;
    std::optional<http::response_parser<http::string_body>> answer;
    beast::error_code error;
};

constexpr const char* kForms =
    "a store's address is /PATH, http://ADDRESS:PORT or https://ADDRESS:PORT";

Result<Protocol::endpoint> endpoint_of(const std::string& address, bool tls) {
    if (address.starts_with('/')) {
        TRY_ASSIGN(const sockaddr_un path, unix_address(address));
        return Protocol::endpoint(&path, sizeof path);
    }
    const bool secure = address.starts_with(kHttps);
    const std::string_view scheme = secure ? kHttps : kHttp;
    const auto colon = address.rfind(':');
    if (!address.starts_with(scheme) || colon < scheme.size())
        return fail(Errc::kInvalidArgument, kForms);
    std::string_view name = std::string_view(address).substr(scheme.size(), colon - scheme.size());
    if (name.starts_with('[') && name.ends_with(']')) name = name.substr(1, name.size() - 2);
    beast::error_code error;
    const auto host = asio::ip::make_address(name, error);
    const std::string_view digits = std::string_view(address).substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, parsed] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error || parsed != std::errc() || end != digits.data() + digits.size() || port == 0)
        return fail(Errc::kInvalidArgument, kForms);
    if (secure && !tls) return fail(Errc::kInvalidArgument, "https needs certificates");
    if (!secure && !host.is_loopback())
        return fail(Errc::kInvalidArgument, "without TLS a store is on this machine");
    return Protocol::endpoint(asio::ip::tcp::endpoint(host, port));
}

/// Of what was refused before it was looked at further; nothing was done.
std::optional<Error> refusal(std::string_view code) {
    if (code == "UnauthorizedOperation")
        return Error{Errc::kNotPermitted, 0, "the far metadata store refuses this user"};
    if (code == "UnsupportedOperation")
        return Error{Errc::kUnsupported, 0, "the far metadata store is of another version"};
    if (code == "RequestTooLarge")
        return Error{Errc::kExhausted, 0, "too much for one request to the far metadata store"};
    if (code == "Unavailable" || code == "NotInitialized")
        return Error{Errc::kClosed, 0, "the far metadata store does not serve"};
    if (api_code(code).http_status < 500)
        return Error{Errc::kProtocol, 0, "the far metadata store does not understand"};
    return std::nullopt;
}

}  // namespace

struct RemoteRows::Impl {
    Impl(const RemoteRowsOptions& given, Protocol::endpoint endpoint)
        : options(given), far(std::move(endpoint)) {
        if (options.address.starts_with(kHttps)) tls.emplace(options.tls.share());
    }

    /// `commit`: its number, 0 for what only asks. How to read an answer: `read`.
    template <class T, class Read>
    Result<T> call(const char* what, const Json& body, std::uint64_t commit, const Read& read);
    Result<http::response<http::string_body>> exchange(const HttpRequest& request, bool again);
    void tell_refusal(const beast::error_code& error) const;
    std::unique_ptr<Line> kept_line();
    void keep(std::unique_ptr<Line> line);

    const RemoteRowsOptions options;
    const Protocol::endpoint far;
    std::optional<asio::ssl::context> tls;
    const std::uint64_t client = random_u64();
    std::atomic<std::uint64_t> commits = 0;
    std::atomic<std::uint64_t> given_up = 0;  // the last commit whose answer was lost; 0: none
    std::mutex mutex;
    std::vector<std::unique_ptr<Line>> kept;
};

/// A certificate that does not count, here or there.
void RemoteRows::Impl::tell_refusal(const beast::error_code& error) const {
    if (error.category() == asio::error::get_ssl_category())
        log::warn("the far metadata store {}: {}", options.address, error.message());
}

std::unique_ptr<Line> RemoteRows::Impl::kept_line() {
    const std::lock_guard lock(mutex);
    while (!kept.empty()) {
        auto line = std::move(kept.back());
        kept.pop_back();
        if (line->usable()) return line;
    }
    return nullptr;
}

void RemoteRows::Impl::keep(std::unique_ptr<Line> line) {
    const std::lock_guard lock(mutex);
    if (kept.size() < kKeptMax) kept.push_back(std::move(line));
}

/// `again`: may be sent again. Otherwise an error but kClosed is one after which it may have been
/// done.
Result<http::response<http::string_body>> RemoteRows::Impl::exchange(const HttpRequest& request,
                                                                     bool again) {
    const auto deadline = std::chrono::steady_clock::now() + options.deadline;
    for (;;) {
        auto line = kept_line();
        const bool reused = line != nullptr;
        if (!reused) {
            line = std::make_unique<Line>(tls);
            if (const auto error = line->connect(far, deadline)) {
                tell_refusal(error);
                const bool of_system = error.category() == beast::error_code().category();
                return fail(Errc::kClosed, "cannot reach the far metadata store",
                            of_system ? error.value() : 0);
            }
        }
        const auto error = line->exchange(request, deadline);
        if (!error) {
            auto answer = line->answer->release();
            if (answer.keep_alive()) keep(std::move(line));
            return answer;
        }
        if (error == beast::error::timeout)
            return fail(Errc::kTimedOut, "no answer from the far metadata store in time");
        tell_refusal(error);
        if (reused && again) continue;
        return fail(again ? Errc::kClosed : Errc::kIo, "the far metadata store's answer was lost");
    }
}

template <class T, class Read>
Result<T> RemoteRows::Impl::call(const char* what, const Json& body, std::uint64_t commit,
                                 const Read& read) {
    const std::uint64_t over = given_up;
    HttpRequest request(
        http::verb::post,
        fmt::format("/v1/rows/{}?client={}&over={}&commit={}", what, client, over, commit), 11,
        body.dump());
    if (request.body().size() > kRowsBodyMax)
        return fail(Errc::kExhausted, "too much for one request to the far metadata store");
    request.set(http::field::host, "ublkd");
    request.set(http::field::content_type, "application/json");
    request.prepare_payload();
    const auto lost = [&](const Error& error) {
        for (std::uint64_t last = given_up;
             last < commit && !given_up.compare_exchange_weak(last, commit);) {
        }
        return fail(error);
    };
    const auto answer = exchange(request, commit == 0 || faults::rule_off("rule.commit_sent_once"));
    if (!answer) {
        if (commit == 0 || answer.error().code == Errc::kClosed) return fail(answer.error());
        return lost(answer.error());
    }
    std::string why;
    const auto json = Json::parse(answer->body(), &why);
    if (json && answer->result_int() == 200) {
        auto result = read(*json);
        if (result) {
            std::uint64_t known = over;
            if (over != 0) given_up.compare_exchange_strong(known, 0);
            return *std::move(result);
        }
        why = result.error().message;
    } else if (json) {
        why = (*json)["message"].as_string();
        if (const auto error = refusal((*json)["code"].as_string())) {
            log::warn("the far metadata store {} refuses: {}", options.address, shown(why));
            return fail(*error);
        }
    }
    log::warn("the far metadata store {} does not answer as ublkd does: {}", options.address,
              shown(why));
    if (commit == 0) return fail(Errc::kProtocol, "what answers is no metadata store");
    return lost(Error{Errc::kIo, 0, "what answers is no metadata store"});
}

RemoteRows::RemoteRows(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RemoteRows::~RemoteRows() = default;

Result<std::unique_ptr<RemoteRows>> RemoteRows::make(const RemoteRowsOptions& options) {
    TRY_ASSIGN(auto endpoint, endpoint_of(options.address, static_cast<bool>(options.tls)));
    return std::unique_ptr<RemoteRows>(
        new RemoteRows(std::make_unique<Impl>(options, std::move(endpoint))));
}

Result<metadata::Rows> RemoteRows::list(const metadata::Table& table,
                                        const metadata::Query& query) {
    return impl_->call<metadata::Rows>("list", list_request_json(table, query), 0,
                                       [&](const Json& json) { return read_rows(table, json); });
}

Result<metadata::Trial> RemoteRows::try_last(const std::vector<metadata::Change>& changes) {
    return impl_->call<metadata::Trial>("try", changes_json(changes), 0, &read_trial);
}

Result<metadata::Checked> RemoteRows::check(const metadata::Observed& observed) {
    return impl_->call<metadata::Checked>("check", observed_json(observed), 0, &read_checked);
}

Result<metadata::Checked> RemoteRows::commit(const metadata::Observed& observed) {
    return impl_->call<metadata::Checked>("commit", observed_json(observed), ++impl_->commits,
                                          &read_checked);
}

}  // namespace ublkd::api
