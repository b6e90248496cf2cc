#include "ublkd/api/value_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>

namespace ublkd::api {
namespace {

using metadata::Bytes;
using metadata::Value;

std::string hex(std::span<const std::byte> bytes) {
    std::string text;
    text.reserve(2 * bytes.size());
    for (const std::byte byte : bytes) {
        constexpr std::string_view kDigits = "0123456789abcdef";
        text += kDigits[std::to_integer<std::size_t>(byte >> 4)];
        text += kDigits[std::to_integer<std::size_t>(byte & std::byte{15})];
    }
    return text;
}

std::optional<Bytes> bytes_of(std::string_view text) {
    const auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    };
    if (text.size() % 2 != 0) return std::nullopt;
    Bytes bytes;
    bytes.reserve(text.size() / 2);
    for (std::size_t i = 0; i < text.size(); i += 2) {
        const int high = digit(text[i]);
        const int low = digit(text[i + 1]);
        if (high < 0 || low < 0) return std::nullopt;
        bytes.push_back(static_cast<std::byte>(high * 16 + low));
    }
    return bytes;
}

}  // namespace

Json row_object(const metadata::Table& table, const metadata::Row& row) {
    Json json = Json::object();
    for (std::size_t i = 0; i < table.columns.size(); ++i)
        json.set(table.columns[i], value_json(row.values[i]));
    return json;
}

std::optional<metadata::Row> read_row_object(const metadata::Table& table, const Json& json) {
    if (json.members().size() != table.columns.size()) return std::nullopt;
    metadata::Row row;
    row.values.reserve(table.columns.size());
    for (const char* column : table.columns) {
        auto value = read_value(json[column]);
        if (!json.has(column) || !value) return std::nullopt;
        row.values.push_back(std::move(*value));
    }
    return row;
}

std::unexpected<ApiError> malformed(std::string_view what, const Json& given) {
    return refuse("InvalidRequest",
                  fmt::format("{}; '{}' was given", what,
                              shown(given.is_string() ? given.as_string() : given.dump())));
}

ApiResult<void> only(const Json& json, std::string_view what,
                     std::initializer_list<std::string_view> names) {
    if (!json.is_object()) return malformed(fmt::format("{} is an object", what), json);
    for (const auto& [name, value] : json.members()) {
        if (std::ranges::find(names, name) == names.end())
            return malformed(fmt::format("{} has no field of this name", what), Json(name));
    }
    return {};
}

Json value_json(const Value& value) {
    if (const auto* number = std::get_if<std::int64_t>(&value)) return *number;
    if (const auto* bytes = std::get_if<Bytes>(&value))
        return Json::object().set("Bytes", hex(*bytes));
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return {};
    // JSON has no text but Unicode, and a store takes any.
    const bool ascii = std::ranges::all_of(*text, [](char c) { return (c & 0x80) == 0; });
    if (ascii) return *text;
    return Json::object().set("Text", hex(std::as_bytes(std::span(*text))));
}

ApiResult<Value> read_value(const Json& json) {
    if (json.is_null()) return Value();
    if (json.is_string()) return Value(json.as_string());
    if (json.is_number()) {
        const auto number = json.as_u64();
        if (!number || !std::in_range<std::int64_t>(*number))
            return malformed("a number is whole, from 0 to 2^63-1", json);
        return Value(static_cast<std::int64_t>(*number));
    }
    const bool text = json.has("Text");
    API_TRY(only(json, "a value", {text ? "Text" : "Bytes"}));
    const Json& digits = json[text ? "Text" : "Bytes"];
    auto bytes = digits.is_string() ? bytes_of(digits.as_string()) : std::nullopt;
    if (!bytes) return malformed("bytes are hex digits, two for each", json);
    if (!text) return Value(std::move(*bytes));
    return Value(std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size()));
}

}  // namespace ublkd::api
