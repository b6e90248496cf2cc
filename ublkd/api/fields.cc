#include "ublkd/api/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>

namespace ublkd::api {

const Json* Fields::find(std::string_view key) {
    known_.emplace_back(key);
    const Json& value = body_[key];
    return value.is_null() ? nullptr : &value;
}

void Fields::refuse_field(std::string code, std::string message) {
    if (!error_) error_ = ApiError{std::move(code), std::move(message)};
}

void Fields::wrong_type(std::string_view key, std::string_view wanted, const Json& given) {
    refuse_field("InvalidParameterValue",
                 fmt::format("{} must be {}; '{}' was given", key, wanted,
                             given.is_string() ? given.as_string() : given.dump()));
}

std::optional<std::string> Fields::optional_text(std::string_view key) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) {
        wrong_type(key, "a string", *value);
        return std::nullopt;
    }
    return value->as_string();
}

std::string Fields::text(std::string_view key, std::string_view fallback) {
    return optional_text(key).value_or(std::string(fallback));
}

std::string Fields::required_text(std::string_view key) {
    auto value = optional_text(key).value_or("");
    if (value.empty()) refuse_field("MissingParameter", fmt::format("{} is needed", key));
    return value;
}

std::optional<bool> Fields::optional_flag(std::string_view key) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_bool()) {
        wrong_type(key, "true or false", *value);
        return std::nullopt;
    }
    return value->as_bool();
}

bool Fields::flag(std::string_view key, bool fallback) {
    return optional_flag(key).value_or(fallback);
}

std::optional<std::uint64_t> Fields::optional_number(std::string_view key, std::uint64_t least,
                                                     std::uint64_t most) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const auto number = value->as_u64();
    if (!value->is_number() || !number || *number < least || *number > most) {
        wrong_type(key, fmt::format("a whole number from {} to {}", least, most), *value);
        return std::nullopt;
    }
    return number;
}

std::uint64_t Fields::number(std::string_view key, std::uint64_t fallback, std::uint64_t least,
                             std::uint64_t most) {
    return optional_number(key, least, most).value_or(fallback);
}

std::optional<std::string> Fields::optional_choice(
    std::string_view key, std::initializer_list<std::string_view> allowed) {
    auto value = optional_text(key);
    if (!value) return std::nullopt;
    if (std::ranges::find(allowed, std::string_view(*value)) == allowed.end()) {
        refuse_field("InvalidParameterValue", fmt::format("{} must be one of {}; '{}' was given",
                                                          key, fmt::join(allowed, ", "), *value));
        return std::nullopt;
    }
    return value;
}

std::string Fields::choice(std::string_view key, std::initializer_list<std::string_view> allowed,
                           std::string_view fallback) {
    return optional_choice(key, allowed).value_or(std::string(fallback));
}

Tags Fields::tags(std::string_view key) {
    Tags tags;
    const Json* value = find(key);
    if (value == nullptr) return tags;
    if (!value->is_array()) wrong_type(key, "a list of {Key, Value}", *value);
    for (const Json& item : value->items()) {
        if (!item["Key"].is_string() || item["Key"].as_string().empty() ||
            !item["Value"].is_string()) {
            wrong_type(key, "a list of {Key, Value}", *value);
            return {};
        }
        tags[item["Key"].as_string()] = item["Value"].as_string();
    }
    return tags;
}

std::vector<std::string> Fields::texts(std::string_view key) {
    std::vector<std::string> texts;
    const Json* value = find(key);
    if (value == nullptr) return texts;
    if (!value->is_array()) wrong_type(key, "a list of strings", *value);
    for (const Json& item : value->items()) {
        if (!item.is_string()) {
            wrong_type(key, "a list of strings", *value);
            return {};
        }
        texts.push_back(item.as_string());
    }
    return texts;
}

const Json& Fields::object(std::string_view key) {
    static const Json kNull;
    const Json* value = find(key);
    if (value == nullptr) return kNull;
    if (!value->is_object()) {
        wrong_type(key, "an object", *value);
        return kNull;
    }
    return *value;
}

ApiResult<void> Fields::done() {
    if (error_) return refuse(*error_);
    for (const auto& [key, value] : body_.members()) {
        if (std::ranges::find(known_, key) == known_.end()) {
            return refuse("InvalidRequest", fmt::format("unknown field '{}'; known are {}", key,
                                                        fmt::join(known_, ", ")));
        }
    }
    return {};
}

ApiResult<std::uint64_t> query_number(std::string_view name, const std::string& value,
                                      std::uint64_t fallback, std::uint64_t most) {
    if (value.empty()) return fallback;
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number > most) {
        return refuse("InvalidParameterValue",
                      fmt::format("{} must be a whole number from 0 to {}; '{}' was given", name,
                                  most, value));
    }
    return number;
}

ApiResult<bool> query_flag(std::string_view name, const std::string& value) {
    if (value.empty() || value == "false") return false;
    if (value == "true") return true;
    return refuse("InvalidParameterValue",
                  fmt::format("{} must be true or false; '{}' was given", name, value));
}

Json tags_json(const Tags& tags) {
    Json list = Json::array();
    for (const auto& [key, value] : tags)
        list.push(Json::object().set("Key", key).set("Value", value));
    return list;
}

std::string iso_time(std::uint64_t milliseconds) {
    const auto seconds = static_cast<time_t>(milliseconds / 1000);
    tm parts{};
    gmtime_r(&seconds, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900,
                       parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                       milliseconds % 1000);
}

}  // namespace ublkd::api
