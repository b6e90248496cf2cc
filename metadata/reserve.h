// Room on the state folder's file system that is kept for the next start: opening a database needs
// some (its log goes into it, an index is made), and a daemon that cannot start serves nobody. No
// state but the file.
#pragma once

#include <string>

namespace ublkd::metadata {

/// Makes the reserve, as large as there is room for. Best effort.
void keep_reserve(const std::string& path);
/// Gives it back to the file system. False where there was none.
bool release_reserve(const std::string& path);

}  // namespace ublkd::metadata
