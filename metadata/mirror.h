// A copy in memory of a store that is elsewhere: a MetadataStore whose state is not made by its own
// transactions but told by apply(). What is tried here is refused as SqliteStore refuses it, by the
// same schema. write() runs what LocalRows undoes (local_rows.h); nothing is committed by it.
// Blocking; thread-safe, one caller after the other. Owner: EtcdRows. docs/metadata.md, "etcd".
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "metadata/sqlite_database.h"
#include "metadata/store.h"

namespace ublkd::metadata {

/// What others have committed: the rows as they are now, and the keys that have none.
struct Mirrored {
    struct Put {
        const Table* table = nullptr;
        Row row;  // with its revision
    };
    struct Erased {
        const Table* table = nullptr;
        std::vector<Value> key;
    };
    std::vector<Put> puts;
    std::vector<Erased> erased;
};

class Mirror : public MetadataStore {
  public:
    /// An empty one, of state 0.
    static Result<std::unique_ptr<Mirror>> make();

    Result<void> write(const Work& work) override;
    Result<void> read(const Work& work) override;

    std::uint64_t state() const;
    /// From now on it is of `state`. `anew`: nothing that was there before stays. kCorrupt: the
    /// rows contradict the schema; the mirror stays as it was.
    Result<void> apply(std::uint64_t state, const Mirrored& changes, bool anew);

  private:
    explicit Mirror(SqliteDatabase database) : database_(std::move(database)) {}
    Result<void> change(std::uint64_t state, const Mirrored& changes, bool anew);
    Result<void> run(const Work& work, bool writing);

    mutable std::mutex mutex_;
    SqliteDatabase database_;
    std::uint64_t state_ = 0;
};

}  // namespace ublkd::metadata
