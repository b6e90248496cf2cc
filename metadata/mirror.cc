#include "metadata/mirror.h"

#include <string>

#include "metadata/sqlite_schema.h"
#include "metadata/sqlite_transaction.h"
#include "metadata/tables.h"

namespace ublkd::metadata {

Result<std::unique_ptr<Mirror>> Mirror::make() {
    TRY_ASSIGN(SqliteDatabase database, SqliteDatabase::in_memory());
    TRY(database.execute("PRAGMA foreign_keys = ON"));
    TRY(migrate(database, 0));
    return std::unique_ptr<Mirror>(new Mirror(std::move(database)));
}

Result<void> Mirror::write(const Work& work) { return run(work, true); }
Result<void> Mirror::read(const Work& work) { return run(work, false); }

Result<void> Mirror::run(const Work& work, bool writing) {
    const std::lock_guard guard(mutex_);
    TRY(database_.execute("BEGIN"));
    SqliteTransaction transaction(database_, writing);
    const auto done = work(transaction);
    const auto ended = database_.execute("ROLLBACK");
    return done ? ended : done;
}

std::uint64_t Mirror::state() const {
    const std::lock_guard guard(mutex_);
    return state_;
}

Result<void> Mirror::apply(std::uint64_t state, const Mirrored& changes, bool anew) {
    const std::lock_guard guard(mutex_);
    TRY(database_.execute("BEGIN"));
    auto done = change(state, changes, anew);
    if (done) done = database_.execute("COMMIT");
    if (!done) {
        const Error error = roll_back(database_, done.error());
        if (error.code == Errc::kExhausted) return fail(error);
        return fail(Errc::kCorrupt, "metadata: rows that the schema refuses");
    }
    state_ = state;
    return {};
}

Result<void> Mirror::change(std::uint64_t state, const Mirrored& changes, bool anew) {
    // Between the first change and the last one they refer to what is not there yet.
    TRY(database_.execute("PRAGMA defer_foreign_keys = ON"));
    if (anew) {
        for (const Table* table : all_tables()) {
            TRY(database_.execute((std::string("DELETE FROM ") + table->name).c_str()));
        }
    } else {
        // All that changed goes first: what was unique may have moved from one row to another.
        for (const auto& erased : changes.erased) {
            TRY(delete_row(database_, *erased.table, erased.key));
        }
        for (const auto& put : changes.puts) {
            TRY(delete_row(database_, *put.table, key_of(*put.table, put.row)));
        }
    }
    for (const auto& put : changes.puts) {
        TRY(insert_row(database_, *put.table, put.row, put.row.revision));
    }
    return database_.run("UPDATE store SET revision = ?",
                         std::vector<Value>{Value(static_cast<std::int64_t>(state))});
}

}  // namespace ublkd::metadata
