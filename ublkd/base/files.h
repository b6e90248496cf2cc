// Small files, whole or not at all, durably. Blocking; no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ublkd/base/result.h"

namespace ublkd {

/// Suffix of what is half made: a crash may leave it beside the file.
inline constexpr const char* kMaking = ".making";

/// fsync(2) of the folder: its entries are durable.
Result<void> sync_folder(const std::string& path);
/// The parent of `path`, "." where it has none.
std::string parent_of(const std::string& path);
/// Replaces the file: another name, fsync, rename, fsync of the folder. Old or new after a crash.
Result<void> write_file_durably(const std::string& path, std::string_view content, unsigned mode);
/// ok where there is none.
Result<void> remove_file_durably(const std::string& path);
/// All of a file. kNotFound, kCorrupt (longer than `max_bytes`).
Result<std::string> read_file(const std::string& path, std::size_t max_bytes = SIZE_MAX);

}  // namespace ublkd
