#include "metadata/sqlite_transaction.h"

#include <algorithm>
#include <string>

#include "ublkd/base/check.h"

namespace ublkd::metadata {
namespace {

bool has_column(const Table& table, std::string_view name) {
    return std::any_of(table.columns.begin(), table.columns.end(),
                       [&](const char* column) { return column == name; });
}

/// "a = ?, b = ?": `columns` joined, each followed by `after`.
std::string joined(std::span<const char* const> columns, const char* separator,
                   const char* after = "") {
    std::string text;
    for (const char* column : columns) {
        if (!text.empty()) text += separator;
        text += column;
        text += after;
    }
    return text;
}

std::span<const char* const> key_columns(const Table& table) {
    return std::span<const char* const>(table.columns).first(table.key_columns);
}

std::string select(const Table& table) {
    return "SELECT " + joined(table.columns, ", ") + ", revision FROM " + table.name;
}

Row row_of(std::vector<Value> values) {
    Row row;
    row.revision = static_cast<std::uint64_t>(std::get<std::int64_t>(values.back()));
    values.pop_back();
    row.values = std::move(values);
    return row;
}

Value revision_value(std::uint64_t revision) { return static_cast<std::int64_t>(revision); }

std::vector<Value>::const_iterator key_end(const Table& table, const Row& row) {
    return row.values.begin() + static_cast<std::ptrdiff_t>(table.key_columns);
}

}  // namespace

Result<std::optional<Row>> SqliteTransaction::get_row(const Table& table,
                                                      std::span<const Value> key) {
    CHECK(key.size() == table.key_columns, "a key has one value for each key column");
    std::optional<Row> found;
    const std::string sql = select(table) + " WHERE " + joined(key_columns(table), " AND ", " = ?");
    TRY(database_.run(sql, key,
                      [&](std::vector<Value> values) { found = row_of(std::move(values)); }));
    return found;
}

Result<std::vector<Row>> SqliteTransaction::list_rows(const Table& table, const Query& query) {
    std::string sql = select(table) + " WHERE true";
    std::vector<Value> parameters;
    for (const Query::Equal& equal : query.where) {
        CHECK(has_column(table, equal.column), "a query names a column of its record");
        sql += std::string(" AND ") + equal.column + " IS ?";
        parameters.push_back(equal.value);
    }
    if (!query.after.empty()) {
        CHECK(query.after.size() == table.key_columns, "after is a whole key");
        sql += " AND (" + joined(key_columns(table), ", ") + ") > (?";
        for (std::size_t i = 1; i < table.key_columns; ++i) sql += ", ?";
        sql += ")";
        parameters.insert(parameters.end(), query.after.begin(), query.after.end());
    }
    sql += " ORDER BY " + joined(key_columns(table), ", ") + " LIMIT ?";
    parameters.push_back(static_cast<std::int64_t>(
        std::min<std::size_t>(query.limit, std::numeric_limits<std::int64_t>::max())));
    std::vector<Row> rows;
    TRY(database_.run(sql, parameters, [&](std::vector<Value> values) {
        rows.push_back(row_of(std::move(values)));
    }));
    return rows;
}

Result<std::uint64_t> SqliteTransaction::put_row(const Table& table, const Row& row) {
    TRY(start_change());
    if (row.revision == 0) {
        TRY(insert_row(database_, table, row, revision_));
        return revision_;
    }
    std::vector<Value> parameters = row.values;
    parameters.push_back(revision_value(revision_));
    parameters.insert(parameters.end(), row.values.begin(), key_end(table, row));
    parameters.push_back(revision_value(row.revision));
    TRY(database_.run(std::string("UPDATE ") + table.name + " SET " +
                          joined(table.columns, ", ", " = ?") + ", revision = ? WHERE " +
                          joined(key_columns(table), " AND ", " = ?") + " AND revision = ?",
                      parameters));
    if (database_.changes() == 0)
        return fail(Errc::kConflict, "metadata record: changed meanwhile");
    return revision_;
}

Result<void> SqliteTransaction::erase_row(const Table& table, const Row& row) {
    TRY(start_change());
    std::vector<Value> parameters(row.values.begin(), key_end(table, row));
    parameters.push_back(revision_value(row.revision));
    const auto done =
        database_.run(std::string("DELETE FROM ") + table.name + " WHERE " +
                          joined(key_columns(table), " AND ", " = ?") + " AND revision = ?",
                      parameters);
    // kNotFound is a foreign key: here the one that others have to this record.
    if (!done && done.error().code == Errc::kNotFound)
        return fail(Errc::kBusy, "metadata record: others refer to it");
    if (!done) return fail(done.error());
    if (database_.changes() == 0)
        return fail(Errc::kConflict, "metadata record: changed meanwhile");
    return {};
}

Result<std::uint64_t> SqliteTransaction::state() {
    TRY_ASSIGN(const std::int64_t last, database_.integer("SELECT revision FROM store"));
    return static_cast<std::uint64_t>(last);
}

Result<void> SqliteTransaction::start_change() {
    if (!writing_) return fail(Errc::kReadOnly, "metadata: a change within read()");
    if (revision_ != 0) return {};
    TRY_ASSIGN(const std::int64_t last, database_.integer("SELECT revision FROM store"));
    TRY(database_.run("UPDATE store SET revision = ?", std::vector<Value>{Value(last + 1)}));
    revision_ = static_cast<std::uint64_t>(last) + 1;
    return {};
}

Result<void> insert_row(SqliteDatabase& database, const Table& table, const Row& row,
                        std::uint64_t revision) {
    std::vector<Value> parameters = row.values;
    parameters.push_back(revision_value(revision));
    std::string sql = std::string("INSERT INTO ") + table.name + " (" +
                      joined(table.columns, ", ") + ", revision) VALUES (?";
    for (std::size_t i = 0; i < table.columns.size(); ++i) sql += ", ?";
    return database.run(sql + ")", parameters);
}

Result<void> delete_row(SqliteDatabase& database, const Table& table, std::span<const Value> key) {
    return database.run(std::string("DELETE FROM ") + table.name + " WHERE " +
                            joined(key_columns(table), " AND ", " = ?"),
                        key);
}

Error roll_back(SqliteDatabase& database, const Error& first) {
    const auto ended = database.execute("ROLLBACK");
    return ended ? first : ended.error();
}

}  // namespace ublkd::metadata
