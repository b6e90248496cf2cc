// The schema of the SQLite databases of this folder, and how one comes to it. No state.
// docs/metadata.md.
#pragma once

#include <cstdint>

#include "metadata/sqlite_database.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

inline constexpr std::int64_t kApplicationId = 0x75626c6b;  // "ublk", in the file's header

/// The newest schema that this build knows (and makes).
int newest_schema();
/// Brings `database` from `schema` (0: it is empty) to the newest one, each step whole or not at
/// all.
Result<void> migrate(SqliteDatabase& database, int schema);

}  // namespace ublkd::metadata
