#include "metadata/etcd/etcd_filler.h"

#include <fmt/format.h>

#include <map>

#include "metadata/etcd/etcd_json.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/ids.h"

namespace ublkd::metadata {
namespace {

using api::Json;

constexpr std::size_t kRowsOfOne = 100;  // of one Txn: etcd takes 128 steps

/// Each row's key and value.
std::map<std::string, std::string> texts_of(const EtcdKeys& keys, const AllRows& rows) {
    std::map<std::string, std::string> texts;
    for (const TableRows& one : rows.tables) {
        for (const Row& row : one.rows)
            texts.emplace(keys.row(*one.table, key_of(*one.table, row)), row_text(*one.table, row));
    }
    return texts;
}

Json erase_range(const std::string& from, const std::string& to) {
    return Json::object().set("request_delete_range",
                              range_of(from).set("range_end", to_base64(to)));
}

}  // namespace

Result<EtcdFiller> EtcdFiller::make(const EtcdOptions& options) {
    TRY_ASSIGN(auto client, EtcdClient::make(options.access));
    return EtcdFiller(EtcdKeys(options.prefix), std::move(client), options.deadline);
}

Result<Json> EtcdFiller::call(const char* path, const Json& body) {
    bool unsure = false;  // each may be done twice
    return client_->call(path, body, std::chrono::steady_clock::now() + deadline_, &unsure);
}

Result<EtcdThere> EtcdFiller::look() {
    TRY_ASSIGN(const Json answer, call(kRange, range_of(keys_.state())));
    TRY_ASSIGN(const auto found, found_in(answer));
    EtcdThere there;
    if (found.empty()) return there;
    TRY_ASSIGN(there, read_there(found.front().value));
    there.revision = found.front().revision;
    return there;
}

Result<std::uint64_t> EtcdFiller::set_state(const std::string& text, std::uint64_t revision,
                                            Json steps) {
    steps.push(put_key(keys_.state(), text));
    TRY(call(kTxn, Json::object()
                       .set("compare", if_unchanged(keys_.state(), revision))
                       .set("success", std::move(steps))));
    // Not by the answer: it may be that of a second attempt, which finds the first one's.
    TRY_ASSIGN(const Json answer, call(kRange, range_of(keys_.state())));
    TRY_ASSIGN(const auto found, found_in(answer));
    if (found.empty() || found.front().value != text)
        return fail(Errc::kConflict, "others changed the metadata in etcd meanwhile");
    return found.front().revision;
}

Result<void> EtcdFiller::put_rows(const AllRows& rows, std::uint64_t revision) {
    Json steps = Json::array();
    std::size_t count = 0;
    const auto send = [&]() -> Result<void> {
        if (count == 0) return {};
        (void)faults::hit("etcd.fill.rows");
        TRY_ASSIGN(const Json answer,
                   call(kTxn, Json::object()
                                  .set("compare", if_unchanged(keys_.state(), revision))
                                  .set("success", std::move(steps))));
        if (!answer["succeeded"].as_bool())
            return fail(Errc::kConflict, "others changed the metadata in etcd meanwhile");
        steps = Json::array();
        count = 0;
        return {};
    };
    for (const auto& [key, text] : texts_of(keys_, rows)) {
        steps.push(put_key(key, text));
        if (++count < kRowsOfOne) continue;
        TRY(send());
    }
    return send();
}

Result<void> EtcdFiller::compare(const AllRows& rows) {
    auto wanted = texts_of(keys_, rows);
    std::string from = keys_.rows_begin();
    for (bool more = true; more;) {
        TRY_ASSIGN(const Json answer,
                   call(kRange, range_of(from)
                                    .set("range_end", to_base64(keys_.rows_end()))
                                    .set("limit", text_of(kPage))));
        TRY_ASSIGN(const auto found, found_in(answer));
        for (const FoundKey& one : found) {
            const auto there = wanted.find(one.key);
            if (there == wanted.end() || there->second != one.value)
                return fail(Errc::kCorrupt, "etcd has other rows than it was given");
            wanted.erase(there);
        }
        more = answer["more"].as_bool() && !found.empty();
        if (more) from = found.back().key + '\0';
    }
    if (!wanted.empty()) return fail(Errc::kCorrupt, "etcd lacks rows that it was given");
    return {};
}

Result<void> EtcdFiller::fill(const AllRows& rows, const std::string& by, bool replace) {
    TRY_ASSIGN(const EtcdThere there, look());
    if (there.is_store && !replace)
        return fail(Errc::kExists, "there are metadata in etcd already");
    if (!there.is_store && there.revision != 0 && there.by != by && !replace)
        return fail(Errc::kBusy, "another host fills in the metadata in etcd");
    // Hosts that have seen what was there find out that it is another now.
    EtcdThere next{.by = by, .attempt = random_u64(), .commits = there.commits + 1};
    TRY_ASSIGN(std::uint64_t revision,
               set_state(filling_text(next), there.revision,
                         Json::array().push(erase_range(keys_.rows_begin(), keys_.rows_end()))));
    (void)faults::hit("etcd.fill.begun");
    TRY(put_rows(rows, revision));
    TRY(compare(rows));
    next.whole = true;
    TRY_ASSIGN(revision, set_state(filling_text(next), revision, Json::array()));
    (void)faults::hit("etcd.fill.whole");
    return {};
}

Result<void> EtcdFiller::finish(const std::string& by) {
    TRY_ASSIGN(const EtcdThere there, look());
    if (there.is_store) return {};
    if (there.by != by || !there.whole)
        return fail(Errc::kNotFound, "the metadata in etcd are not filled in");
    EtcdState state;
    state.commits = state.since = there.commits + 1;
    state.by = by;
    TRY(set_state(state_text(state), there.revision, Json::array()));
    return {};
}

}  // namespace ublkd::metadata
