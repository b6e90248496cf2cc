#include "cli/client.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <optional>
#include <thread>

#include "ublkd/base/fd.h"

namespace ublkd::cli {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Protocol = asio::local::stream_protocol;
using Request = http::request<http::string_body>;

Failure unreachable(const std::string& socket, const std::string& cause) {
    return {
        kExitUnreachable, "",
        fmt::format(
            "cannot reach the daemon at {} ({}): is ublkd running ('systemctl start ublkd', or "
            "'ublkd --state DIR'), and may you use its socket (root, its own user, group ublkd)? "
            "--socket or UBLKD_SOCKET name another",
            socket, cause)};
}

constexpr auto kMeanwhile = std::chrono::milliseconds(500);
// `ublkd &` and the next command are started side by side: for so long there may be no sign of it
// yet. Then it says that it is on its way, and from when it listens it takes who connects, and
// answers when it is up.
constexpr auto kAppearsWithin = std::chrono::milliseconds(500);
constexpr auto kListensWithin = std::chrono::seconds(30);
constexpr auto kLookAgain = std::chrono::milliseconds(10);

bool nobody_listens(const beast::error_code& error) {
    return error == asio::error::connection_refused ||
           error == beast::errc::no_such_file_or_directory;
}

/// Whether a daemon holds the mark of its start (ublkd/daemon/start_mark.h).
bool is_starting(const std::string& socket) {
    const Fd mark(::open((socket + ".starting").c_str(), O_RDONLY | O_CLOEXEC));
    return mark && flock(mark.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

/// One connection, one request. The stream's time limit needs the asynchronous calls.
struct Exchange {
    explicit Exchange(Request given) : request(std::move(given)) {
        response.body_limit(boost::none);
    }
    beast::error_code run(const Protocol::endpoint& daemon, std::chrono::milliseconds timeout,
                          const std::function<void()>& meanwhile) {
        if (timeout.count() > 0) stream.expires_after(timeout);
        stream.async_connect(daemon, [this](beast::error_code connected) {
            if (end(connected)) return;
            http::async_write(stream, request, [this](beast::error_code written, std::size_t) {
                if (end(written)) return;
                http::async_read(stream, buffer, response,
                                 [this](beast::error_code read, std::size_t) { end(read); });
            });
        });
        if (!meanwhile) io.run();
        while (!io.stopped()) {
            io.run_for(kMeanwhile);
            if (!io.stopped()) meanwhile();
        }
        return error;
    }
    bool end(beast::error_code step) {
        error = step;
        return error.failed();
    }

    asio::io_context io{1};
    beast::basic_stream<Protocol> stream{io};
    beast::flat_buffer buffer;
    Request request;
    http::response_parser<http::string_body> response;
    beast::error_code error;
};

}  // namespace

int exit_code_of(std::string_view code) {
    if (code.ends_with(".NotFound")) return kExitNotFound;
    if (code.starts_with("Invalid") || code.starts_with("Missing")) return kExitUsage;
    if (code.starts_with("Unauthorized")) return kExitNotAllowed;
    if (code == "IncorrectState" || code.ends_with("InUse") || code.ends_with("Exists"))
        return kExitConflict;
    return kExitFailed;
}

Outcome<api::Json> Client::call(const std::string& method, const std::string& path,
                                const api::Json& body, std::chrono::milliseconds timeout,
                                const std::function<void()>& meanwhile) {
    Request request;
    request.version(11);
    request.method_string(method);
    request.target(path);
    request.set(http::field::host, "localhost");
    request.keep_alive(false);
    if (!body.is_null()) {
        request.set(http::field::content_type, "application/json");
        request.body() = body.dump();
    }
    request.prepare_payload();
    if (socket_.size() >= sizeof(sockaddr_un::sun_path))
        return std::unexpected(unreachable(socket_, "its path is too long for a socket"));
    const auto begun = std::chrono::steady_clock::now();
    auto seen = begun;  // the last sign of a daemon
    std::optional<Exchange> exchange;
    beast::error_code result;
    for (;;) {
        exchange.emplace(request);
        result = exchange->run(Protocol::endpoint(socket_), timeout, meanwhile);
        if (!nobody_listens(result)) break;
        const auto now = std::chrono::steady_clock::now();
        if (now < begun + kListensWithin && is_starting(socket_)) seen = now;
        if (now >= seen + kAppearsWithin) break;
        std::this_thread::sleep_for(kLookAgain);
    }
    if (result == beast::error::timeout) {
        return std::unexpected(
            Failure{kExitTimedOut, "", "not done in time; the daemon goes on with it"});
    }
    if (result) return std::unexpected(unreachable(socket_, result.message()));
    const auto& received = exchange->response.get();
    std::string error;
    const auto answer = api::Json::parse(received.body(), &error);
    if (!answer)
        return std::unexpected(Failure{
            kExitFailed, "", fmt::format("{} does not answer as ublkd does: {}", socket_, error)});
    if (received.result_int() < 300) return *answer;
    const std::string code = (*answer)["code"].as_string();
    return std::unexpected(Failure{exit_code_of(code), code, (*answer)["message"].as_string(),
                                   (*answer)["request_id"].as_string()});
}

}  // namespace ublkd::cli
