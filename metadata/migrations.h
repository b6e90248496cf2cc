// The texts of metadata/migrations/*.sql: migrations()[n - 1] brings a database from schema n - 1
// to schema n. A file that was released is never changed; a change is a new file. Compiled in by
// metadata/CMakeLists.txt.
#pragma once

#include <span>

namespace ublkd::metadata {

std::span<const char* const> migrations();

}  // namespace ublkd::metadata
