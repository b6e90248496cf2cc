#include "ublkd/api/row_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <map>
#include <span>

#include "metadata/records.h"
#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"

namespace ublkd::api {
namespace {

using metadata::Bytes;
using metadata::Change;
using metadata::Checked;
using metadata::Observed;
using metadata::Query;
using metadata::Row;
using metadata::Rows;
using metadata::Seen;
using metadata::Table;
using metadata::Trial;
using metadata::Value;

// A key has three columns at most; nobody asks for more.
constexpr std::size_t kWhereMax = 4;

std::span<const Table* const> tables() {
    using namespace metadata;
    static const std::array kTables{&table_of<ClusterRecord>(),    &table_of<HostRecord>(),
                                    &table_of<InstanceRecord>(),   &table_of<PoolRecord>(),
                                    &table_of<VolumeRecord>(),     &table_of<ReplicaRecord>(),
                                    &table_of<MembershipRecord>(), &table_of<PermissionRecord>(),
                                    &table_of<PastHolderRecord>(), &table_of<AttachmentRecord>(),
                                    &table_of<TagRecord>(),        &table_of<ClientTokenRecord>(),
                                    &table_of<JoinTokenRecord>(),  &table_of<EventRecord>(),
                                    &table_of<CounterRecord>()};
    return kTables;
}

/// Which tables with which columns are known here.
const std::string& known_tables() {
    static const std::string kKnown = [] {
        std::string text;
        for (const Table* table : tables())
            text += fmt::format("{}/{}:{};", table->name, table->key_columns,
                                fmt::join(table->columns, ","));
        return fmt::format("{:08x}", crc32c(std::as_bytes(std::span(text))));
    }();
    return kKnown;
}

std::unexpected<ApiError> malformed(std::string_view what, const Json& given) {
    return refuse("InvalidRequest",
                  fmt::format("{}; '{}' was given", what,
                              shown(given.is_string() ? given.as_string() : given.dump())));
}

/// An object without any other member.
ApiResult<void> only(const Json& json, std::string_view what,
                     std::initializer_list<std::string_view> names) {
    if (!json.is_object()) return malformed(fmt::format("{} is an object", what), json);
    for (const auto& [name, value] : json.members()) {
        if (std::ranges::find(names, name) == names.end())
            return malformed(fmt::format("{} has no field of this name", what), Json(name));
    }
    return {};
}

ApiResult<const Json*> list_of(const Json& json, std::string_view name) {
    const Json& list = json[name];
    if (!list.is_array()) return malformed(fmt::format("{} is a list", name), list);
    return &list;
}

ApiResult<std::uint64_t> natural(const Json& json, std::string_view name) {
    const auto number = json[name].as_u64();
    if (!number) return malformed(fmt::format("{} is a whole number", name), json[name]);
    return *number;
}

ApiResult<bool> flag(const Json& json, std::string_view name) {
    if (!json[name].is_bool())
        return malformed(fmt::format("{} is true or false", name), json[name]);
    return json[name].as_bool();
}

ApiResult<const Table*> table_named(const Json& name) {
    for (const Table* table : tables()) {
        if (name.is_string() && name.as_string() == table->name) return table;
    }
    return malformed("no table of this name is known", name);
}

// Values.

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

/// [revision, value, ...]: rows, and marks of them.
Json values_json(std::uint64_t revision, std::span<const Value> values) {
    Json list = Json::array().push(revision);
    for (const Value& value : values) list.push(value_json(value));
    return list;
}

ApiResult<Row> read_values(const Json& json, std::size_t count) {
    const auto& items = json.items();
    const auto revision = items.empty() ? std::nullopt : items.front().as_u64();
    if (!revision || items.size() != count + 1)
        return malformed(fmt::format("a row is [revision, value, ...] of {} values", count), json);
    Row row;
    row.revision = *revision;
    row.values.reserve(count);
    for (std::size_t i = 1; i <= count; ++i) {
        API_TRY_ASSIGN(Value value, read_value(items[i]));
        row.values.push_back(std::move(value));
    }
    return row;
}

// Queries.

std::size_t column_index(const Table& table, std::string_view name) {
    const auto found = std::ranges::find(
        table.columns, name, [](const char* column) { return std::string_view(column); });
    return static_cast<std::size_t>(found - table.columns.begin());
}

void set_query(Json& json, const Table& table, const Query& query) {
    json.set("Table", table.name);
    // In the order of the columns, so that each question has one form.
    std::map<std::size_t, Json> where;
    for (const Query::Equal& equal : query.where) {
        const std::size_t index = column_index(table, equal.column);
        CHECK(index < table.columns.size(), "a query names a column of its record");
        where.emplace(index, Json::array().push(equal.column).push(value_json(equal.value)));
    }
    CHECK(where.size() == query.where.size() && where.size() <= kWhereMax,
          "a query names a column once, and few");
    Json list = Json::array();
    for (auto& [index, equal] : where) list.push(std::move(equal));
    json.set("Where", std::move(list));
    Json after = Json::array();
    for (const Value& value : query.after) after.push(value_json(value));
    json.set("After", std::move(after));
    if (query.limit != SIZE_MAX) json.set("Limit", std::uint64_t{query.limit});
}

ApiResult<ListRequest> read_query(const Json& json) {
    ListRequest request;
    API_TRY_ASSIGN(request.table, table_named(json["Table"]));
    API_TRY_ASSIGN(const Json* const where, list_of(json, "Where"));
    if (where->items().size() > kWhereMax)
        return malformed(fmt::format("Where has {} columns at most", kWhereMax), *where);
    std::size_t next = 0;
    for (const Json& equal : where->items()) {
        const std::string column = equal.items().size() == 2 ? equal.items()[0].as_string() : "";
        const std::size_t index = column_index(*request.table, column);
        if (index >= request.table->columns.size() || index < next)
            return malformed("Where is [column, value], columns of the table in their order",
                             equal);
        API_TRY_ASSIGN(Value value, read_value(equal.items()[1]));
        request.query.where.push_back({request.table->columns[index], std::move(value)});
        next = index + 1;
    }
    API_TRY_ASSIGN(const Json* const after, list_of(json, "After"));
    if (!after->items().empty() && after->items().size() != request.table->key_columns)
        return malformed("After is empty or a whole key", *after);
    for (const Json& part : after->items()) {
        API_TRY_ASSIGN(Value value, read_value(part));
        request.query.after.push_back(std::move(value));
    }
    if (json.has("Limit")) {
        API_TRY_ASSIGN(request.query.limit, natural(json, "Limit"));
    }
    return request;
}

// Changes and reads.

ApiResult<Errc> read_errc(const Json& json) {
    for (int code = 0; code <= static_cast<int>(Errc::kLost); ++code) {
        if (json.is_string() && json.as_string() == to_string(static_cast<Errc>(code)))
            return static_cast<Errc>(code);
    }
    return malformed("no error of this name is known", json);
}

ApiResult<std::optional<Errc>> read_refused(const Json& json) {
    if (!json.has("Refused")) return std::optional<Errc>();
    API_TRY_ASSIGN(const Errc code, read_errc(json["Refused"]));
    if (!metadata::is_refusal(code))
        return malformed("no change is refused by this", json["Refused"]);
    return std::optional(code);
}

Json change_list(const std::vector<Change>& changes) {
    Json list = Json::array();
    for (const Change& change : changes) {
        const bool put = change.kind == Change::Kind::kPut;
        Json json = Json::object()
                        .set(put ? "Put" : "Erase", change.table->name)
                        .set("Row", values_json(change.row.revision,
                                                put ? std::span<const Value>(change.row.values)
                                                    : key_of(*change.table, change.row)));
        if (change.refused) json.set("Refused", to_string(*change.refused));
        list.push(std::move(json));
    }
    return list;
}

ApiResult<std::vector<Change>> read_change_list(const Json& body) {
    API_TRY_ASSIGN(const Json* const list, list_of(body, "Changes"));
    std::vector<Change> changes;
    for (const Json& json : list->items()) {
        const bool put = json.has("Put");
        API_TRY(only(json, "a change", {put ? "Put" : "Erase", "Row", "Refused"}));
        Change change;
        change.kind = put ? Change::Kind::kPut : Change::Kind::kErase;
        API_TRY_ASSIGN(change.table, table_named(json[put ? "Put" : "Erase"]));
        API_TRY_ASSIGN(change.row, read_values(json["Row"], put ? change.table->columns.size()
                                                                : change.table->key_columns));
        API_TRY_ASSIGN(change.refused, read_refused(json));
        changes.push_back(std::move(change));
    }
    return changes;
}

Json seen_json(const Seen& seen) {
    Json json = Json::object();
    set_query(json, *seen.table, seen.query);
    Json marks = Json::array();
    for (const Seen::Mark& mark : seen.marks) marks.push(values_json(mark.revision, mark.key));
    return json.set("Marks", std::move(marks));
}

ApiResult<Seen> read_seen(const Json& json) {
    API_TRY(only(json, "a read", {"Table", "Where", "After", "Limit", "Marks"}));
    API_TRY_ASSIGN(auto asked, read_query(json));
    Seen seen{asked.table, std::move(asked.query), {}};
    API_TRY_ASSIGN(const Json* const marks, list_of(json, "Marks"));
    for (const Json& mark : marks->items()) {
        API_TRY_ASSIGN(Row row, read_values(mark, seen.table->key_columns));
        seen.marks.push_back({std::move(row.values), row.revision});
    }
    return seen;
}

Json request_json() { return Json::object().set("Tables", known_tables()); }

ApiResult<void> same_tables(const Json& body) {
    if (body["Tables"].is_string() && body["Tables"].as_string() == known_tables()) return {};
    return refuse("UnsupportedOperation",
                  "this ublkd knows other tables than who asks: install the same version on both");
}

// Answers.

Json error_answer(const Error& error) {
    return Json::object().set("Error", to_string(error.code)).set("Errno", int{error.sys_errno});
}

/// The store's error where `body` is one.
ApiResult<std::optional<Error>> read_error(const Json& body) {
    if (!body.has("Error")) return std::optional<Error>();
    API_TRY(only(body, "an error", {"Error", "Errno"}));
    API_TRY_ASSIGN(const Errc code, read_errc(body["Error"]));
    API_TRY_ASSIGN(const std::uint64_t number, natural(body, "Errno"));
    if (number > INT16_MAX) return malformed("Errno is a small number", body["Errno"]);
    return std::optional(Error{code, static_cast<std::int16_t>(number), "far metadata store"});
}

ApiResult<Checked> read_whole_checked(const Json& body) {
    Checked checked;
    API_TRY_ASSIGN(checked.same, flag(body, "Same"));
    API_TRY_ASSIGN(checked.state, natural(body, "State"));
    return checked;
}

}  // namespace

Json list_request_json(const Table& table, const Query& query) {
    Json json = request_json();
    set_query(json, table, query);
    return json;
}

Json changes_json(const std::vector<Change>& changes) {
    return request_json().set("Changes", change_list(changes));
}

Json observed_json(const Observed& observed) {
    Json reads = Json::array();
    for (const Seen& seen : observed.reads) reads.push(seen_json(seen));
    return request_json()
        .set("Reads", std::move(reads))
        .set("Changes", change_list(observed.changes));
}

ApiResult<ListRequest> read_list_request(const Json& body) {
    API_TRY(same_tables(body));
    API_TRY(only(body, "the request", {"Tables", "Table", "Where", "After", "Limit"}));
    return read_query(body);
}

ApiResult<std::vector<Change>> read_changes(const Json& body) {
    API_TRY(same_tables(body));
    API_TRY(only(body, "the request", {"Tables", "Changes"}));
    API_TRY_ASSIGN(auto changes, read_change_list(body));
    if (changes.empty()) return malformed("Changes has one or more", body["Changes"]);
    return changes;
}

ApiResult<Observed> read_observed(const Json& body) {
    API_TRY(same_tables(body));
    API_TRY(only(body, "the request", {"Tables", "Reads", "Changes"}));
    Observed observed;
    API_TRY_ASSIGN(const Json* const reads, list_of(body, "Reads"));
    for (const Json& read : reads->items()) {
        API_TRY_ASSIGN(Seen seen, read_seen(read));
        observed.reads.push_back(std::move(seen));
    }
    API_TRY_ASSIGN(observed.changes, read_change_list(body));
    return observed;
}

Json rows_json(const Table& table, const Result<Rows>& rows) {
    if (!rows) return error_answer(rows.error());
    Json list = Json::array();
    for (const Row& row : rows->rows) {
        CHECK(row.values.size() == table.columns.size(), "a row has a value for each column");
        list.push(values_json(row.revision, row.values));
    }
    return Json::object().set("State", rows->state).set("Rows", std::move(list));
}

Json checked_json(const Result<Checked>& checked) {
    if (!checked) return error_answer(checked.error());
    return Json::object().set("Same", checked->same).set("State", checked->state);
}

Json trial_json(const Result<Trial>& trial) {
    if (!trial) return error_answer(trial.error());
    Json json = checked_json(trial->before);
    if (trial->refused) json.set("Refused", to_string(*trial->refused));
    return json;
}

ApiResult<Result<Rows>> read_rows(const Table& table, const Json& body) {
    API_TRY_ASSIGN(const auto error, read_error(body));
    if (error) return Result<Rows>(fail(*error));
    API_TRY(only(body, "the answer", {"State", "Rows"}));
    Rows rows;
    API_TRY_ASSIGN(rows.state, natural(body, "State"));
    API_TRY_ASSIGN(const Json* const list, list_of(body, "Rows"));
    for (const Json& json : list->items()) {
        API_TRY_ASSIGN(Row row, read_values(json, table.columns.size()));
        rows.rows.push_back(std::move(row));
    }
    return Result<Rows>(std::move(rows));
}

ApiResult<Result<Trial>> read_trial(const Json& body) {
    API_TRY_ASSIGN(const auto error, read_error(body));
    if (error) return Result<Trial>(fail(*error));
    API_TRY(only(body, "the answer", {"Same", "State", "Refused"}));
    Trial trial;
    API_TRY_ASSIGN(trial.before, read_whole_checked(body));
    API_TRY_ASSIGN(trial.refused, read_refused(body));
    return Result<Trial>(trial);
}

ApiResult<Result<Checked>> read_checked(const Json& body) {
    API_TRY_ASSIGN(const auto error, read_error(body));
    if (error) return Result<Checked>(fail(*error));
    API_TRY(only(body, "the answer", {"Same", "State"}));
    API_TRY_ASSIGN(const Checked checked, read_whole_checked(body));
    return Result<Checked>(checked);
}

}  // namespace ublkd::api
