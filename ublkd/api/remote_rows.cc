#include "ublkd/api/remote_rows.h"

#include <fmt/format.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <vector>

#include "ublkd/api/http_line.h"
#include "ublkd/api/row_json.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/log.h"

namespace ublkd::api {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;

constexpr std::size_t kAnswerMax = std::size_t{64} * 1024 * 1024;
constexpr std::size_t kKeptMax = 4;

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
    Impl(const RemoteRowsOptions& given, HttpLine::Endpoint endpoint)
        : options(given), far(std::move(endpoint)) {}

    /// `commit`: its number, 0 for what only asks. How to read an answer: `read`.
    template <class T, class Read>
    Result<T> call(const char* what, const Json& body, std::uint64_t commit, const Read& read);
    Result<HttpAnswer> exchange(const HttpRequest& request, bool again);
    void tell_refusal(const beast::error_code& error) const;
    std::unique_ptr<HttpLine> kept_line();
    void keep(std::unique_ptr<HttpLine> line);

    const RemoteRowsOptions options;
    const HttpLine::Endpoint far;
    const std::uint64_t client = random_u64();
    std::atomic<std::uint64_t> commits = 0;
    std::atomic<std::uint64_t> given_up = 0;  // the last commit whose answer was lost; 0: none
    std::mutex mutex;
    std::vector<std::unique_ptr<HttpLine>> kept;
};

/// A certificate that does not count, here or there.
void RemoteRows::Impl::tell_refusal(const beast::error_code& error) const {
    if (is_of_tls(error))
        log::warn("the far metadata store {}: {}", options.address, error.message());
}

std::unique_ptr<HttpLine> RemoteRows::Impl::kept_line() {
    const std::lock_guard lock(mutex);
    while (!kept.empty()) {
        auto line = std::move(kept.back());
        kept.pop_back();
        if (line->usable()) return line;
    }
    return nullptr;
}

void RemoteRows::Impl::keep(std::unique_ptr<HttpLine> line) {
    const std::lock_guard lock(mutex);
    if (kept.size() < kKeptMax) kept.push_back(std::move(line));
}

/// `again`: may be sent again. Otherwise an error but kClosed is one after which it may have been
/// done.
Result<HttpAnswer> RemoteRows::Impl::exchange(const HttpRequest& request, bool again) {
    const auto deadline = std::chrono::steady_clock::now() + options.deadline;
    for (;;) {
        auto line = kept_line();
        const bool reused = line != nullptr;
        if (!reused) {
            line = std::make_unique<HttpLine>(
                is_https(options.address) ? options.tls.now() : io::TlsContext(), kAnswerMax);
            if (const auto error = line->connect(far, deadline)) {
                tell_refusal(error);
                const bool of_system = error.category() == beast::error_code().category();
                return fail(Errc::kClosed, "cannot reach the far metadata store",
                            of_system ? error.value() : 0);
            }
        }
        const auto error = line->exchange(request, deadline);
        if (!error) {
            auto answer = line->take_answer();
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
    TRY_ASSIGN(auto endpoint, http_endpoint_of(options.address, static_cast<bool>(options.tls)));
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
