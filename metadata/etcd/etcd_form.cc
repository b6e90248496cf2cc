#include "metadata/etcd/etcd_form.h"

#include <fmt/format.h>

#include "metadata/sqlite_schema.h"
#include "metadata/tables.h"
#include "ublkd/api/value_json.h"

namespace ublkd::metadata {
namespace {

using api::Json;

constexpr std::uint64_t kFilling = 0;  // a Format

const Table* table_named(std::string_view name) {
    for (const Table* table : all_tables()) {
        if (name == table->name) return table;
    }
    return nullptr;
}

bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

std::string key_part(const Value& value) {
    if (const auto* number = std::get_if<std::int64_t>(&value))
        return fmt::format("{:020}", *number);
    std::string part;
    const auto* text = std::get_if<std::string>(&value);
    for (const char c : text == nullptr ? std::string_view() : std::string_view(*text)) {
        if (is_plain(c))
            part += c;
        else
            part += fmt::format("%{:02x}", static_cast<unsigned char>(c));
    }
    return part;
}

std::unexpected<Error> no_state() {
    return fail(Errc::kCorrupt, "etcd's key of the state is none of ublkd's");
}

}  // namespace

std::string EtcdKeys::client(std::uint64_t id) const {
    return fmt::format("{}/clients/{:016x}", prefix_, id);
}

std::string EtcdKeys::row(const Table& table, std::span<const Value> key) const {
    std::string text = rows_begin() + table.name;
    for (const Value& value : key) text += "/" + key_part(value);
    return text;
}

const Table* EtcdKeys::table_of_key(std::string_view key) const {
    const std::string begin = rows_begin();
    if (!key.starts_with(begin)) return nullptr;
    key.remove_prefix(begin.size());
    return table_named(key.substr(0, key.find('/')));
}

std::string row_text(const Table& table, const Row& row) {
    return api::row_object(table, row).dump();
}

Result<Row> read_row(const Table& table, std::string_view text, std::uint64_t revision) {
    const auto json = Json::parse(text);
    auto row = json ? api::read_row_object(table, *json) : std::nullopt;
    if (!row) return fail(Errc::kCorrupt, "a row in etcd is none of ublkd's");
    row->revision = revision;
    return std::move(*row);
}

std::string filling_text(const EtcdThere& filling) {
    return Json::object()
        .set("Format", kFilling)
        .set("Filling", filling.by)
        .set("Attempt", fmt::format("{:016x}", filling.attempt))
        .set("Whole", filling.whole)
        .set("Commits", filling.commits)
        .dump();
}

Result<EtcdThere> read_there(std::string_view text) {
    const auto json = Json::parse(text);
    if (!json || !(*json)["Format"].is_number()) return no_state();
    EtcdThere there;
    there.is_store = (*json)["Format"].u64() != kFilling;
    there.by = (*json)["Filling"].as_string();
    there.whole = (*json)["Whole"].as_bool();
    there.commits = (*json)["Commits"].u64();
    return there;
}

std::string state_text(const EtcdState& state) {
    Json erased = Json::array();
    for (const auto& one : state.erased) {
        Json json = Json::array().push(one.commit).push(one.table->name);
        for (const Value& part : one.key) json.push(api::value_json(part));
        erased.push(std::move(json));
    }
    return Json::object()
        .set("Format", kEtcdFormat)
        .set("Schema", newest_schema())
        .set("Commits", state.commits)
        .set("By", state.by)
        .set("Since", state.since)
        .set("Erased", std::move(erased))
        .dump();
}

Result<EtcdState> read_state(std::string_view text) {
    const auto json = Json::parse(text);
    if (!json || !(*json)["Format"].is_number()) return no_state();
    if ((*json)["Format"].u64() == kFilling)
        return fail(Errc::kBusy,
                    "the metadata in etcd are being filled in, by a restore or a move to it");
    if (!(*json)["Schema"].is_number()) return no_state();
    if ((*json)["Format"].u64() != kEtcdFormat ||
        (*json)["Schema"].u64() != static_cast<std::uint64_t>(newest_schema()))
        return fail(Errc::kUnsupported,
                    "the metadata in etcd is of another version of ublkd: all hosts have the same");
    EtcdState state;
    state.commits = (*json)["Commits"].u64();
    state.since = (*json)["Since"].u64();
    state.by = (*json)["By"].as_string();
    for (const Json& one : (*json)["Erased"].items()) {
        EtcdState::Erased erased;
        const auto& parts = one.items();
        if (parts.size() < 3) return no_state();
        erased.commit = parts[0].u64();
        erased.table = table_named(parts[1].as_string());
        if (erased.table == nullptr || parts.size() != erased.table->key_columns + 2)
            return no_state();
        for (std::size_t i = 2; i < parts.size(); ++i) {
            auto value = api::read_value(parts[i]);
            if (!value) return no_state();
            erased.key.push_back(std::move(*value));
        }
        state.erased.push_back(std::move(erased));
    }
    if (state.commits == 0 || state.since > state.commits) return no_state();
    return state;
}

}  // namespace ublkd::metadata
