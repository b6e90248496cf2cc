// Small things of the operating system that the daemon needs: the boot's id, folders, the service
// manager. Blocking; no state.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "ublkd/base/result.h"
#include "ublkd/front/ublk/mount_table.h"

namespace ublkd::daemon {

/// Of this boot: /proc/sys/kernel/random/boot_id.
std::array<std::byte, 16> boot_id();
std::string boot_id_text();

/// With its parents; the last one gets `mode` where it is made here.
Result<void> make_folder(const std::string& path, unsigned mode);
/// Empties `path` if it was last used in another boot (its file boot_id says): what lives in it
/// lives as long as the boot.
Result<void> renew_run_folder(const std::string& path);

/// The failure domain of a pool for which none was given: the disk below its file system
/// ("disk:sda"), or the file system itself where no disk is known ("fs:0:45").
Result<std::string> domain_of(const std::string& folder);

/// What is to be said of a pool on `mount`; "": nothing. On ext4 without lazytime a disk that hangs
/// holds up its whole reactor (docs/volume.md).
std::string mount_warning(const front::ublk::Mount& mount);
/// Of the one below `folder`. Asks no disk.
std::string mount_warning_of(const std::string& folder);

/// As many open files as are permitted: the soft limit of 1024 is what old programs expect, and a
/// volume has four to ten. Before any thread is made.
void raise_limit_of_open_files();

/// Tells the service manager (NOTIFY_SOCKET), where there is one: "READY=1", "STOPPING=1",
/// "STATUS=...".
void notify_service_manager(std::string_view state);

}  // namespace ublkd::daemon
