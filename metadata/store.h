// MetadataStore: where the control plane keeps what it decided. Transactions over typed records
// (records.h) with compare-and-set as the primitive that the authority and the permission service
// are built on (authority.h, permission.h). Backends: SqliteStore, and OptimisticStore for a store
// that is elsewhere; each passes tests/suites/metadata_suite.h. Blocking: called from an API thread
// or an io::Worker, never from a reactor. Thread-safe: any thread may call; writing transactions
// run one after the other. Guarantees: a transaction is applied whole or not at all; when write()
// has returned ok it is on stable storage; read() shows one committed state, never an older one
// than the caller has seen. docs/metadata.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "metadata/records.h"
#include "metadata/value.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

/// Which records list() gives, in the order of their keys.
struct Query {
    struct Equal {
        const char* column;
        Value value;
    };
    std::vector<Equal> where;  // all of them hold; a column that the record has (CHECKed)
    std::vector<Value> after;  // a key: records with greater keys only
    std::size_t limit = SIZE_MAX;
};

/// where("volume", id): the usual Query.
template <class T>
Query where(const char* column, const T& value) {
    return Query{.where = {{column, to_value(value)}}, .after = {}, .limit = SIZE_MAX};
}

/// Valid inside the function given to write() or read() alone. After an error of the store itself
/// (not kNotFound, kExists, kConflict, kBusy or kInvalidArgument) the function should return it.
class Transaction {
  public:
    virtual ~Transaction() = default;

    /// The record with this key (one argument for each key column), nullopt where there is none.
    template <class Record, class... Key>
    Result<std::optional<Record>> get(const Key&... key) {
        static_assert(sizeof...(Key) == Record::kKeyColumns);
        const Value values[] = {to_value(key)...};
        auto row = get_row(table_of<Record>(), values);
        if (!row) return fail(row.error());
        if (!*row) return std::optional<Record>();
        auto record = decode_row<Record>(**row);
        if (!record) return fail(record.error());
        return std::optional<Record>(std::move(*record));
    }

    template <class Record>
    Result<std::vector<Record>> list(const Query& query = {}) {
        auto rows = list_rows(table_of<Record>(), query);
        if (!rows) return fail(rows.error());
        std::vector<Record> records;
        records.reserve(rows->size());
        for (const Row& row : *rows) {
            auto record = decode_row<Record>(row);
            if (!record) return fail(record.error());
            records.push_back(std::move(*record));
        }
        return records;
    }

    /// Compare-and-set. record.revision 0: makes a new record (kExists where its key or a unique
    /// column is taken). Else replaces the record if it still has the revision that the caller read
    /// (kConflict where it has changed or is gone). On ok record.revision serves for another put()
    /// or erase() in this transaction; after the commit, read it again. kNotFound: it refers to a
    /// record that is not there. kInvalidArgument: a value that its column refuses.
    template <class Record>
    Result<void> put(Record& record) {
        auto row = encode_row(record);
        if (!row) return fail(row.error());
        auto revision = put_row(table_of<Record>(), *row);
        if (!revision) return fail(revision.error());
        record.revision = *revision;
        return {};
    }

    /// Compare-and-set as in put(). kBusy: other records refer to it.
    template <class Record>
    Result<void> erase(const Record& record) {
        auto row = encode_row(record);
        if (!row) return fail(row.error());
        return erase_row(table_of<Record>(), *row);
    }

  private:
    friend class LocalRows;   // gives rows to other hosts (row_service.h)
    friend class WholeStore;  // copies all rows (whole_store.h)
    virtual Result<std::optional<Row>> get_row(const Table& table, std::span<const Value> key) = 0;
    virtual Result<std::vector<Row>> list_rows(const Table& table, const Query& query) = 0;
    /// The record's new revision: greater than any that this key ever had.
    virtual Result<std::uint64_t> put_row(const Table& table, const Row& row) = 0;
    virtual Result<void> erase_row(const Table& table, const Row& row) = 0;
    /// The number of the state that this transaction sees: each commit of a change has a greater
    /// one than all before it.
    virtual Result<std::uint64_t> state() = 0;
};

class MetadataStore {
  public:
    using Work = std::function<Result<void>(Transaction&)>;
    virtual ~MetadataStore() = default;

    /// Runs `work` and commits what it put and erased, if it returns ok and nobody else changed
    /// what it read; otherwise nothing of it remains. `work` may be run several times by a backend
    /// that retries, so it has no effects but those; it calls neither write() nor read(). Errors:
    /// those of `work`; kNoSpace (state folder full, nothing was changed); kIo and kTimedOut (the
    /// outcome is unknown until it is read again); kCorrupt; of a store on another host also
    /// kClosed (it cannot be reached) and kBusy (others changed what was read, again and again),
    /// where nothing was changed.
    virtual Result<void> write(const Work& work) = 0;

    /// Runs `work` on one committed state; put() and erase() give kReadOnly.
    virtual Result<void> read(const Work& work) = 0;

    /// The same with a result: `work` returns Result<T>.
    template <class T, class F>
    Result<T> write_for(F&& work) {
        return with_result<T>(&MetadataStore::write, work);
    }
    template <class T, class F>
    Result<T> read_for(F&& work) {
        return with_result<T>(&MetadataStore::read, work);
    }

    /// One record, or all that a query gives, in a transaction of its own.
    template <class Record, class... Key>
    Result<std::optional<Record>> get(const Key&... key) {
        return read_for<std::optional<Record>>(
            [&](Transaction& tx) { return tx.get<Record>(key...); });
    }
    template <class Record>
    Result<std::vector<Record>> list(const Query& query = {}) {
        return read_for<std::vector<Record>>(
            [&](Transaction& tx) { return tx.list<Record>(query); });
    }

  private:
    template <class T, class F>
    Result<T> with_result(Result<void> (MetadataStore::*run)(const Work&), F& work) {
        std::optional<T> value;
        auto done = (this->*run)([&](Transaction& tx) -> Result<void> {
            Result<T> made = work(tx);
            if (!made) return fail(made.error());
            value.emplace(std::move(*made));
            return {};
        });
        if (!done) return fail(done.error());
        return std::move(*value);
    }
};

/// Milliseconds since 1970 UTC, for the times in records.
std::uint64_t now_ms();

inline constexpr std::uint64_t kEventsKept = 10'000;

/// Gives `event` the next sequence and the time, and drops the one that is kEventsKept older.
Result<void> append_event(Transaction& tx, EventRecord event);

}  // namespace ublkd::metadata
