#include "metadata/etcd/etcd_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>

#include "metadata/etcd/etcd_form.h"
#include "metadata/etcd/etcd_json.h"
#include "metadata/etcd/etcd_seen.h"
#include "metadata/etcd/turn.h"
#include "metadata/local_rows.h"
#include "metadata/mirror.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/log.h"

namespace ublkd::metadata {
namespace {

using api::Json;
using std::chrono::steady_clock;
using TimePoint = EtcdClient::TimePoint;

/// What changes come to: for each key what it has in the end.
std::map<std::pair<const Table*, std::vector<Value>>, const Row*> outcome_of(
    const std::vector<Change>& changes) {
    std::map<std::pair<const Table*, std::vector<Value>>, const Row*> made;
    for (const Change& change : changes) {
        if (change.refused) continue;
        const auto key = key_of(*change.table, change.row);
        made[{change.table, {key.begin(), key.end()}}] =
            change.kind == Change::Kind::kPut ? &change.row : nullptr;
    }
    return made;
}

}  // namespace

struct EtcdRows::Impl {
    Impl(const EtcdOptions& given, std::unique_ptr<EtcdClient> to, std::unique_ptr<Mirror> copy,
         EtcdSeen mark)
        : options(given),
          keys(given.prefix),
          client(std::move(to)),
          mirror(std::move(copy)),
          seen(std::move(mark)) {}

    /// One state as etcd shows it.
    struct Shown {
        std::uint64_t cluster = 0;
        std::uint64_t revision = 0;  // 0: there is none yet
        std::string text;
    };
    struct Sent {
        bool made = false;
        std::uint64_t state = 0;  // if it was made, and its answer came
    };

    Result<void> refresh(TimePoint until);
    Result<std::unique_lock<Turn>> take_turn(TimePoint until);
    Result<Json> ask(const char* path, const Json& body, TimePoint until);
    Result<Shown> shown(const Json& header, const Json& range_answer) const;

    // With the turn.
    Result<void> not_restored(const Shown& now, std::uint64_t floor, TimePoint until);
    Result<void> catch_up(TimePoint until);
    Result<void> load(TimePoint until);
    Result<void> load_pages(TimePoint until);
    Result<void> adopt(const Shown& now, const EtcdState& state, const Mirrored& changes,
                       bool anew);
    Result<void> settle(TimePoint until);
    Result<Mirrored> read_rows(const Json& range_answer);
    Result<Sent> send(const std::vector<Change>& changes, TimePoint until);
    Result<Checked> commit(const Observed& observed, TimePoint until);

    const EtcdOptions options;
    const EtcdKeys keys;
    const std::unique_ptr<EtcdClient> client;
    const std::unique_ptr<Mirror> mirror;
    LocalRows local{mirror.get()};
    const std::uint64_t process = random_u64();
    std::atomic<bool> in_doubt = true;       // whether a commit of this host may come yet
    std::atomic<std::uint64_t> cluster = 0;  // that the mirror is of

    Turn turn;  // of who changes etcd, or the mirror
    EtcdSeen seen;
    EtcdState tail;  // of the mirror's state
    std::optional<std::uint64_t>
        lost;  // the state that a lost commit goes by; none: it is not known
    std::uint64_t sent = 0;
};

Result<Json> EtcdRows::Impl::ask(const char* path, const Json& body, TimePoint until) {
    bool unsure = false;  // who only asks does not mind
    return client->call(path, body, until, &unsure);
}

Result<std::unique_lock<Turn>> EtcdRows::Impl::take_turn(TimePoint until) {
    std::unique_lock lock(turn, until);
    if (!lock) return fail(Errc::kClosed, "etcd does not answer others of this host either");
    return lock;
}

Result<EtcdRows::Impl::Shown> EtcdRows::Impl::shown(const Json& header,
                                                    const Json& range_answer) const {
    TRY_ASSIGN(auto found, found_in(range_answer));
    Shown now;
    now.cluster = number_of(header["cluster_id"]);
    if (now.cluster == 0) return no_etcd();
    if (!found.empty()) {
        now.revision = found.front().revision;
        now.text = std::move(found.front().value);
    }
    return now;
}

/// `floor`: a state that had been seen before `now` was asked for.
Result<void> EtcdRows::Impl::not_restored(const Shown& now, std::uint64_t floor, TimePoint until) {
    const auto mark = seen.mark();
    if (faults::rule_off("rule.etcd_not_restored")) return {};
    if (mark.cluster != 0 && now.cluster != mark.cluster)
        return fail(Errc::kStale,
                    "this is another etcd cluster than before, or one restored from a snapshot");
    if (now.revision < std::max(floor, mark.revision))
        return fail(Errc::kStale, "etcd went back in time: it was restored from a snapshot");
    if (mark.revision == 0 || now.revision == mark.revision) {
        if (mark.revision == 0 || EtcdSeen::checksum_of(now.text) == mark.checksum) return {};
        return fail(Errc::kStale, "etcd has another past than this host has seen: it was restored");
    }
    // A restored one that has gone on since: what was seen was never there.
    const auto past =
        ask(kRange, range_of(keys.state()).set("revision", text_of(mark.revision)), until);
    if (!past && past.error().code == Errc::kLost) return {};  // compacted: it can not be told
    if (!past) return fail(past.error());
    TRY_ASSIGN(const Shown then, shown((*past)["header"], *past));
    if (then.revision == mark.revision && EtcdSeen::checksum_of(then.text) == mark.checksum)
        return {};
    return fail(Errc::kStale, "etcd has another past than this host has seen: it was restored");
}

Result<void> EtcdRows::Impl::refresh(TimePoint until) {
    if (in_doubt) {
        TRY_ASSIGN(const auto lock, take_turn(until));
        TRY(settle(until));
    }
    const std::uint64_t floor = mirror->state();
    TRY_ASSIGN(const Json answer, ask(kRange, range_of(keys.state()), until));
    TRY_ASSIGN(const Shown now, shown(answer["header"], answer));
    const bool same_cluster = now.cluster == cluster;
    if (same_cluster && now.revision >= floor && now.revision == mirror->state()) return {};
    TRY_ASSIGN(const auto lock, take_turn(until));
    if (same_cluster && now.revision >= floor && now.revision <= mirror->state()) return {};
    TRY(not_restored(now, floor, until));
    return catch_up(until);
}

Result<Mirrored> EtcdRows::Impl::read_rows(const Json& range_answer) {
    TRY_ASSIGN(const auto found, found_in(range_answer));
    Mirrored rows;
    for (const FoundKey& one : found) {
        const Table* const table = keys.table_of_key(one.key);
        if (table == nullptr) {
            log::error("etcd: the key {} is none of ublkd's", api::Json(one.key).dump());
            return fail(Errc::kCorrupt, "a row in etcd is none of ublkd's");
        }
        auto row = read_row(*table, one.value, one.revision);
        if (!row || keys.row(*table, key_of(*table, *row)) != one.key) {
            log::error("etcd: what the key {} has is no row of its table", one.key);
            return fail(Errc::kCorrupt, "a row in etcd is none of ublkd's");
        }
        rows.puts.push_back({table, std::move(*row)});
    }
    return rows;
}

Result<void> EtcdRows::Impl::adopt(const Shown& now, const EtcdState& state,
                                   const Mirrored& changes, bool anew) {
    TRY(mirror->apply(now.revision, changes, anew));
    tail = state;
    seen.see(now.cluster, now.revision, now.text);
    cluster = now.cluster;
    return {};
}

Result<void> EtcdRows::Impl::catch_up(TimePoint until) {
    const std::uint64_t floor = mirror->state();
    if (floor == 0) return load(until);
    const Json changed = range_of(keys.rows_begin())
                             .set("range_end", to_base64(keys.rows_end()))
                             .set("min_mod_revision", text_of(floor + 1))
                             .set("limit", text_of(kPage));
    const Json both = Json::array()
                          .push(Json::object().set("request_range", range_of(keys.state())))
                          .push(Json::object().set("request_range", changed));
    TRY_ASSIGN(const Json answer, ask(kTxn, Json::object().set("success", both), until));
    const auto& parts = answer["responses"].items();
    if (parts.size() != 2) return no_etcd();
    TRY_ASSIGN(const Shown now, shown(answer["header"], parts[0]["response_range"]));
    TRY(not_restored(now, floor, until));
    if (now.revision == floor) return {};
    TRY_ASSIGN(const EtcdState state, read_state(now.text));
    const Json& rows = parts[1]["response_range"];
    if (rows["more"].as_bool() || state.since > tail.commits) return load(until);
    TRY_ASSIGN(Mirrored changes, read_rows(rows));
    for (const auto& erased : state.erased) {
        // One that was made again is among the rows: apply() erases before it puts.
        if (erased.commit > tail.commits) changes.erased.push_back({erased.table, erased.key});
    }
    return adopt(now, state, changes, false);
}

Result<void> EtcdRows::Impl::load(TimePoint until) {
    for (;;) {
        const auto done = load_pages(until);
        // Compacted in between: from the beginning.
        if (done || done.error().code != Errc::kLost) return done;
        if (steady_clock::now() >= until)
            return fail(Errc::kTimedOut, "etcd compacts faster than its rows are read");
    }
}

/// All rows of one revision, page by page.
Result<void> EtcdRows::Impl::load_pages(TimePoint until) {
    TRY_ASSIGN(const Json first, ask(kRange, range_of(keys.state()), until));
    TRY_ASSIGN(const Shown now, shown(first["header"], first));
    TRY(not_restored(now, mirror->state(), until));
    if (now.revision == 0) return {};
    TRY_ASSIGN(const EtcdState state, read_state(now.text));
    Mirrored all;
    std::string from = keys.rows_begin();
    for (bool more = true; more;) {
        // As it was with that state, whatever has come since.
        const Json page = range_of(from)
                              .set("range_end", to_base64(keys.rows_end()))
                              .set("revision", text_of(now.revision))
                              .set("limit", text_of(kPage));
        TRY_ASSIGN(const Json answer, ask(kRange, page, until));
        TRY_ASSIGN(Mirrored rows, read_rows(answer));
        more = answer["more"].as_bool();
        if (more && rows.puts.empty()) return no_etcd();
        if (more) {
            const auto& last = rows.puts.back();
            from = keys.row(*last.table, key_of(*last.table, last.row)) + '\0';
        }
        std::ranges::move(rows.puts, std::back_inserter(all.puts));
    }
    return adopt(now, state, all, true);
}

/// Until no commit whose answer was lost, of this process or of one before it, can be made any
/// more.
Result<void> EtcdRows::Impl::settle(TimePoint until) {
    while (in_doubt) {
        TRY(catch_up(until));
        const bool moved_on = lost && mirror->state() != *lost;
        if (moved_on || faults::rule_off("rule.etcd_lost_is_over")) {
            in_doubt = false;
            break;
        }
        // It goes by the state that is still there: that becomes another one.
        lost = mirror->state();
        TRY_ASSIGN(const Sent done, send({}, until));
        if (done.made) in_doubt = false;
        if (steady_clock::now() >= until)
            return fail(Errc::kClosed, "others change etcd faster than this host");
    }
    return {};
}

/// One Txn, by the mirror's state. Not made: that is not etcd's any more. kIo, kTimedOut: unknown.
Result<EtcdRows::Impl::Sent> EtcdRows::Impl::send(const std::vector<Change>& changes,
                                                  TimePoint until) {
    const std::uint64_t before = mirror->state();
    const auto outcome = outcome_of(changes);
    EtcdState next = tail;
    ++next.commits;
    next.by = fmt::format("{:016x}-{}", process, ++sent);
    Json steps = Json::array();
    Mirrored mirrored;
    for (const auto& [key, row] : outcome) {
        const Table* const table = key.first;
        const std::string name = keys.row(*table, key.second);
        if (row != nullptr) {
            steps.push(put_key(name, row_text(*table, *row)));
            mirrored.puts.push_back({table, *row});
        } else {
            steps.push(erase_key(name));
            mirrored.erased.push_back({table, key.second});
            next.erased.push_back({next.commits, table, key.second});
        }
    }
    while (next.erased.size() > kErasedKept) {
        next.since = next.erased.front().commit;
        next.erased.pop_front();
    }
    const std::string state = state_text(next);
    const std::string own = keys.client(seen.mark().client);
    steps.push(put_key(keys.state(), state)).push(put_key(own, next.by));
    Json body = Json::object();
    if (!faults::rule_off("rule.etcd_state_compared"))
        body.set("compare", if_unchanged(keys.state(), before));
    body.set("success", std::move(steps));
    body.set("failure", Json::array().push(Json::object().set("request_range", range_of(own))));
    if (const int error = faults::hit("etcd.before_commit"))
        return fail_errno(error, "commit to etcd");
    bool unsure = false;
    const auto answer = client->call(kTxn, body, until, &unsure);
    if (!answer) {
        if (!unsure) return fail(answer.error());
        lost = before;
        in_doubt = true;
        return fail(Errc::kTimedOut, "no answer from etcd: whether it was done is not known");
    }
    faults::hit("etcd.after_commit");
    if ((*answer)["succeeded"].as_bool()) {
        const Json& header = (*answer)["header"];
        const std::uint64_t known = seen.mark().cluster;  // another one is found out by who reads
        const Shown now{known != 0 ? known : number_of(header["cluster_id"]),
                        number_of(header["revision"]), state};
        for (auto& one : mirrored.puts) one.row.revision = now.revision;
        TRY(adopt(now, next, mirrored, false));
        return Sent{true, now.revision};
    }
    // It may be because an earlier attempt of this very Txn was made.
    const auto& parts = (*answer)["responses"].items();
    if (parts.empty()) return no_etcd();
    TRY_ASSIGN(const auto by, found_in(parts[0]["response_range"]));
    return Sent{!by.empty() && by.front().value == next.by, before};
}

Result<Checked> EtcdRows::Impl::commit(const Observed& observed, TimePoint until) {
    TRY_ASSIGN(const auto lock, take_turn(until));
    TRY(settle(until));
    for (;;) {
        TRY_ASSIGN(Checked checked, local.check(observed));
        if (!checked.same) return checked;
        TRY_ASSIGN(const Sent done, send(observed.changes, until));
        if (done.made) {
            checked.state = done.state;
            return checked;
        }
        if (steady_clock::now() >= until)
            return fail(Errc::kBusy, "metadata: others changed etcd, again and again");
        TRY(catch_up(until));
    }
}

EtcdRows::EtcdRows(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EtcdRows::~EtcdRows() = default;

Result<std::unique_ptr<EtcdRows>> EtcdRows::make(const EtcdOptions& options) {
    TRY_ASSIGN(auto client, EtcdClient::make(options.access));
    TRY_ASSIGN(auto mirror, Mirror::make());
    TRY_ASSIGN(auto seen, EtcdSeen::open(options.seen_file));
    return std::unique_ptr<EtcdRows>(new EtcdRows(
        std::make_unique<Impl>(options, std::move(client), std::move(mirror), std::move(seen))));
}

Result<Rows> EtcdRows::list(const Table& table, const Query& query) {
    TRY(impl_->refresh(steady_clock::now() + impl_->options.deadline));
    return impl_->local.list(table, query);
}

Result<Trial> EtcdRows::try_last(const std::vector<Change>& changes) {
    TRY(impl_->refresh(steady_clock::now() + impl_->options.deadline));
    return impl_->local.try_last(changes);
}

Result<Checked> EtcdRows::check(const Observed& observed) {
    TRY(impl_->refresh(steady_clock::now() + impl_->options.deadline));
    return impl_->local.check(observed);
}

Result<Checked> EtcdRows::commit(const Observed& observed) {
    return impl_->commit(observed, steady_clock::now() + impl_->options.deadline);
}

}  // namespace ublkd::metadata
