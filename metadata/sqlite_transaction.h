// A Transaction on one SQLite connection, between its BEGIN and COMMIT, which are the owner's.
// Constraints and revisions are the database's. Not thread-safe: the owner holds the connection's
// mutex.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "metadata/sqlite_database.h"
#include "metadata/store.h"

namespace ublkd::metadata {

class SqliteTransaction : public Transaction {
  public:
    SqliteTransaction(SqliteDatabase& database, bool writing)
        : database_(database), writing_(writing) {}

    /// The first put() or erase() takes the transaction's revision; 0 while there was none.
    std::uint64_t revision() const { return revision_; }

  private:
    Result<std::optional<Row>> get_row(const Table& table, std::span<const Value> key) override;
    Result<std::vector<Row>> list_rows(const Table& table, const Query& query) override;
    Result<std::uint64_t> put_row(const Table& table, const Row& row) override;
    Result<void> erase_row(const Table& table, const Row& row) override;
    Result<std::uint64_t> state() override;
    Result<void> start_change();

    SqliteDatabase& database_;
    bool writing_;
    std::uint64_t revision_ = 0;
};

/// INSERTs `row` with `revision`.
Result<void> insert_row(SqliteDatabase& database, const Table& table, const Row& row,
                        std::uint64_t revision);
/// DELETEs the row with this key, if there is one.
Result<void> delete_row(SqliteDatabase& database, const Table& table, std::span<const Value> key);
/// Ends a transaction that failed. The error to report: the first one, unless even the way back
/// fails.
Error roll_back(SqliteDatabase& database, const Error& first);

}  // namespace ublkd::metadata
