// What the API answers when it refuses: an AWS-style code, and a message that names what was given,
// what is allowed and what to do. One table holds every code with its HTTP status and ebs-cli's
// exit code; docs/errors.md has a row for each (a test compares them). An Error of the lower layers
// becomes an ApiError here alone. Plain values; no thread.
#pragma once

#include <expected>
#include <span>
#include <string>
#include <string_view>

#include "ublkd/base/result.h"

namespace ublkd::api {

struct ApiError {
    std::string code;  // one of api_codes()
    std::string message;
};

template <class T>
using ApiResult = std::expected<T, ApiError>;

struct ApiCode {
    std::string_view code;
    int http_status;
};
std::span<const ApiCode> api_codes();
/// The row of `code`; that of InternalError for one that is not in the table.
const ApiCode& api_code(std::string_view code);

inline std::unexpected<ApiError> refuse(std::string code, std::string message) {
    return std::unexpected(ApiError{std::move(code), std::move(message)});
}
inline std::unexpected<ApiError> refuse(ApiError error) {
    return std::unexpected(std::move(error));
}

/// `what`: what was being done, as the start of a sentence ("cannot open the pool /srv/a").
ApiError from_error(const Error& error, std::string_view what);
inline std::unexpected<ApiError> refuse(const Error& error, std::string_view what) {
    return std::unexpected(from_error(error, what));
}

/// What was given, as a message shows it: at most 80 bytes, then "..."; control characters as "?".
std::string shown(std::string_view given);

/// "IncorrectState" etc. for an Errc of the lower layers.
std::string_view code_of(Errc code) noexcept;

}  // namespace ublkd::api

/// The same as TRY and TRY_ASSIGN for ApiResult.
#define API_TRY_(tmp, expr) \
    auto tmp = (expr);      \
    if (!tmp) return std::unexpected(std::move(tmp.error()))
#define API_TRY_ASSIGN_(tmp, lhs, expr)                       \
    auto tmp = (expr);                                        \
    if (!tmp) return std::unexpected(std::move(tmp.error())); \
    lhs = std::move(*tmp)
#define API_TRY(expr) API_TRY_(UBLKD_CONCAT(api_try_, __COUNTER__), expr)
#define API_TRY_ASSIGN(lhs, expr) API_TRY_ASSIGN_(UBLKD_CONCAT(api_try_, __COUNTER__), lhs, expr)
