#include "metadata/optimistic_store.h"

#include <algorithm>
#include <map>
#include <thread>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/ids.h"

namespace ublkd::metadata {
namespace {

using Key = std::vector<Value>;

Key whole_key(const Table& table, const Row& row) {
    const auto key = key_of(table, row);
    return Key(key.begin(), key.end());
}

Query by_key(const Table& table, std::span<const Value> key) {
    Query query;
    for (std::size_t i = 0; i < key.size(); ++i) query.where.push_back({table.columns[i], key[i]});
    return query;
}

bool fits(const Table& table, const Query& query, const Key& key, const Row& row) {
    if (!query.after.empty() && !(query.after < key)) return false;
    return std::ranges::all_of(query.where, [&](const Query::Equal& equal) {
        const auto column =
            std::ranges::find(table.columns, std::string_view(equal.column),
                              [](const char* name) { return std::string_view(name); });
        return row.values[static_cast<std::size_t>(column - table.columns.begin())] == equal.value;
    });
}

const char* why_refused(Errc code) {
    switch (code) {
        case Errc::kExists:
            return "metadata record: its key or a unique value is taken";
        case Errc::kNotFound:
            return "metadata record: it refers to what is not there";
        case Errc::kBusy:
            return "metadata record: others refer to it";
        case Errc::kConflict:
            return "metadata record: changed meanwhile";
        default:
            return "metadata record: a value that its column refuses";
    }
}

bool is_own(std::uint64_t revision) { return (revision & kOwnRevision) != 0; }
std::uint64_t before_own(std::uint64_t revision) { return revision & ~kOwnRevision; }

class OptimisticTransaction : public Transaction {
  public:
    OptimisticTransaction(RowService& rows, std::atomic<std::uint64_t>& newest, bool writing,
                          bool first_run)
        : rows_(rows), newest_(newest), writing_(writing), first_run_(first_run) {}

    /// Whether others changed what it observed: all of it counts for nothing then.
    bool overtaken() const { return overtaken_; }

    Result<void> commit() {
        TRY(usable());
        const bool any = std::ranges::any_of(observed_.changes,
                                             [](const Change& change) { return !change.refused; });
        if (!any) return {};
        const std::uint64_t floor = newest_;
        TRY_ASSIGN(const Checked checked, rows_.commit(observed_));
        return observed_again(checked, floor);
    }

  private:
    Result<std::optional<Row>> get_row(const Table& table, std::span<const Value> key) override {
        TRY(usable());
        const Key wanted(key.begin(), key.end());
        const auto& own = own_[&table];
        if (const auto found = own.find(wanted); found != own.end()) return found->second;
        auto& known = known_[&table];
        if (const auto found = known.find(wanted); found != known.end()) return found->second;
        TRY_ASSIGN(auto rows, observe(table, by_key(table, key)));
        std::optional<Row> row;
        if (!rows.empty()) row = std::move(rows.front());
        known.emplace(wanted, row);
        return row;
    }

    Result<std::vector<Row>> list_rows(const Table& table, const Query& query) override {
        TRY(usable());
        const auto& own = own_[&table];
        // As many more as own changes may take out of what the far side gives.
        Query wide = query;
        wide.limit = query.limit > SIZE_MAX - own.size() ? SIZE_MAX : query.limit + own.size();
        TRY_ASSIGN(auto rows, observe(table, wide));
        if (own.empty()) return rows;
        std::map<Key, Row> merged;
        for (Row& row : rows) merged.emplace(whole_key(table, row), std::move(row));
        for (const auto& [key, row] : own) {
            merged.erase(key);
            if (row && fits(table, query, key, *row)) merged.emplace(key, *row);
        }
        rows.clear();
        for (auto& [key, row] : merged) {
            if (rows.size() == query.limit) break;
            rows.push_back(std::move(row));
        }
        return rows;
    }

    Result<std::uint64_t> put_row(const Table& table, const Row& row) override {
        Change change{Change::Kind::kPut, &table, row, std::nullopt};
        TRY_ASSIGN(const std::uint64_t before, make(change));
        Row& own = own_[&table][whole_key(table, row)].emplace(row);
        own.revision = kOwnRevision | before;
        return own.revision;
    }

    Result<void> erase_row(const Table& table, const Row& row) override {
        Change change{Change::Kind::kErase, &table, row, std::nullopt};
        TRY(make(change));
        own_[&table][whole_key(table, row)] = std::nullopt;
        return {};
    }

    Result<std::uint64_t> state() override {
        TRY(usable());
        if (!state_) {
            const std::uint64_t floor = newest_;
            const auto now = rows_.check(observed_);
            if (!now) return broken(now.error());
            TRY(observed_again(*now, floor));
        }
        return *state_;
    }

    /// Tries `change`, and notes it. Which revision its record had before this transaction.
    Result<std::uint64_t> make(Change& change) {
        if (!writing_) return fail(Errc::kReadOnly, "metadata: a change within read()");
        TRY(usable());
        auto& own = own_[change.table];
        const auto found = own.find(whole_key(*change.table, change.row));
        std::uint64_t before = before_own(change.row.revision);
        if (is_own(change.row.revision)) {
            const bool made_here = found != own.end() && found->second;
            // Otherwise it was put in vain, by a run before this one: as what it was then.
            change.row.revision = made_here ? kOwnRevision : before;
            if (made_here) before = before_own(found->second->revision);
        }
        if (change.table->plain) {
            // The commit finds out whether the key of a new one is taken after all; the next run
            // asks.
            const bool surely_new = change.table->appended && change.row.revision == 0 &&
                                    change.kind == Change::Kind::kPut && first_run_ &&
                                    found == own.end();
            if (!surely_new) {
                TRY(compare(change));
            }
            observed_.changes.push_back(change);
        } else {
            TRY(try_change(change));
        }
        return before;
    }

    /// All that the far side could have against a record of a plain table.
    Result<void> compare(const Change& change) {
        TRY_ASSIGN(const auto stored, get_row(*change.table, whole_key(*change.table, change.row)));
        const std::uint64_t revision = change.row.revision;
        if (change.kind == Change::Kind::kPut && revision == 0) {
            if (stored) return fail(Errc::kExists, "metadata record: the key is taken");
            return {};
        }
        const bool same = stored && (stored->revision == revision ||
                                     (revision == kOwnRevision && is_own(stored->revision)));
        if (!same) return fail(Errc::kConflict, "metadata record: changed meanwhile");
        return {};
    }

    Result<void> try_change(const Change& change) {
        observed_.changes.push_back(change);
        const std::uint64_t floor = newest_;
        const auto trial = rows_.try_last(observed_.changes);
        if (!trial) return broken(trial.error());
        TRY(not_older(trial->before.state, floor));
        if (!trial->before.same) return overtake();
        observed_.changes.back().refused = trial->refused;
        TRY(join(trial->before.state));
        if (trial->refused) return fail(*trial->refused, why_refused(*trial->refused));
        return {};
    }

    Result<std::vector<Row>> observe(const Table& table, const Query& query) {
        const std::uint64_t floor = newest_;
        auto found = rows_.list(table, query);
        if (!found) return broken(found.error());
        TRY(not_older(found->state, floor));
        Seen seen{&table, query, {}};
        for (const Row& row : found->rows)
            seen.marks.push_back({whole_key(table, row), row.revision});
        observed_.reads.push_back(std::move(seen));
        TRY(join(found->state));
        return std::move(found->rows);
    }

    /// The last thing observed is of `state`: so has to be all that was observed before.
    Result<void> join(std::uint64_t state) {
        if (!state_) state_ = state;
        if (*state_ == state || faults::rule_off("rule.reads_of_one_state")) return {};
        const std::uint64_t floor = newest_;
        const auto checked = rows_.check(observed_);
        if (!checked) return broken(checked.error());
        return observed_again(*checked, floor);
    }

    Result<void> observed_again(const Checked& checked, std::uint64_t floor) {
        TRY(not_older(checked.state, floor));
        if (!checked.same) return overtake();
        state_ = checked.state;
        return {};
    }

    /// `floor`: the newest state that was seen before this one was asked for.
    Result<void> not_older(std::uint64_t state, std::uint64_t floor) {
        if (state < floor)
            return broken(Error{Errc::kStale, 0, "the far metadata store went back in time"});
        std::uint64_t newest = newest_;
        while (newest < state && !newest_.compare_exchange_weak(newest, state)) {
        }
        return {};
    }

    std::unexpected<Error> overtake() {
        overtaken_ = true;
        return broken(Error{Errc::kStale, 0, "metadata: others changed what was read"});
    }

    std::unexpected<Error> broken(const Error& error) {
        broken_ = error;
        return fail(error);
    }
    Result<void> usable() const {
        if (broken_) return fail(*broken_);
        return {};
    }

    RowService& rows_;
    std::atomic<std::uint64_t>& newest_;
    const bool writing_;
    const bool first_run_;
    Observed observed_;
    std::optional<std::uint64_t> state_;  // of all that was observed
    std::optional<Error> broken_;         // nothing more is done
    bool overtaken_ = false;
    std::map<const Table*, std::map<Key, std::optional<Row>>> own_;    // none: erased
    std::map<const Table*, std::map<Key, std::optional<Row>>> known_;  // what get_row() asked for
};

/// So that two that overtook each other do not again.
void rest(unsigned run, std::chrono::steady_clock::time_point until) {
    const std::uint64_t most_us = std::uint64_t{1000} << std::min(run, 6U);
    const auto time = std::chrono::microseconds(random_u64() % most_us);
    std::this_thread::sleep_until(std::min(until, std::chrono::steady_clock::now() + time));
}

}  // namespace

Result<void> OptimisticStore::run(const Work& work, bool writing) {
    const auto until = std::chrono::steady_clock::now() + options_.repeat_for;
    for (unsigned runs = 0;; ++runs) {
        OptimisticTransaction transaction(*rows_, newest_, writing, runs == 0);
        auto done = work(transaction);
        if (done) done = transaction.commit();
        if (!transaction.overtaken()) return done;
        if (std::chrono::steady_clock::now() >= until)
            return fail(Errc::kBusy, "metadata: others changed what was read, again and again");
        rest(runs, until);
    }
}

}  // namespace ublkd::metadata
