// Values and rows: the untyped form in which a backend of MetadataStore sees records (records.h),
// and the conversion between the two. A record type names its columns once, in fields(); everything
// else is derived from that: a backend never knows record types, and a record type never knows
// backends. Forms: an id is its text ("vol-0…"; none is null), an enum its name, an unsigned
// integer an int64 (up to 2^63-1), a membership its binary form. Plain values; no thread.
// docs/metadata.md lists tables and columns.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/replication/membership.h"

namespace ublkd::metadata {

using Bytes = std::vector<std::byte>;
using Value = std::variant<std::monostate, std::int64_t, std::string, Bytes>;  // monostate: null

/// A table as a backend sees it. The first `key_columns` of `columns` are the primary key.
struct Table {
    const char* name;
    std::size_t key_columns;
    std::vector<const char*> columns;
    bool plain = false;     // nothing but its key refuses a record that encode_row() gives
    bool appended = false;  // plain, and each key comes from a counter: a new one is hardly taken
};

/// One record: `values` by Table::columns. `revision`: see Transaction::put().
struct Row {
    std::vector<Value> values;
    std::uint64_t revision = 0;
};

inline std::span<const Value> key_of(const Table& table, const Row& row) {
    return std::span<const Value>(row.values).first(table.key_columns);
}

template <class E>
concept NamedEnum = std::is_enum_v<E> && requires(E value) { enum_names(value); };

/// The name of `value` as it is stored and shown ("in-use"). Enumerators count from 0, as their
/// names do.
template <NamedEnum E>
constexpr std::string_view name_of(E value) {
    return enum_names(value)[static_cast<std::size_t>(value)];
}
template <NamedEnum E>
constexpr std::optional<E> parse_name(std::string_view text) {
    const auto names = enum_names(E{});
    for (std::size_t i = 0; i < names.size(); ++i) {
        if (names[i] == text) return static_cast<E>(i);
    }
    return std::nullopt;
}

template <class Kind>
Value to_value(Id<Kind> id) {
    return id ? Value(id.to_string()) : Value();
}
inline Value to_value(std::string_view text) { return std::string(text); }
inline Value to_value(const std::string& text) { return text; }
inline Value to_value(const char* text) { return std::string(text); }
inline Value to_value(bool flag) { return std::int64_t{flag}; }
template <NamedEnum E>
Value to_value(E value) {
    return std::string(name_of(value));
}
inline Value to_value(const Bytes& bytes) { return bytes; }
Value to_value(const replication::Membership& membership);
/// Integers above 2^63-1 have no form: they become null, which encode() refuses.
template <class T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
Value to_value(T number) {
    if (!std::in_range<std::int64_t>(number)) return Value();
    return static_cast<std::int64_t>(number);
}
template <class T>
Value to_value(const std::optional<T>& item) {
    return item ? to_value(*item) : Value();
}

/// The way back; false where `value` is not of that form.
bool from_value(const Value& value, std::string& text);
bool from_value(const Value& value, bool& flag);
bool from_value(const Value& value, Bytes& bytes);
bool from_value(const Value& value, replication::Membership& membership);
template <class Kind>
bool from_value(const Value& value, Id<Kind>& id) {
    if (std::holds_alternative<std::monostate>(value)) {
        id = Id<Kind>();
        return true;
    }
    const auto* text = std::get_if<std::string>(&value);
    const auto parsed = text == nullptr ? std::nullopt : Id<Kind>::parse(*text);
    if (parsed) id = *parsed;
    return parsed.has_value();
}
template <NamedEnum E>
bool from_value(const Value& value, E& item) {
    const auto* text = std::get_if<std::string>(&value);
    const auto parsed = text == nullptr ? std::nullopt : parse_name<E>(*text);
    if (parsed) item = *parsed;
    return parsed.has_value();
}
template <class T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
bool from_value(const Value& value, T& number) {
    const auto* stored = std::get_if<std::int64_t>(&value);
    if (stored == nullptr || !std::in_range<T>(*stored)) return false;
    number = static_cast<T>(*stored);
    return true;
}
template <class T>
bool from_value(const Value& value, std::optional<T>& item) {
    item.reset();
    if (std::holds_alternative<std::monostate>(value)) return true;
    return from_value(value, item.emplace());
}

template <class Record>
concept Appended = requires { Record::kAppended; };
template <class Record>
concept Plain = Appended<Record> || requires { Record::kPlain; };

template <class Record>
const Table& table_of() {
    static const Table table = [] {
        Table made{Record::kTable, Record::kKeyColumns, {}, Plain<Record>, Appended<Record>};
        Record record;
        Record::fields(record,
                       [&](const char* name, const auto&) { made.columns.push_back(name); });
        return made;
    }();
    return table;
}

/// Whether `field` has a form: an integer above 2^63-1 has none.
template <class Field>
bool has_form(const Field& field) {
    if constexpr (std::is_integral_v<Field>)
        return std::in_range<std::int64_t>(static_cast<std::uint64_t>(field));
    return true;
}
template <class T>
bool has_form(const std::optional<T>& field) {
    return !field || has_form(*field);
}

/// kInvalidArgument where a field has no form.
template <class Record>
Result<Row> encode_row(const Record& record) {
    Row row;
    row.revision = record.revision;
    bool representable = true;
    Record::fields(record, [&](const char*, const auto& field) {
        row.values.push_back(to_value(field));
        representable = representable && has_form(field);
    });
    if (!representable)
        return fail(Errc::kInvalidArgument, "metadata record: a number above 2^63-1");
    return row;
}

/// kCorrupt where a value is not of its column's form.
template <class Record>
Result<Record> decode_row(const Row& row) {
    Record record;
    record.revision = row.revision;
    std::size_t index = 0;
    bool good = row.values.size() == table_of<Record>().columns.size();
    Record::fields(record, [&](const char*, auto& field) {
        good = good && from_value(row.values[index++], field);
    });
    if (!good) return fail(Errc::kCorrupt, "metadata record: a value is not of its column's form");
    return record;
}

}  // namespace ublkd::metadata
