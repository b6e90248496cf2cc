#include "metadata/local_rows.h"

#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata {
namespace {

/// What ends a transaction that changed nothing, or is to change nothing. Nobody sees it.
std::unexpected<Error> undo() { return fail(Errc::kCancelled, "undone"); }

}  // namespace

Result<bool> LocalRows::still_seen(Transaction& tx, const Seen& seen) {
    TRY_ASSIGN(const auto rows, tx.list_rows(*seen.table, seen.query));
    return std::equal(rows.begin(), rows.end(), seen.marks.begin(), seen.marks.end(),
                      [&](const Row& row, const Seen::Mark& mark) {
                          return row.revision == mark.revision &&
                                 std::ranges::equal(key_of(*seen.table, row), mark.key);
                      });
}

Result<void> LocalRows::make(Transaction& tx, const Change& change) {
    Row row = change.row;
    if (row.revision == kOwnRevision) {
        TRY_ASSIGN(const auto own, tx.get_row(*change.table, key_of(*change.table, row)));
        if (!own) return fail(Errc::kConflict, "metadata record: changed meanwhile");
        row.revision = own->revision;
    }
    if (change.kind == Change::Kind::kErase) return tx.erase_row(*change.table, row);
    TRY(tx.put_row(*change.table, row));
    return {};
}

/// What comes of `change`; an error is the store's own.
Result<std::optional<Errc>> LocalRows::outcome(Transaction& tx, const Change& change) {
    const auto made = make(tx, change);
    if (made) return std::optional<Errc>();
    if (!is_refusal(made.error().code)) return fail(made.error());
    return std::optional(made.error().code);
}

Result<bool> LocalRows::same_changes(Transaction& tx, std::span<const Change> changes) {
    for (const Change& change : changes) {
        TRY_ASSIGN(const auto refused, outcome(tx, change));
        if (refused != change.refused) return false;
    }
    return true;
}

Result<bool> LocalRows::same(Transaction& tx, const Observed& observed) {
    // Before the changes: what its lists gave is noted without the transaction's own.
    for (const Seen& seen : observed.reads) {
        if (faults::rule_off("rule.reads_validated")) break;
        TRY_ASSIGN(const bool still, still_seen(tx, seen));
        if (!still) return false;
    }
    return same_changes(tx, observed.changes);
}

Result<Rows> LocalRows::list(const Table& table, const Query& query) {
    return store_->read_for<Rows>([&](Transaction& tx) -> Result<Rows> {
        Rows found;
        TRY_ASSIGN(found.rows, tx.list_rows(table, query));
        TRY_ASSIGN(found.state, tx.state());
        return found;
    });
}

Result<Trial> LocalRows::try_last(const std::vector<Change>& changes) {
    CHECK(!changes.empty(), "a change to try");
    Trial trial;
    bool judged = false;
    const auto done = store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(trial.before.state, tx.state());
        TRY_ASSIGN(trial.before.same,
                   same_changes(tx, std::span(changes).first(changes.size() - 1)));
        if (trial.before.same) {
            TRY_ASSIGN(trial.refused, outcome(tx, changes.back()));
        }
        judged = true;
        return undo();
    });
    if (!judged) return fail(done.error());
    return trial;
}

Result<Checked> LocalRows::check(const Observed& observed) {
    Checked checked;
    bool judged = false;
    const auto work = [&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(checked.state, tx.state());
        TRY_ASSIGN(checked.same, same(tx, observed));
        judged = true;
        return undo();
    };
    // Changes are tried by making them; reads alone wait for no writer.
    const auto done = observed.changes.empty() ? store_->read(work) : store_->write(work);
    if (!judged) return fail(done.error());
    return checked;
}

Result<Checked> LocalRows::commit(const Observed& observed) {
    if (const int error = faults::hit("rows.before_commit"))
        return fail_errno(error, "commit of another host");
    Checked checked;
    bool judged = false;
    const auto done = store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(checked.state, tx.state());
        TRY_ASSIGN(checked.same, same(tx, observed));
        judged = true;
        if (!checked.same) return undo();
        TRY_ASSIGN(checked.state, tx.state());
        return {};
    });
    if (!done && (!judged || checked.same)) return fail(done.error());
    if (const int error = faults::hit("rows.after_commit"))
        return fail_errno(error, "answer another host");
    return checked;
}

}  // namespace ublkd::metadata
