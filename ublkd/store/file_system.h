// Folders: what the pool and a replica's making need of the file system.
// Blocking calls.
#pragma once

#include <string>
#include <vector>

#include "ublkd/base/fd.h"
#include "ublkd/base/files.h"
#include "ublkd/base/result.h"

namespace ublkd::store::fs {

/// Suffixes of what is half made (as in base/files.h) or half removed; swept when the pool is
/// opened.
using ublkd::kMaking;
inline constexpr const char* kRemoving = ".removing";

Result<void> make_folder(
    const std::string& path);  // kExists, kNotFound (the parent), kNotPermitted...
bool exists(const std::string& path);
/// Opens the folder and flock(2)s it without waiting; the descriptor holds the lock. kBusy,
/// kNotFound.
Result<Fd> lock_folder(const std::string& path);
/// The names in it, without . and .., in order.
Result<std::vector<std::string>> list(const std::string& path);
/// Deletes the files in the folder, and the folder; it has no folders inside. ok where there is
/// none.
Result<void> remove_flat_folder(const std::string& path);
std::string name_of(const std::string& path);

}  // namespace ublkd::store::fs
