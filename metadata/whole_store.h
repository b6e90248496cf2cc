// All rows of a store as one value, and the way back: for backups, and for a move to another store.
// No state; blocking as the store is. docs/metadata.md, "Backup and restore".
#pragma once

#include <cstdint>
#include <vector>

#include "metadata/store.h"

namespace ublkd::metadata {

struct TableRows {
    const Table* table = nullptr;
    std::vector<Row> rows;
};

/// Every table once, in the order of all_tables().
struct AllRows {
    std::vector<TableRows> tables;
    std::uint64_t state = 0;  // of the store that they were read from

    std::size_t count() const;
    TableRows& of(const Table& table);
    const TableRows& of(const Table& table) const;
};

class WholeStore {
  public:
    /// Of one committed state.
    static Result<AllRows> read(MetadataStore* store);
    static Result<AllRows> read(Transaction& tx);
    /// Nothing that was there stays. Revisions are new ones. Errors: as of put(), where the rows
    /// contradict the schema.
    static Result<void> replace(Transaction& tx, const AllRows& rows);
};

}  // namespace ublkd::metadata
