#include "metadata/sqlite_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "metadata/reserve.h"
#include "metadata/sqlite_database.h"
#include "metadata/sqlite_schema.h"
#include "metadata/sqlite_transaction.h"
#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/fd.h"
#include "ublkd/base/files.h"

namespace ublkd::metadata {
namespace {

constexpr int kLogPagesMax = 1000;  // 4 MiB: then the log goes into the database

Result<Fd> take_lock(const std::string& path) {
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "open metadata lock file");
    if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
    if (errno == EWOULDBLOCK)
        return fail(Errc::kBusy, "metadata database: another process has it open");
    return fail_errno(errno, "lock metadata lock file");
}

/// Makes the file, empty and readable by its owner alone, where it is missing.
Result<void> make_file(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "open metadata database");
    return sync_folder(parent_of(path));
}

/// Whether this is ours, of a version that we know, and whole; changes nothing. The schema's
/// number, 0 where empty.
Result<int> inspect(SqliteDatabase& database) {
    TRY_ASSIGN(const std::int64_t pages, database.integer("PRAGMA page_count"));
    if (pages == 0) return 0;
    TRY_ASSIGN(const std::int64_t application, database.integer("PRAGMA application_id"));
    TRY_ASSIGN(const std::int64_t schema, database.integer("PRAGMA user_version"));
    if (application == 0 && schema == 0) {
        // SQLite gives a file its first page before our first migration is committed.
        TRY_ASSIGN(const std::int64_t objects,
                   database.integer("SELECT count(*) FROM sqlite_schema"));
        if (objects == 0) return 0;
    }
    if (application != kApplicationId)
        return fail(Errc::kUnsupported, "metadata database: made by another program");
    if (schema > newest_schema())
        return fail(Errc::kUnsupported,
                    "metadata database: written by a newer ublkd; install that version or newer");
    if (schema < 1) return fail(Errc::kCorrupt, "metadata database: schema number");
    TRY_ASSIGN(const std::string verdict, database.text("PRAGMA quick_check(1)"));
    if (verdict != "ok") return fail(Errc::kCorrupt, "metadata database: fails its check");
    return static_cast<int>(schema);
}

/// Settings that belong to a connection, not to the file.
Result<void> configure(SqliteDatabase& database) {
    TRY_ASSIGN(const std::string journal, database.text("PRAGMA journal_mode = WAL"));
    if (journal != "wal")
        return fail(Errc::kUnsupported, "metadata database: no write-ahead log here");
    TRY(database.execute(faults::rule_off("rule.metadata_synchronous")
                             ? "PRAGMA synchronous = OFF"
                             : "PRAGMA synchronous = FULL"));
    TRY(database.execute("PRAGMA foreign_keys = ON"));
    TRY(database.execute("PRAGMA cell_size_check = ON"));
    return {};
}

/// Whether an error of opening may be due to a full file system: SQLite does not always say.
bool may_lack_room(const Error& error) {
    return error.code == Errc::kNoSpace || error.code == Errc::kIo ||
           error.code == Errc::kNotPermitted;
}

thread_local const SqliteStore* inside_of = nullptr;  // whose transaction this thread runs

class Inside {
  public:
    explicit Inside(const SqliteStore* store) : before_(inside_of) {
        CHECK(inside_of != store, "a transaction's function calls neither write() nor read()");
        inside_of = store;
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside() { inside_of = before_; }

  private:
    const SqliteStore* before_;
};

}  // namespace

struct SqliteStore::Impl {
    Impl(Fd lock_file, SqliteDatabase writing, SqliteDatabase reading)
        : lock(std::move(lock_file)), writer(std::move(writing)), reader(std::move(reading)) {}

    static Result<std::unique_ptr<Impl>> open(const std::string& path);
    Result<void> usable() {
        const std::lock_guard guard(failure_mutex);
        return failure ? Result<void>(fail(*failure)) : Result<void>();
    }
    /// Keeps what makes the store unusable for good; hands `error` through. `code`: SQLite's, after
    /// a failed call.
    Error note(const Error& error, int code) {
        const bool sync_failed = (code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC) &&
                                 !faults::rule_off("rule.metadata_out");
        if (sync_failed || (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB) {
            const std::lock_guard guard(failure_mutex);
            if (!failure) failure = error;
        }
        return error;
    }
    Result<void> commit();
    Result<void> checkpoint_when_long();

    Fd lock;  // released last
    std::mutex writer_mutex;
    SqliteDatabase writer;
    int log_pages = 0;
    std::mutex reader_mutex;
    SqliteDatabase reader;
    std::mutex failure_mutex;
    std::optional<Error> failure;
};

Result<void> SqliteStore::Impl::commit() {
    if (const int error = faults::hit("metadata.before_commit"))
        return fail_errno(error, "metadata commit");
    if (auto done = writer.execute("COMMIT"); !done)
        return fail(note(done.error(), writer.last_code()));
    faults::hit("metadata.after_commit");
    return {};
}

Result<void> SqliteStore::Impl::checkpoint_when_long() {
    if (log_pages < kLogPagesMax) return {};
    // The transaction is durable in the log whatever comes of this; but a database file whose sync
    // failed is not to be trusted with a later one.
    auto done = writer.checkpoint(SQLITE_CHECKPOINT_PASSIVE);
    if (!done && done.error().code != Errc::kBusy) note(done.error(), writer.last_code());
    return {};
}

SqliteStore::SqliteStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {
    impl_->writer.watch_log(&impl_->log_pages);
}
SqliteStore::~SqliteStore() = default;

Result<std::unique_ptr<SqliteStore>> SqliteStore::open(const std::string& path) {
    const std::string reserve = path + ".reserve";
    auto impl = Impl::open(path);
    if (!impl && may_lack_room(impl.error()) && release_reserve(reserve)) impl = Impl::open(path);
    if (!impl) return fail(impl.error());
    keep_reserve(reserve);
    return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(*impl)));
}

Result<std::unique_ptr<SqliteStore::Impl>> SqliteStore::Impl::open(const std::string& path) {
    TRY_ASSIGN(Fd lock, take_lock(path + ".lock"));
    TRY(make_file(path));
    TRY_ASSIGN(SqliteDatabase writer, SqliteDatabase::open(path));
    TRY_ASSIGN(const int schema, inspect(writer));
    TRY(configure(writer));
    TRY(migrate(writer, schema));
    // What an earlier process's failed sync left in the log is written anew, and is durable from
    // here on.
    TRY(writer.checkpoint(SQLITE_CHECKPOINT_TRUNCATE));
    TRY_ASSIGN(SqliteDatabase reader, SqliteDatabase::open(path));
    TRY(configure(reader));
    TRY(reader.execute("PRAGMA query_only = ON"));
    return std::make_unique<Impl>(std::move(lock), std::move(writer), std::move(reader));
}

Result<void> SqliteStore::write(const Work& work) {
    const Inside inside(this);
    const std::lock_guard guard(impl_->writer_mutex);
    TRY(impl_->usable());
    SqliteDatabase& database = impl_->writer;
    TRY(database.execute("BEGIN IMMEDIATE"));
    SqliteTransaction transaction(database, true);
    auto done = work(transaction);
    if (done) done = transaction.revision() != 0 ? impl_->commit() : database.execute("COMMIT");
    if (!done) {
        impl_->note(done.error(), database.last_code());
        // A full disk or an I/O error may have ended the transaction already.
        if (database.in_transaction()) return fail(roll_back(database, done.error()));
        return done;
    }
    return impl_->checkpoint_when_long();
}

Result<void> SqliteStore::skip_states(std::uint64_t to) {
    const std::lock_guard guard(impl_->writer_mutex);
    TRY(impl_->usable());
    return impl_->writer.run("UPDATE store SET revision = max(revision, ?)",
                             std::vector<Value>{Value(static_cast<std::int64_t>(to))});
}

Result<void> SqliteStore::read(const Work& work) {
    const Inside inside(this);
    const std::lock_guard guard(impl_->reader_mutex);
    TRY(impl_->usable());
    SqliteDatabase& database = impl_->reader;
    TRY(database.execute("BEGIN"));
    SqliteTransaction transaction(database, false);
    auto done = work(transaction);
    if (!done) impl_->note(done.error(), database.last_code());
    if (database.in_transaction()) {
        if (auto ended = database.execute("ROLLBACK"); done && !ended) return ended;
    }
    return done;
}

}  // namespace ublkd::metadata
