#include "ublkd/api/post.h"

#include <fmt/format.h>

#include "ublkd/api/http_line.h"

namespace ublkd::api {
namespace {

constexpr std::size_t kPostAnswerMax = std::size_t{64} * 1024;

/// Of what `answer` says. A code that is not ours is none of a ublkd.
ApiResult<Json> read_answer(const Post& request, const HttpAnswer& answer) {
    std::string why;
    auto json = Json::parse(answer.body(), &why);
    if (json && answer.result_int() == 200) return *std::move(json);
    const std::string code = json ? (*json)["code"].as_string() : "";
    if (!code.empty() && api_code(code).code == code)
        return refuse(code, (*json)["message"].as_string());
    return refuse("InternalError",
                  fmt::format("{} does not answer as ublkd does", request.address));
}

}  // namespace

ApiResult<Json> post(const io::TlsContext& context, const Post& request) {
    const auto far = http_endpoint_of(request.address, static_cast<bool>(context));
    if (!far) return refuse(far.error(), request.address);
    const auto deadline = std::chrono::steady_clock::now() + request.deadline;
    HttpLine line(context, kPostAnswerMax);
    if (const auto error = line.connect(*far, deadline)) {
        if (is_of_tls(error))
            return refuse("Unavailable",
                          fmt::format("{}: who answers there has no certificate that counts ({})",
                                      request.address, error.message()));
        return refuse("Unavailable",
                      fmt::format("{} cannot be reached: {}", request.address, error.message()));
    }
    HttpRequest sent(boost::beast::http::verb::post, request.path, 11, request.body.dump());
    sent.set(boost::beast::http::field::host, "ublkd");
    sent.set(boost::beast::http::field::content_type, "application/json");
    sent.keep_alive(false);
    sent.prepare_payload();
    if (const auto error = line.exchange(sent, deadline)) {
        // A server that lets nobody in without a certificate says so only now (TLS 1.3).
        if (is_of_tls(error))
            return refuse("Unavailable", fmt::format("{} refuses this host's certificate: {}",
                                                     request.address, error.message()));
        return refuse("RequestTimeout",
                      fmt::format("the answer of {} was lost: {}; it may have done what was asked",
                                  request.address, error.message()));
    }
    return read_answer(request, line.take_answer());
}

}  // namespace ublkd::api
