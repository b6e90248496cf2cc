#include "metadata/backup/backup_file.h"

#include <fmt/format.h>

#include <span>

#include "metadata/sqlite_schema.h"
#include "metadata/tables.h"
#include "ublkd/api/value_json.h"
#include "ublkd/base/crc32c.h"

namespace ublkd::metadata {
namespace {

using api::Json;

constexpr const char* kFormat = "ublkd-backup";
constexpr std::uint64_t kVersion = 1;

std::string checksum_of(std::string_view text) {
    return fmt::format("{:08x}", crc32c(std::as_bytes(std::span(text))));
}

std::unexpected<Error> damaged() {
    return fail(Errc::kCorrupt, "it is no whole backup of ublkd's metadata: damaged or cut off");
}

/// The next line, without its end; `left` is what follows.
std::string_view take_line(std::string_view& left) {
    const auto end = left.find('\n');
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(end == std::string_view::npos ? left.size() : end + 1);
    return line;
}

/// What comes before the last line, which is its checksum.
Result<std::string_view> checked(std::string_view text) {
    if (!text.ends_with('\n')) return damaged();
    const auto before = text.substr(0, text.size() - 1).rfind('\n');
    if (before == std::string_view::npos) return damaged();
    const std::string_view body = text.substr(0, before + 1);
    const auto last = Json::parse(text.substr(before + 1));
    if (!last || (*last)["Crc32c"].as_string() != checksum_of(body)) return damaged();
    return body;
}

Result<std::size_t> read_head(std::string_view line, Backup& backup) {
    const auto head = Json::parse(line);
    if (!head || (*head)["Format"].as_string() != kFormat) return damaged();
    if ((*head)["Version"].u64() != kVersion ||
        (*head)["Schema"].u64() != static_cast<std::uint64_t>(newest_schema()))
        return fail(Errc::kUnsupported, "the backup is of another version of ublkd");
    backup.host = (*head)["Host"].as_string();
    backup.created_ms = (*head)["CreatedMs"].u64();
    backup.rows.state = (*head)["State"].u64();
    return (*head)["Rows"].u64();
}

Result<void> read_row_line(std::string_view line, AllRows& rows) {
    const auto json = Json::parse(line);
    if (!json) return damaged();
    for (TableRows& one : rows.tables) {
        if ((*json)["Table"].as_string() != one.table->name) continue;
        auto row = api::read_row_object(*one.table, (*json)["Row"]);
        if (!row) return damaged();
        one.rows.push_back(std::move(*row));
        return {};
    }
    return damaged();
}

}  // namespace

std::string backup_text(const Backup& backup) {
    std::string text = Json::object()
                           .set("Format", kFormat)
                           .set("Version", kVersion)
                           .set("Schema", newest_schema())
                           .set("Host", backup.host)
                           .set("CreatedMs", backup.created_ms)
                           .set("State", backup.rows.state)
                           .set("Rows", backup.rows.count())
                           .dump() +
                       "\n";
    for (const TableRows& one : backup.rows.tables) {
        for (const Row& row : one.rows) {
            text += Json::object()
                        .set("Table", one.table->name)
                        .set("Row", api::row_object(*one.table, row))
                        .dump() +
                    "\n";
        }
    }
    return text + Json::object().set("Crc32c", checksum_of(text)).dump() + "\n";
}

Result<Backup> read_backup(std::string_view text) {
    TRY_ASSIGN(std::string_view left, checked(text));
    Backup backup;
    for (const Table* table : all_tables()) backup.rows.tables.push_back({table, {}});
    TRY_ASSIGN(const std::size_t count, read_head(take_line(left), backup));
    while (!left.empty()) {
        TRY(read_row_line(take_line(left), backup.rows));
    }
    if (backup.rows.count() != count) return damaged();
    return backup;
}

}  // namespace ublkd::metadata
