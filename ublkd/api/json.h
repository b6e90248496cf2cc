// A JSON value for the control plane: the API's bodies and what ebs-cli reads of them. Objects keep
// the order in which their keys were added, so that what is printed reads as it was written.
// Numbers are 64-bit integers or doubles. json.cc is the one user of the JSON library (its header
// costs seconds per translation unit). Plain value; no thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace ublkd::api {

class Json {
  public:
    using Array = std::vector<Json>;
    using Member = std::pair<std::string, Json>;
    using Object = std::vector<Member>;

    Json() = default;  // null
    Json(bool value) : value_(value) {}
    Json(int value) : value_(static_cast<std::int64_t>(value)) {}
    Json(unsigned value) : value_(static_cast<std::uint64_t>(value)) {}
    Json(std::int64_t value) : value_(value) {}
    Json(std::uint64_t value) : value_(value) {}
    Json(double value) : value_(value) {}
    Json(const char* value) : value_(std::string(value)) {}
    Json(std::string_view value) : value_(std::string(value)) {}
    Json(std::string value) : value_(std::move(value)) {}
    Json(Array value) : value_(std::move(value)) {}

    static Json array() { return Json(Array{}); }
    /// `members`: no key twice.
    static Json object(Object members = {}) {
        Json made;
        made.value_ = std::move(members);
        return made;
    }

    /// nullopt, and `error` says where and why, unless `text` is one JSON text of at most 32
    /// levels in whose objects no key is there twice.
    static std::optional<Json> parse(std::string_view text, std::string* error = nullptr);
    /// One line, or indented by two spaces per level where `pretty`. Bytes that are not UTF-8 are
    /// replaced.
    std::string dump(bool pretty = false) const;

    bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
    bool is_bool() const { return std::holds_alternative<bool>(value_); }
    bool is_string() const { return std::holds_alternative<std::string>(value_); }
    bool is_array() const { return std::holds_alternative<Array>(value_); }
    bool is_object() const { return std::holds_alternative<Object>(value_); }
    bool is_number() const;

    // What is not of the type asked for gives the fallback.
    bool as_bool(bool fallback = false) const;
    std::string as_string(std::string_view fallback = "") const;
    /// Integers, and doubles that are one; nullopt for all else and for what does not fit.
    std::optional<std::uint64_t> as_u64() const;
    std::uint64_t u64(std::uint64_t fallback = 0) const { return as_u64().value_or(fallback); }
    /// Empty where it is no array or no object.
    const Array& items() const;
    const Object& members() const;

    /// The member `key`; null where it is missing or this is no object.
    const Json& operator[](std::string_view key) const;
    bool has(std::string_view key) const;
    /// Makes this an object where it is null; adds or replaces `key`.
    Json& set(std::string key, Json value);
    /// Makes this an array where it is null.
    Json& push(Json value);

    /// "null", "boolean", "number", "string", "array" or "object".
    std::string_view type_name() const;
    friend bool operator==(const Json&, const Json&) = default;

  private:
    void write(std::string& out, bool pretty, unsigned level) const;
    std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, Array,
                 Object>
        value_;
};

}  // namespace ublkd::api
