#include "ublkd/api/json.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "ublkd/api/errors.h"

namespace ublkd::api {
namespace {

constexpr int kMaxLevels = 32;

/// Levels of the text, counted before the recursive parser sees it.
bool too_deep(std::string_view text) {
    int level = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++level > kMaxLevels) return true;
        } else if (c == '}' || c == ']') {
            --level;
        }
    }
    return false;
}

/// The library's complaint without its name for it, and with little of what was read.
std::string complaint(const nlohmann::json::exception& exception) {
    std::string_view text = exception.what();
    if (const auto end = text.find("] "); end != std::string_view::npos)
        text.remove_prefix(end + 2);
    constexpr std::string_view kRead = "last read: ";
    const auto read = text.find(kRead);
    if (read == std::string_view::npos) return fmt::format("not JSON: {}", text);
    return fmt::format("not JSON: {}{}", text.substr(0, read + kRead.size()),
                       shown(text.substr(read + kRead.size())));
}

/// Makes a Json of what the library reads, in a time that grows with the length alone. (Its own
/// tree does not show a key that was there twice, of which one would be lost; asking it by its
/// callbacks takes the square of the number of objects.)
class Builder : public nlohmann::json_sax<nlohmann::json> {
  public:
    bool null() override { return add(Json()); }
    bool boolean(bool value) override { return add(value); }
    bool number_integer(std::int64_t value) override { return add(value); }
    bool number_unsigned(std::uint64_t value) override { return add(value); }
    bool number_float(double value, const std::string&) override { return add(value); }
    bool string(std::string& value) override { return add(std::move(value)); }
    bool binary(nlohmann::json::binary_t&) override { return false; }  // no part of a text
    bool start_object(std::size_t) override {
        open_.emplace_back();
        return true;
    }
    bool start_array(std::size_t) override { return start_object(0); }
    bool key(std::string& name) override {
        Open& object = open_.back();
        if (!object.names.insert(name).second) {
            error_ = fmt::format("the field '{}' is there twice", shown(name));
            return false;
        }
        object.members.emplace_back(std::move(name), Json());
        return true;
    }
    bool end_object() override {
        Json made = Json::object(std::move(open_.back().members));
        open_.pop_back();
        return add(std::move(made));
    }
    bool end_array() override {
        Json made(std::move(open_.back().items));
        open_.pop_back();
        return add(std::move(made));
    }
    bool parse_error(std::size_t, const std::string&,
                     const nlohmann::json::exception& exception) override {
        error_ = complaint(exception);
        return false;
    }

    Json& made() { return made_; }
    std::string& error() { return error_; }

  private:
    struct Open {
        Json::Object members;         // of an object; the last one waits for its value
        std::set<std::string> names;  // of these
        Json::Array items;            // of an array
    };

    bool add(Json value) {
        if (open_.empty())
            made_ = std::move(value);
        else if (open_.back().members.empty())
            open_.back().items.push_back(std::move(value));
        else
            open_.back().members.back().second = std::move(value);
        return true;
    }

    std::vector<Open> open_;
    Json made_;
    std::string error_;
};

void write_string(std::string& out, const std::string& text) {
    out += nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::optional<Json> Json::parse(std::string_view text, std::string* error) {
    const auto refused = [&](std::string why) {
        if (error != nullptr) *error = std::move(why);
        return std::nullopt;
    };
    if (too_deep(text)) return refused("more than 32 levels");
    Builder builder;
    if (!nlohmann::json::sax_parse(text, &builder)) return refused(std::move(builder.error()));
    return std::move(builder.made());
}

void Json::write(std::string& out, bool pretty, unsigned level) const {
    const auto new_line = [&](unsigned at) {
        if (pretty) out += "\n" + std::string(std::size_t{2} * at, ' ');
    };
    if (is_null()) {
        out += "null";
    } else if (is_bool()) {
        out += as_bool() ? "true" : "false";
    } else if (const auto* text = std::get_if<std::string>(&value_)) {
        write_string(out, *text);
    } else if (const auto* number = std::get_if<double>(&value_)) {
        out += std::isfinite(*number) ? fmt::format("{}", *number) : "null";
    } else if (const auto* integer = std::get_if<std::int64_t>(&value_)) {
        out += std::to_string(*integer);
    } else if (const auto* natural = std::get_if<std::uint64_t>(&value_)) {
        out += std::to_string(*natural);
    } else if (is_array()) {
        out += '[';
        bool first = true;
        for (const Json& item : items()) {
            if (!first) out += pretty ? "," : ", ";
            first = false;
            new_line(level + 1);
            item.write(out, pretty, level + 1);
        }
        if (!first) new_line(level);
        out += ']';
    } else {
        out += '{';
        bool first = true;
        for (const auto& [key, value] : members()) {
            if (!first) out += pretty ? "," : ", ";
            first = false;
            new_line(level + 1);
            write_string(out, key);
            out += ": ";
            value.write(out, pretty, level + 1);
        }
        if (!first) new_line(level);
        out += '}';
    }
}

std::string Json::dump(bool pretty) const {
    std::string out;
    write(out, pretty, 0);
    return out;
}

bool Json::is_number() const {
    return std::holds_alternative<std::int64_t>(value_) ||
           std::holds_alternative<std::uint64_t>(value_) || std::holds_alternative<double>(value_);
}

bool Json::as_bool(bool fallback) const {
    const auto* value = std::get_if<bool>(&value_);
    return value != nullptr ? *value : fallback;
}

std::string Json::as_string(std::string_view fallback) const {
    const auto* value = std::get_if<std::string>(&value_);
    return value != nullptr ? *value : std::string(fallback);
}

std::optional<std::uint64_t> Json::as_u64() const {
    if (const auto* value = std::get_if<std::uint64_t>(&value_)) return *value;
    if (const auto* value = std::get_if<std::int64_t>(&value_)) {
        return *value >= 0 ? std::optional(static_cast<std::uint64_t>(*value)) : std::nullopt;
    }
    if (const auto* value = std::get_if<double>(&value_)) {
        if (*value >= 0 && *value < 9007199254740992.0 && std::floor(*value) == *value) {
            return static_cast<std::uint64_t>(*value);
        }
    }
    return std::nullopt;
}

const Json::Array& Json::items() const {
    static const Array kEmpty;
    const auto* value = std::get_if<Array>(&value_);
    return value != nullptr ? *value : kEmpty;
}

const Json::Object& Json::members() const {
    static const Object kEmpty;
    const auto* value = std::get_if<Object>(&value_);
    return value != nullptr ? *value : kEmpty;
}

const Json& Json::operator[](std::string_view key) const {
    static const Json kNull;
    for (const auto& [name, value] : members()) {
        if (name == key) return value;
    }
    return kNull;
}

bool Json::has(std::string_view key) const {
    for (const auto& [name, value] : members()) {
        if (name == key) return true;
    }
    return false;
}

Json& Json::set(std::string key, Json value) {
    if (is_null()) value_ = Object{};
    auto& object = std::get<Object>(value_);
    for (auto& [name, old] : object) {
        if (name == key) {
            old = std::move(value);
            return *this;
        }
    }
    object.emplace_back(std::move(key), std::move(value));
    return *this;
}

Json& Json::push(Json value) {
    if (is_null()) value_ = Array{};
    std::get<Array>(value_).push_back(std::move(value));
    return *this;
}

std::string_view Json::type_name() const {
    if (is_null()) return "null";
    if (is_bool()) return "boolean";
    if (is_number()) return "number";
    if (is_string()) return "string";
    return is_array() ? "array" : "object";
}

}  // namespace ublkd::api
