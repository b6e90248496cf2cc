#include "metadata/sqlite_database.h"

#include <cerrno>

namespace ublkd::metadata {
namespace {

constexpr int kBusyTimeoutMs = 10'000;

int bind(sqlite3_stmt* statement, int index, const Value& value) {
    if (const auto* number = std::get_if<std::int64_t>(&value))
        return sqlite3_bind_int64(statement, index, *number);
    if (const auto* text = std::get_if<std::string>(&value))
        return sqlite3_bind_text64(statement, index, text->data(), text->size(), SQLITE_STATIC,
                                   SQLITE_UTF8);
    if (const auto* bytes = std::get_if<Bytes>(&value))
        return sqlite3_bind_blob64(statement, index, bytes->data(), bytes->size(), SQLITE_STATIC);
    return sqlite3_bind_null(statement, index);
}

Value column(sqlite3_stmt* statement, int index) {
    switch (sqlite3_column_type(statement, index)) {
        case SQLITE_INTEGER:
            return std::int64_t{sqlite3_column_int64(statement, index)};
        case SQLITE_TEXT: {
            const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, index));
            return std::string(text,
                               static_cast<std::size_t>(sqlite3_column_bytes(statement, index)));
        }
        case SQLITE_BLOB: {
            const auto* bytes =
                static_cast<const std::byte*>(sqlite3_column_blob(statement, index));
            return Bytes(bytes, bytes + sqlite3_column_bytes(statement, index));
        }
        default:
            return Value();  // null; STRICT tables hold no REAL where we declare none
    }
}

/// Leaves a statement ready for its next use on every way out.
class Rewind {
  public:
    explicit Rewind(sqlite3_stmt* statement) : statement_(statement) {}
    Rewind(const Rewind&) = delete;
    Rewind& operator=(const Rewind&) = delete;
    ~Rewind() {
        sqlite3_reset(statement_);
        sqlite3_clear_bindings(statement_);
    }

  private:
    sqlite3_stmt* statement_;
};

}  // namespace

Error error_from_sqlite(int code, const char* where) noexcept {
    switch (code) {
        case SQLITE_CONSTRAINT_PRIMARYKEY:
        case SQLITE_CONSTRAINT_ROWID:
        case SQLITE_CONSTRAINT_UNIQUE:
            return {Errc::kExists, 0, where};
        case SQLITE_CONSTRAINT_FOREIGNKEY:
            return {Errc::kNotFound, 0, where};
        case SQLITE_IOERR_SHMSIZE:
            return {Errc::kNoSpace, ENOSPC, "the state folder is full"};
        default:
            break;
    }
    switch (code & 0xff) {
        case SQLITE_CONSTRAINT:
        case SQLITE_MISMATCH:
        case SQLITE_TOOBIG:
            return {Errc::kInvalidArgument, 0, where};
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
            return {Errc::kCorrupt, 0, where};
        case SQLITE_FULL:
            return {Errc::kNoSpace, ENOSPC, "the state folder is full"};
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
            return {Errc::kBusy, 0, where};
        case SQLITE_READONLY:
            return {Errc::kReadOnly, 0, where};
        case SQLITE_PERM:
        case SQLITE_AUTH:
        case SQLITE_CANTOPEN:
            return {Errc::kNotPermitted, 0, where};
        case SQLITE_NOMEM:
            return {Errc::kExhausted, ENOMEM, where};
        default:
            return {Errc::kIo, EIO, where};
    }
}

Result<SqliteDatabase> SqliteDatabase::open(const std::string& path) {
    return connect(path.c_str(), SQLITE_OPEN_READWRITE);
}

Result<SqliteDatabase> SqliteDatabase::in_memory() {
    return connect(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MEMORY);
}

Result<SqliteDatabase> SqliteDatabase::connect(const char* path, int flags) {
    SqliteDatabase database;
    sqlite3* connection = nullptr;
    const int code = sqlite3_open_v2(path, &connection, flags | SQLITE_OPEN_NOMUTEX, nullptr);
    database.connection_.reset(connection);
    if (code != SQLITE_OK) return fail(error_from_sqlite(code, "open metadata database"));
    sqlite3_extended_result_codes(connection, 1);
    sqlite3_busy_timeout(connection, kBusyTimeoutMs);
    sqlite3_db_config(connection, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    sqlite3_db_config(connection, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
    return database;
}

Result<void> SqliteDatabase::execute(const char* sql) {
    const int code = sqlite3_exec(connection_.get(), sql, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) return fail(error_from_sqlite(code, "metadata statement"));
    return {};
}

Result<std::int64_t> SqliteDatabase::integer(const char* sql) {
    Value first;
    TRY(run(sql, {}, [&](std::vector<Value> values) { first = values[0]; }));
    const auto* number = std::get_if<std::int64_t>(&first);
    if (number == nullptr) return fail(Errc::kCorrupt, "metadata: expected a number");
    return *number;
}

Result<std::string> SqliteDatabase::text(const char* sql) {
    std::optional<Value> first;
    TRY(run(sql, {}, [&](std::vector<Value> values) {
        if (!first) first = values[0];
    }));
    const auto* text = first ? std::get_if<std::string>(&*first) : nullptr;
    if (text == nullptr) return fail(Errc::kCorrupt, "metadata: expected a text");
    return *text;
}

Result<sqlite3_stmt*> SqliteDatabase::prepared(const std::string& sql) {
    const auto found = statements_.find(sql);
    if (found != statements_.end()) return found->second.get();
    sqlite3_stmt* made = nullptr;
    const int code =
        sqlite3_prepare_v3(connection_.get(), sql.c_str(), static_cast<int>(sql.size() + 1),
                           SQLITE_PREPARE_PERSISTENT, &made, nullptr);
    if (code != SQLITE_OK) return fail(error_from_sqlite(code, "metadata statement"));
    statements_.emplace(sql, Statement(made));
    return made;
}

Result<void> SqliteDatabase::run(const std::string& sql, std::span<const Value> parameters,
                                 const RowFunction& row) {
    TRY_ASSIGN(sqlite3_stmt* const statement, prepared(sql));
    const Rewind rewind(statement);
    int index = 0;
    for (const Value& parameter : parameters) {
        const int code = bind(statement, ++index, parameter);
        if (code != SQLITE_OK) return fail(error_from_sqlite(code, "metadata parameter"));
    }
    int code = SQLITE_ROW;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        if (!row) continue;
        std::vector<Value> values;
        const int columns = sqlite3_column_count(statement);
        values.reserve(static_cast<std::size_t>(columns));
        for (int i = 0; i < columns; ++i) values.push_back(column(statement, i));
        row(std::move(values));
    }
    if (code != SQLITE_DONE) return fail(error_from_sqlite(code, "metadata statement"));
    return {};
}

Result<void> SqliteDatabase::checkpoint(int mode) {
    const int code = sqlite3_wal_checkpoint_v2(connection_.get(), nullptr, mode, nullptr, nullptr);
    if (code != SQLITE_OK) return fail(error_from_sqlite(code, "metadata checkpoint"));
    return {};
}

void SqliteDatabase::watch_log(int* pages) {
    sqlite3_wal_hook(
        connection_.get(),
        [](void* argument, sqlite3*, const char*, int length) {
            *static_cast<int*>(argument) = length;
            return SQLITE_OK;
        },
        pages);
}

}  // namespace ublkd::metadata
