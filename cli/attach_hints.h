// What `attach` tells a person to do next, a line each. Plain functions; no state.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/api/json.h"

namespace ublkd::cli {

/// Where systemd looks for units.
inline constexpr std::string_view kUnitFolders[] = {
    "/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
    "/lib/systemd/system"};

/// Whether ublkd's unit is in one of the folders, so that a mount may wait for it.
bool has_unit(std::span<const std::string_view> folders = kUnitFolders);

/// `volume`: as it was named. `unit`: has_unit(); without one a line in /etc/fstab would wait for
/// nothing, and then fail.
std::vector<std::string> attach_hints(const api::Json& attachment, const std::string& volume,
                                      bool unit);

}  // namespace ublkd::cli
