#include "ublkd/api/route_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/log.h"

namespace ublkd::api {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (;;) {
        const auto at = text.find(separator);
        parts.push_back(text.substr(0, at));
        if (at == std::string_view::npos) return parts;
        text.remove_prefix(at + 1);
    }
}

bool is_parameter(std::string_view segment) { return segment.starts_with('{'); }

/// Whether `path` (encoded segments) fits `pattern`; fills `into`.
bool fits(std::string_view pattern, std::string_view path,
          std::map<std::string, std::string, std::less<>>& into) {
    const auto wanted = split(pattern, '/');
    const auto given = split(path, '/');
    if (wanted.size() != given.size()) return false;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (is_parameter(wanted[i])) {
            const auto value = percent_decoded(given[i]);
            if (!value || value->empty()) return false;
            into[std::string(wanted[i].substr(1, wanted[i].size() - 2))] = *value;
        } else if (wanted[i] != given[i]) {
            return false;
        }
    }
    return true;
}

ApiResult<void> parse_query(std::string_view text, const Route& route, Request& request) {
    if (text.empty()) return {};
    for (const auto part : split(text, '&')) {
        const auto equals = part.find('=');
        const auto name = percent_decoded(part.substr(0, equals));
        const auto value = percent_decoded(
            equals == std::string_view::npos ? std::string_view() : part.substr(equals + 1));
        if (!name || !value)
            return refuse("InvalidRequest",
                          fmt::format("the query '{}' is not percent-encoded", shown(text)));
        if (std::ranges::find(route.query, *name) == route.query.end()) {
            return refuse(
                "InvalidRequest",
                fmt::format("unknown query parameter '{}'; {} takes {}", shown(*name),
                            route.operation,
                            route.query.empty() ? "none"
                                                : fmt::format("{}", fmt::join(route.query, ", "))));
        }
        if (value->empty())
            return refuse(
                "InvalidParameterValue",
                fmt::format("the query parameter {} needs a value: {}=...", *name, *name));
        if (!request.query.emplace(*name, *value).second)
            return refuse("InvalidRequest",
                          fmt::format("the query parameter {} is there twice", *name));
    }
    return {};
}

ApiResult<void> parse_body(const RawRequest& raw, const Route& route, Request& request) {
    if (raw.body.empty()) return {};
    if (route.method == Method::kGet || route.method == Method::kDelete) {
        return refuse("InvalidRequest", fmt::format("{} takes no body", route.operation));
    }
    std::string error;
    auto body = Json::parse(raw.body, &error);
    if (!body) return refuse("InvalidRequest", fmt::format("cannot read the body: {}", error));
    if (!body->is_object()) {
        return refuse("InvalidRequest",
                      fmt::format("the body must be a JSON object, not {}", body->type_name()));
    }
    request.body = std::move(*body);
    return {};
}

std::string new_request_id() { return format_id("req-", random_u64()); }

}  // namespace

std::string_view to_string(Method method) {
    switch (method) {
        case Method::kGet:
            return "GET";
        case Method::kPost:
            return "POST";
        case Method::kPut:
            return "PUT";
        case Method::kPatch:
            return "PATCH";
        case Method::kDelete:
            break;
    }
    return "DELETE";
}

std::string Request::query_value(std::string_view name) const {
    const auto found = query.find(name);
    return found == query.end() ? std::string() : found->second;
}

std::optional<std::string> percent_decoded(std::string_view text) {
    const auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        if (c >= 'A' && c <= 'F') return c - 'A' + 10;
        return -1;
    };
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (i + 2 >= text.size() || digit(text[i + 1]) < 0 || digit(text[i + 2]) < 0)
            return std::nullopt;
        out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
        i += 2;
    }
    return out;
}

Json error_body(const ApiError& error, const std::string& request_id) {
    return Json::object()
        .set("code", error.code)
        .set("message", error.message)
        .set("request_id", request_id);
}

void RouteTable::add(Route route) {
    for (const Route& other : routes_) {
        CHECK(other.operation != route.operation, "an operation is one route");
    }
    routes_.push_back(std::move(route));
}

Response RouteTable::dispatch(const RawRequest& raw) const {
    Request request;
    request.caller = raw.caller;
    request.request_id = new_request_id();
    int status = 200;
    const auto result = handle(raw, request, status);
    if (result) return Response{status, result->dump() + "\n", request.request_id};
    const ApiError& error = result.error();
    const int failed = api_code(error.code).http_status;
    if (failed >= 500)
        log::warn("{} {} {}: {} {}", request.request_id, raw.method, raw.target, error.code,
                  error.message);
    return Response{failed, error_body(error, request.request_id).dump() + "\n",
                    request.request_id};
}

ApiResult<Json> RouteTable::handle(const RawRequest& raw, Request& request, int& status) const {
    if (!raw.caller.allowed) {
        return refuse("UnauthorizedOperation",
                      fmt::format("user {} may not use this daemon: be root, the daemon's own "
                                  "user, or in the group ublkd",
                                  raw.caller.uid));
    }
    const std::string_view target = raw.target;
    const auto question = target.find('?');
    const auto path = target.substr(0, question);
    std::vector<std::string_view> methods;
    for (const Route& route : routes_) {
        std::map<std::string, std::string, std::less<>> parameters;
        if (!fits(route.pattern, path, parameters)) continue;
        if (to_string(route.method) != raw.method) {
            methods.push_back(to_string(route.method));
            continue;
        }
        if (!route.before_init && !initialized_()) {
            return refuse("NotInitialized",
                          "this daemon has no configuration yet: run 'ebs-cli init --dir DIR'");
        }
        request.path = std::move(parameters);
        API_TRY(parse_query(question == std::string_view::npos ? "" : target.substr(question + 1),
                            route, request));
        API_TRY(parse_body(raw, route, request));
        status = route.success_status;
        return route.handler(request);
    }
    if (!methods.empty()) {
        return refuse("MethodNotAllowed", fmt::format("{} takes {}, not {}", shown(path),
                                                      fmt::join(methods, ", "), shown(raw.method)));
    }
    return refuse("InvalidAction.NotFound",
                  fmt::format("no route {} {}", shown(raw.method), shown(path)));
}

}  // namespace ublkd::api
