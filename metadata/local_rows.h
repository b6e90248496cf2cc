// RowService over a MetadataStore of this process: the side that serves other hosts. Each call is
// one transaction of the store. Holds nothing between two calls. Thread-safe, as its store is.
// Fault points: rows.before_commit, rows.after_commit; rule.reads_validated.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "metadata/row_service.h"

namespace ublkd::metadata {

class LocalRows : public RowService {
  public:
    explicit LocalRows(MetadataStore* store) : store_(store) {}

    Result<Rows> list(const Table& table, const Query& query) override;
    Result<Trial> try_last(const std::vector<Change>& changes) override;
    Result<Checked> check(const Observed& observed) override;
    Result<Checked> commit(const Observed& observed) override;

  private:
    static Result<bool> still_seen(Transaction& tx, const Seen& seen);
    static Result<void> make(Transaction& tx, const Change& change);
    static Result<std::optional<Errc>> outcome(Transaction& tx, const Change& change);
    static Result<bool> same_changes(Transaction& tx, std::span<const Change> changes);
    static Result<bool> same(Transaction& tx, const Observed& observed);

    MetadataStore* store_;
};

}  // namespace ublkd::metadata
