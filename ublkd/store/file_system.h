// Folders and small files, durably: what the pool and a replica's making need of the file system.
// Blocking calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ublkd/base/result.h"

namespace ublkd::store::fs {

/// Suffixes of what is half made or half removed; swept when the pool is opened.
inline constexpr const char* kMaking = ".making";
inline constexpr const char* kRemoving = ".removing";

Result<void> make_folder(
    const std::string& path);  // kExists, kNotFound (the parent), kNotPermitted...
bool exists(const std::string& path);
/// fsync(2) of the folder: its entries are durable.
Result<void> sync_folder(const std::string& path);
/// Opens the folder and flock(2)s it without waiting; the descriptor holds the lock. kBusy,
/// kNotFound.
Result<int> lock_folder(const std::string& path);
/// The names in it, without . and .., in order.
Result<std::vector<std::string>> list(const std::string& path);
/// Deletes the files in the folder, and the folder; it has no folders inside. ok where there is
/// none.
Result<void> remove_flat_folder(const std::string& path);
/// The parent of `path`, "." where it has none.
std::string parent_of(const std::string& path);
std::string name_of(const std::string& path);
/// Replaces the file durably: another name, fsync, rename, fsync of the folder. Old or new after a
/// crash.
Result<void> write_file(const std::string& path, std::span<const std::byte> bytes);
/// All of a file of at most `max_bytes`. kNotFound, kCorrupt (longer).
Result<std::vector<std::byte>> read_file(const std::string& path, std::size_t max_bytes);

}  // namespace ublkd::store::fs
