// A thin owner of one SQLite connection and of its prepared statements, in terms of Value and
// Result, for the stores of this folder. Not thread-safe: whoever uses a connection holds its
// mutex. What a result code means for the store is decided here, in error_from_sqlite():
// docs/errors.md.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "metadata/value.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

/// `code`: an extended result code of SQLite, not SQLITE_OK.
Error error_from_sqlite(int code, const char* where) noexcept;

class SqliteDatabase {
  public:
    /// Opens an existing file (it may be empty).
    static Result<SqliteDatabase> open(const std::string& path);
    /// A new one that ends with this.
    static Result<SqliteDatabase> in_memory();

    /// Runs statements without parameters or results.
    Result<void> execute(const char* sql);
    /// The first column of the first row of `sql` ("PRAGMA user_version").
    Result<std::int64_t> integer(const char* sql);
    Result<std::string> text(const char* sql);
    /// Runs one prepared statement, kept for its next use. `row` is called for each result row.
    using RowFunction = std::function<void(std::vector<Value> values)>;
    Result<void> run(const std::string& sql, std::span<const Value> parameters,
                     const RowFunction& row = {});

    /// Rows changed by the last run().
    int changes() const { return sqlite3_changes(connection_.get()); }
    bool in_transaction() const { return sqlite3_get_autocommit(connection_.get()) == 0; }
    /// The last extended result code.
    int last_code() const { return sqlite3_extended_errcode(connection_.get()); }
    /// Moves what the log (WAL) holds into the database file, as far as readers allow; `mode`:
    /// SQLITE_CHECKPOINT_….
    Result<void> checkpoint(int mode);
    /// Turns SQLite's own checkpoints off; the log's length in pages after each commit goes to
    /// *pages.
    void watch_log(int* pages);

  private:
    struct CloseConnection {
        void operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }
    };
    struct Finalize {
        void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
    };
    using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

    static Result<SqliteDatabase> connect(const char* path, int flags);
    Result<sqlite3_stmt*> prepared(const std::string& sql);

    std::unique_ptr<sqlite3, CloseConnection> connection_;
    std::map<std::string, Statement, std::less<>> statements_;  // ends before the connection
};

}  // namespace ublkd::metadata
