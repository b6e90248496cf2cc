#include "metadata/whole_store.h"

#include <algorithm>
#include <ranges>

#include "metadata/tables.h"
#include "ublkd/base/check.h"

namespace ublkd::metadata {

std::size_t AllRows::count() const {
    std::size_t sum = 0;
    for (const TableRows& one : tables) sum += one.rows.size();
    return sum;
}

const TableRows& AllRows::of(const Table& table) const {
    const auto found = std::ranges::find(tables, &table, &TableRows::table);
    CHECK(found != tables.end(), "all tables are there");
    return *found;
}

TableRows& AllRows::of(const Table& table) {
    return const_cast<TableRows&>(std::as_const(*this).of(table));
}

Result<AllRows> WholeStore::read(Transaction& tx) {
    AllRows all;
    for (const Table* table : all_tables()) {
        TRY_ASSIGN(auto rows, tx.list_rows(*table, {}));
        all.tables.push_back({table, std::move(rows)});
    }
    TRY_ASSIGN(all.state, tx.state());
    return all;
}

Result<AllRows> WholeStore::read(MetadataStore* store) {
    return store->read_for<AllRows>([](Transaction& tx) { return read(tx); });
}

Result<void> WholeStore::replace(Transaction& tx, const AllRows& rows) {
    // Each table comes before those that refer to it: they go first.
    for (const Table* table : std::views::reverse(all_tables())) {
        TRY_ASSIGN(const auto old, tx.list_rows(*table, {}));
        for (const Row& row : old) {
            TRY(tx.erase_row(*table, row));
        }
    }
    for (const Table* table : all_tables()) {
        for (Row row : rows.of(*table).rows) {
            row.revision = 0;
            TRY(tx.put_row(*table, row));
        }
    }
    return {};
}

}  // namespace ublkd::metadata
