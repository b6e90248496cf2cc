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
                             shown(given.is_string() ? given.as_string() : given.dump())));
}

std::optional<std::string> Fields::optional_text(std::string_view key) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) {
        wrong_type(key, "a string", *value);
        return std::nullopt;
    }
    if (value->as_string().empty()) {
        refuse_field("InvalidParameterValue",
                     fmt::format("{} must not be empty: leave it out to give none", key));
    }
    return value->as_string();
}

std::string Fields::text(std::string_view key, std::string_view fallback) {
    return optional_text(key).value_or(std::string(fallback));
}

std::string Fields::required_text(std::string_view key) {
    auto value = optional_text(key);
    if (!value) refuse_field("MissingParameter", fmt::format("{} is needed", key));
    return value.value_or("");
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

std::uint64_t Fields::required_number(std::string_view key, std::uint64_t least,
                                      std::uint64_t most) {
    const auto value = optional_number(key, least, most);
    if (!value) refuse_field("MissingParameter", fmt::format("{} is needed", key));
    return value.value_or(least);
}

std::uint64_t Fields::number_of(std::string_view key, std::initializer_list<std::uint64_t> allowed,
                                std::uint64_t fallback) {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    const auto number = value->as_u64();
    if (!number || std::ranges::find(allowed, *number) == allowed.end()) {
        wrong_type(key, fmt::format("one of {}", fmt::join(allowed, ", ")), *value);
        return fallback;
    }
    return *number;
}

std::optional<std::string> Fields::optional_choice(
    std::string_view key, std::initializer_list<std::string_view> allowed) {
    const Json* value = find(key);
    if (value == nullptr) return std::nullopt;
    const std::string given = value->as_string();
    if (!value->is_string() ||
        std::ranges::find(allowed, std::string_view(given)) == allowed.end()) {
        wrong_type(key, fmt::format("one of {}", fmt::join(allowed, ", ")), *value);
        return std::nullopt;
    }
    return given;
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
            !item["Value"].is_string() || item.members().size() != 2) {
            wrong_type(key, "a list of {Key, Value}", *value);
            return {};
        }
        const std::string name = item["Key"].as_string();
        if (!tags.emplace(name, item["Value"].as_string()).second) {
            refuse_field("InvalidParameterValue",
                         fmt::format("{} has the key '{}' twice", key, shown(name)));
        }
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
            return refuse(
                "InvalidRequest",
                fmt::format("unknown field '{}'; known are {}", shown(key),
                            known_.empty() ? "none" : fmt::format("{}", fmt::join(known_, ", "))));
        }
    }
    return {};
}

ApiResult<std::uint64_t> query_number(const Request& request, std::string_view name,
                                      std::uint64_t fallback, std::uint64_t least,
                                      std::uint64_t most) {
    const auto found = request.query.find(name);
    if (found == request.query.end()) return fallback;
    const std::string& value = found->second;
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < least ||
        number > most) {
        return refuse("InvalidParameterValue",
                      fmt::format("{} must be a whole number from {} to {}; '{}' was given", name,
                                  least, most, shown(value)));
    }
    return number;
}

ApiResult<bool> query_flag(const Request& request, std::string_view name) {
    const auto found = request.query.find(name);
    if (found == request.query.end() || found->second == "false") return false;
    if (found->second == "true") return true;
    return refuse("InvalidParameterValue", fmt::format("{} must be true or false; '{}' was given",
                                                       name, shown(found->second)));
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
