// Reading a request's JSON object, strictly: a field of another type, an unknown field and a
// missing one are refused with a message that names the field, what was given and what is allowed.
// Used by routes_<noun>.cc; made and used in one call.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/api/errors.h"
#include "ublkd/api/json.h"
#include "ublkd/api/route_table.h"
#include "ublkd/api/views.h"

namespace ublkd::api {

class Fields {
  public:
    explicit Fields(const Json& body) : body_(body) {}

    // Each read of an absent field, or of a null, gives the fallback. The first wrong one is kept
    // and given by done(). A string that is there is not empty.
    std::string text(std::string_view key, std::string_view fallback = "");
    std::string required_text(std::string_view key);
    bool flag(std::string_view key, bool fallback = false);
    std::optional<bool> optional_flag(std::string_view key);
    std::optional<std::string> optional_text(std::string_view key);
    std::uint64_t number(std::string_view key, std::uint64_t fallback, std::uint64_t least,
                         std::uint64_t most);
    std::uint64_t required_number(std::string_view key, std::uint64_t least, std::uint64_t most);
    std::optional<std::uint64_t> optional_number(std::string_view key, std::uint64_t least,
                                                 std::uint64_t most);
    /// One of `allowed`.
    std::uint64_t number_of(std::string_view key, std::initializer_list<std::uint64_t> allowed,
                            std::uint64_t fallback);
    std::string choice(std::string_view key, std::initializer_list<std::string_view> allowed,
                       std::string_view fallback);
    std::optional<std::string> optional_choice(std::string_view key,
                                               std::initializer_list<std::string_view> allowed);
    /// [{"Key": k, "Value": v}, ...]; no key twice.
    Tags tags(std::string_view key);
    std::vector<std::string> texts(std::string_view key);
    /// The object under `key`; null where there is none.
    const Json& object(std::string_view key);
    /// Whether `key` is there; it counts as known then.
    bool has(std::string_view key) { return find(key) != nullptr; }
    void refuse_field(std::string code, std::string message);

    /// The first thing that was wrong; a field that nothing asked for is wrong too.
    ApiResult<void> done();

  private:
    const Json* find(std::string_view key);
    void wrong_type(std::string_view key, std::string_view wanted, const Json& given);
    const Json& body_;
    std::vector<std::string> known_;
    std::optional<ApiError> error_;
};

/// The same for a query's parameter; one that is not there gives the fallback, or false.
ApiResult<std::uint64_t> query_number(const Request& request, std::string_view name,
                                      std::uint64_t fallback, std::uint64_t least,
                                      std::uint64_t most);
ApiResult<bool> query_flag(const Request& request, std::string_view name);

Json tags_json(const Tags& tags);
/// 2026-01-02T03:04:05.678Z
std::string iso_time(std::uint64_t milliseconds);

}  // namespace ublkd::api
