// A backup of the metadata as text: all rows of one state of a store, with a version and a
// checksum. Reading is strict: a damaged or truncated one is refused, and so is one of another
// schema. No state; any thread. docs/format-backup.md has it line by line.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "metadata/whole_store.h"

namespace ublkd::metadata {

inline constexpr std::size_t kBackupMax = std::size_t{1} << 30;

struct Backup {
    AllRows rows;
    std::string host;  // at which it was made
    std::uint64_t created_ms = 0;
};

std::string backup_text(const Backup& backup);
/// kCorrupt (no whole backup), kUnsupported (of another version).
Result<Backup> read_backup(std::string_view text);

}  // namespace ublkd::metadata
