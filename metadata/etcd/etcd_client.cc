#include "metadata/etcd/etcd_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "ublkd/base/log.h"

namespace ublkd::metadata {
namespace {

using api::Json;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t kAnswerMax = std::size_t{64} * 1024 * 1024;
constexpr std::size_t kKeptMax = 8;
constexpr milliseconds kConnectMax{1'000};
constexpr milliseconds kAttemptMax{2'000};  // of one endpoint: then the next one is asked
constexpr milliseconds kPause{100};         // between two rounds of all endpoints

struct CurlCleanup {
    void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
};
using Handle = std::unique_ptr<CURL, CurlCleanup>;

struct Headers {
    Headers() = default;
    Headers(const Headers&) = delete;
    Headers& operator=(const Headers&) = delete;
    ~Headers() { curl_slist_free_all(list); }
    void add(const std::string& line) { list = curl_slist_append(list, line.c_str()); }
    curl_slist* list = nullptr;
};

std::size_t take(char* bytes, std::size_t, std::size_t count, void* into) {
    auto& answer = *static_cast<std::string*>(into);
    if (answer.size() + count > kAnswerMax) return 0;
    answer.append(bytes, count);
    return count;
}

/// Whether the two sides did not come to a connection by TLS. In TLS 1.3 a client whose certificate
/// is missing or refused hears so when it reads its first answer.
bool of_tls(CURLcode code, std::string_view detail) {
    return code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION ||
           code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CACERT_BADFILE ||
           (code == CURLE_RECV_ERROR && detail.find(" alert ") != std::string_view::npos &&
            (detail.find("certificate") != std::string_view::npos ||
             detail.find("unknown ca") != std::string_view::npos));
}

/// Of a request that was not done.
Error unreachable(CURLcode code, bool refused) {
    if (refused) return Error{Errc::kNotPermitted, 0, "etcd and this host do not agree by TLS"};
    if (code == CURLE_OPERATION_TIMEDOUT) return Error{Errc::kClosed, 0, "no answer from etcd"};
    return Error{Errc::kClosed, 0, "cannot reach etcd"};
}

bool on_this_machine(std::string_view endpoint) {
    return endpoint.starts_with("http://127.") || endpoint.starts_with("http://[::1]:");
}

// The codes of gRPC that etcd gives.
enum Grpc : std::uint64_t {
    kInvalid = 3,
    kDenied = 7,
    kTooMuch = 8,
    kPrecondition = 9,
    kOutOfRange = 11,
    kUnauthenticated = 16
};

struct Refusal {
    std::uint64_t code = 0;
    std::string message;
    bool says(std::string_view words) const { return message.find(words) != std::string::npos; }
};

/// What `refusal` means where asking again does not help.
std::optional<Error> lasting(const Refusal& refusal) {
    if (refusal.says("database space exceeded"))
        return Error{Errc::kNoSpace, 0, "etcd's database is full (its quota)"};
    if (refusal.says("too many operations"))
        return Error{Errc::kExhausted, 0,
                     "more changes in one transaction than etcd takes (its --max-txn-ops)"};
    if (refusal.says("request is too large") || refusal.says("larger than max"))
        return Error{Errc::kExhausted, 0,
                     "more bytes in one transaction than etcd takes (its --max-request-bytes)"};
    switch (refusal.code) {
        case kDenied:
            return Error{Errc::kNotPermitted, 0, "etcd's user may not read and write these keys"};
        case kOutOfRange:
            return Error{Errc::kLost, 0, "etcd has compacted that revision"};
        case kInvalid:
        case kPrecondition:
            return Error{Errc::kProtocol, 0, "etcd does not understand"};
        default:
            return std::nullopt;
    }
}

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

bool is_etcd_endpoint(std::string_view endpoint) {
    const auto colon = endpoint.rfind(':');
    if (!endpoint.starts_with("https://") && !on_this_machine(endpoint)) return false;
    const std::string_view port = endpoint.substr(colon + 1);
    const std::size_t host = endpoint.find("//") + 2;
    return colon > host && !port.empty() && port.size() <= 5 &&
           std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; }) &&
           endpoint.find('/', host) == std::string_view::npos &&
           endpoint.find('@') == std::string_view::npos;
}

std::string to_base64(std::string_view bytes) {
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t group = 0;
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
        for (std::size_t j = 0; j < 3; ++j)
            group = group << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0U);
        for (std::size_t j = 0; j < 4; ++j)
            text += j <= count ? kBase64[group >> (18 - 6 * j) & 63U] : '=';
    }
    return text;
}

std::optional<std::string> from_base64(std::string_view text) {
    if (text.size() % 4 != 0) return std::nullopt;
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3);
    while (text.ends_with('=')) text.remove_suffix(1);
    std::uint32_t group = 0;
    unsigned bits = 0;
    for (const char c : text) {
        const auto digit = kBase64.find(c);
        if (digit == std::string_view::npos) return std::nullopt;
        group = group << 6 | static_cast<std::uint32_t>(digit);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        bytes += static_cast<char>(group >> bits & 255U);
    }
    return bytes;
}

struct EtcdClient::Impl {
    explicit Impl(const EtcdAccess& given) : access(given) {}

    /// One request to one endpoint.
    struct Attempt {
        CURLcode code = CURLE_OK;
        long status = 0;
        std::string answer;
        std::string detail;       // of an error
        bool refused = false;     // by TLS
        bool never_sent = false;  // known not to be
    };
    Attempt exchange(const std::string& endpoint, const char* path, const std::string& body,
                     const std::string& authorization, TimePoint until);
    /// What went wrong at an endpoint, "" where nothing did: logged when it is something else than
    /// before.
    void note(const std::string& endpoint, const std::string& what);
    /// `*elsewhere`: whether another endpoint may do better.
    Result<std::string> token_of(const std::string& endpoint, TimePoint until, bool* elsewhere);
    void forget_token(const std::string& old);

    const EtcdAccess access;
    std::atomic<std::size_t> preferred = 0;
    std::mutex mutex;
    std::vector<Handle> kept;
    std::string token;
    std::map<std::string, std::string> noted;
};

EtcdClient::Impl::Attempt EtcdClient::Impl::exchange(const std::string& endpoint, const char* path,
                                                     const std::string& body,
                                                     const std::string& authorization,
                                                     TimePoint until) {
    Handle handle;
    {
        const std::lock_guard lock(mutex);
        if (!kept.empty()) {
            handle = std::move(kept.back());
            kept.pop_back();
        }
    }
    if (!handle) handle.reset(curl_easy_init());
    Attempt made;
    if (!handle) {
        made.code = CURLE_FAILED_INIT;
        return made;
    }
    CURL* const curl = handle.get();
    curl_easy_reset(curl);  // its connections stay
    Headers headers;
    headers.add("Content-Type: application/json");
    headers.add("Expect:");
    if (!authorization.empty()) headers.add("Authorization: " + authorization);
    const auto left = std::chrono::duration_cast<milliseconds>(until - steady_clock::now());
    const long timeout_ms = std::clamp<long>(left.count(), 1, kAttemptMax.count());
    const std::string url = endpoint + path;
    curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.list);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                     std::min<long>(timeout_ms, kConnectMax.count()));
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &made.answer);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2);
    if (!access.ca.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, access.ca.c_str());
    if (!access.certificate.empty()) {
        curl_easy_setopt(curl, CURLOPT_SSLCERT, access.certificate.c_str());
        curl_easy_setopt(curl, CURLOPT_SSLKEY, access.key.c_str());
    }
    std::array<char, CURL_ERROR_SIZE> detail{};
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail.data());
    made.code = curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, nullptr);
    if (made.code == CURLE_OK) {
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &made.status);
    } else {
        made.detail = detail[0] != '\0' ? detail.data() : curl_easy_strerror(made.code);
        made.refused = of_tls(made.code, made.detail);
        // Where a kept connection ends, libcurl sends a second time by itself: that it could not
        // connect then says nothing of the first.
        long sent = 0;
        curl_easy_getinfo(curl, CURLINFO_REQUEST_SIZE, &sent);
        made.never_sent = made.refused || sent == 0;
    }
    const std::lock_guard lock(mutex);
    if (made.code == CURLE_OK && kept.size() < kKeptMax) kept.push_back(std::move(handle));
    return made;
}

void EtcdClient::Impl::note(const std::string& endpoint, const std::string& what) {
    const std::lock_guard lock(mutex);
    if (std::exchange(noted[endpoint], what) == what) return;
    if (what.empty())
        log::info("etcd at {} answers again", endpoint);
    else
        log::warn("etcd at {}: {}", endpoint, what);
}

void EtcdClient::Impl::forget_token(const std::string& old) {
    const std::lock_guard lock(mutex);
    if (token == old) token.clear();
}

Result<std::string> EtcdClient::Impl::token_of(const std::string& endpoint, TimePoint until,
                                               bool* elsewhere) {
    *elsewhere = false;
    if (access.user.empty()) return std::string();
    {
        const std::lock_guard lock(mutex);
        if (!token.empty()) return token;
    }
    const Json body = Json::object().set("name", access.user).set("password", access.password);
    const Attempt made = exchange(endpoint, "/v3/auth/authenticate", body.dump(), "", until);
    *elsewhere = true;
    if (made.code != CURLE_OK) {
        note(endpoint, made.detail);
        return fail(unreachable(made.code, made.refused));
    }
    const auto answer = Json::parse(made.answer);
    const std::string given = answer ? (*answer)["token"].as_string() : "";
    if (made.status == 200 && !given.empty()) {
        const std::lock_guard lock(mutex);
        token = given;
        return given;
    }
    const std::string why = answer ? (*answer)["message"].as_string() : "no JSON";
    note(endpoint, "authentication: " + why);
    *elsewhere = false;
    if (why.find("not enabled") != std::string::npos)
        return fail(Errc::kNotPermitted, "etcd knows no users: its authentication is not enabled");
    if (why.find("invalid user ID or password") != std::string::npos)
        return fail(Errc::kNotPermitted, "etcd refuses this user or password");
    *elsewhere = true;
    return fail(Errc::kClosed, "etcd does not authenticate");
}

EtcdClient::EtcdClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EtcdClient::~EtcdClient() = default;

Result<std::unique_ptr<EtcdClient>> EtcdClient::make(const EtcdAccess& access) {
    static const CURLcode kReady = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (kReady != CURLE_OK) return fail(Errc::kUnsupported, "libcurl does not start");
    if (access.endpoints.empty() || !std::ranges::all_of(access.endpoints, &is_etcd_endpoint))
        return fail(Errc::kInvalidArgument,
                    "etcd's endpoints are https://HOST:PORT, or http:// on this machine");
    if (access.certificate.empty() != access.key.empty() ||
        (access.user.empty() && !access.password.empty()))
        return fail(Errc::kInvalidArgument, "half of what etcd is shown");
    return std::unique_ptr<EtcdClient>(new EtcdClient(std::make_unique<Impl>(access)));
}

Result<Json> EtcdClient::call(const char* path, const Json& body, TimePoint until, bool* unsure) {
    Impl& impl = *impl_;
    const std::string text = body.dump();
    const std::size_t count = impl.access.endpoints.size();
    unsigned renewals = 0;
    std::size_t unreached = 0;  // endpoints in a row
    Error last{Errc::kTimedOut, 0, "no answer from etcd in time"};
    const auto next = [&](std::size_t from) {
        impl.preferred.compare_exchange_strong(from, (from + 1) % count);
    };
    for (std::size_t tries = 0;; ++tries) {
        if (tries != 0 && tries % count == 0) std::this_thread::sleep_for(kPause);
        if (tries != 0 && steady_clock::now() >= until) return fail(last);
        const std::size_t at = impl.preferred;
        const std::string& endpoint = impl.access.endpoints[at];
        bool elsewhere = false;
        const auto token = impl.token_of(endpoint, until, &elsewhere);
        if (!token && !elsewhere) return fail(token.error());
        Impl::Attempt made;
        if (token) made = impl.exchange(endpoint, path, text, *token, until);
        if (!token || made.never_sent) {
            last = token ? unreachable(made.code, made.refused) : token.error();
            if (token) impl.note(endpoint, made.detail);
            next(at);
            // Who waits for what may have been done waits for etcd to come back.
            if (++unreached >= count && !*unsure) return fail(last);
            continue;
        }
        unreached = 0;
        if (made.code != CURLE_OK) {
            *unsure = true;
            last = Error{Errc::kTimedOut, 0, "no answer from etcd in time"};
            impl.note(endpoint, made.detail);
            next(at);
            continue;
        }
        auto answer = Json::parse(made.answer);
        if (made.status == 200 && answer) {
            impl.note(endpoint, "");
            return *std::move(answer);
        }
        Refusal refusal{answer ? (*answer)["code"].u64() : 0,
                        answer ? (*answer)["message"].as_string() : "no JSON"};
        const bool old_token =
            refusal.code == kUnauthenticated || refusal.says("revision of auth store is old");
        if (old_token && !token->empty() && ++renewals <= 2 * count) {
            impl.forget_token(*token);
            continue;
        }
        impl.note(endpoint, refusal.message);
        if (refusal.says("user name is empty") || refusal.code == kUnauthenticated)
            return fail(Errc::kNotPermitted, "etcd wants a user and a password");
        if (const auto error = lasting(refusal)) return fail(*error);
        if (!answer && made.status < 500) return fail(Errc::kProtocol, "what answers is no etcd");
        // No leader, a new leader, a time-out of its own: it may have been done all the same.
        *unsure = true;
        last = Error{Errc::kTimedOut, 0, "etcd has no leader, or is too slow"};
        next(at);
    }
}

}  // namespace ublkd::metadata
