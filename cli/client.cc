#include "cli/client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <memory>

namespace ublkd::cli {
namespace {

struct CurlEnd {
    void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

std::size_t append(char* data, std::size_t size, std::size_t count, void* into) {
    static_cast<std::string*>(into)->append(data, size * count);
    return size * count;
}

Failure unreachable(const std::string& socket, CURLcode result) {
    return {kExitUnreachable, "",
            fmt::format(
                "cannot reach the daemon at {} ({}): is ublkd running, and may you use its socket "
                "(root, its own user, group ublkd)? --socket or UBLKD_SOCKET name another",
                socket, curl_easy_strerror(result))};
}

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
                                const api::Json& body, std::chrono::milliseconds timeout) {
    const std::unique_ptr<CURL, CurlEnd> curl(curl_easy_init());
    if (!curl) return std::unexpected(Failure{kExitFailed, "", "libcurl could not be initialized"});
    const std::string url = "http://localhost" + path;
    const std::string sent = body.is_null() ? "" : body.dump();
    std::string received;
    curl_easy_setopt(curl.get(), CURLOPT_UNIX_SOCKET_PATH, socket_.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_URL, url.c_str());
    curl_easy_setopt(curl.get(), CURLOPT_PROXY, "");
    curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl.get(), CURLOPT_CUSTOMREQUEST, method.c_str());
    const std::unique_ptr<curl_slist, CurlEnd> headers(
        curl_slist_append(nullptr, "Content-Type: application/json"));
    if (!sent.empty()) {
        curl_easy_setopt(curl.get(), CURLOPT_HTTPHEADER, headers.get());
        curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDS, sent.c_str());
        curl_easy_setopt(curl.get(), CURLOPT_POSTFIELDSIZE, static_cast<long>(sent.size()));
    }
    curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &received);
    curl_easy_setopt(curl.get(), CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
    const CURLcode result = curl_easy_perform(curl.get());
    if (result == CURLE_OPERATION_TIMEDOUT && timeout.count() > 0) {
        return std::unexpected(
            Failure{kExitTimedOut, "", "not done in time; the daemon goes on with it"});
    }
    if (result != CURLE_OK) return std::unexpected(unreachable(socket_, result));
    long status = 0;
    curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
    std::string error;
    const auto answer = api::Json::parse(received, &error);
    if (!answer)
        return std::unexpected(Failure{
            kExitFailed, "", fmt::format("{} does not answer as ublkd does: {}", socket_, error)});
    if (status < 300) return *answer;
    const std::string code = (*answer)["code"].as_string();
    return std::unexpected(Failure{exit_code_of(code), code, (*answer)["message"].as_string(),
                                   (*answer)["request_id"].as_string()});
}

}  // namespace ublkd::cli
