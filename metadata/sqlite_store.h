// MetadataStore in one SQLite file: WAL, synchronous=FULL, foreign keys, STRICT tables, numbered
// migrations (metadata/migrations/, embedded). One connection writes, one reads; each is guarded by
// a mutex, so any thread may call. A sync that the disk fails puts the store out for good (kIo
// until the daemon is started again on good storage): what such a sync left behind cannot be known.
// A lock file beside the database keeps a second daemon out. Fault points: metadata.before_commit,
// metadata.after_commit; rule.metadata_synchronous, rule.metadata_out. docs/metadata.md.
#pragma once

#include <memory>
#include <string>

#include "metadata/store.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

class SqliteStore : public MetadataStore {
  public:
    /// Opens `path`, makes it where it is missing, migrates it where it is older, and checks it.
    /// Errors: kUnsupported (written by a newer version, or another program's database), kCorrupt,
    /// kBusy (another process has it open), kNotPermitted, kNoSpace, kIo. Nothing is changed in a
    /// database that is refused.
    static Result<std::unique_ptr<SqliteStore>> open(const std::string& path);
    SqliteStore(const SqliteStore&) = delete;
    SqliteStore& operator=(const SqliteStore&) = delete;
    ~SqliteStore() override;

    /// States and revisions have at least this number from now on: of a store that takes the place
    /// of another one, so that nothing has a number that others have seen there.
    Result<void> skip_states(std::uint64_t to);

    Result<void> write(const Work& work) override;
    Result<void> read(const Work& work) override;

  private:
    struct Impl;
    explicit SqliteStore(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::metadata
