// What keeps a machine from deadlocking on storage that one of its own processes serves: memory
// reclaim must not wait for us (PR_SET_IO_FLUSHER), we must not wait for swap (mlockall) nor be
// chosen by the OOM killer, and no file system on our own device may be ours to use or to unmount
// at exit (own mount namespace). Called by main before any thread is made: threads inherit all of
// it. Where something is not permitted the daemon warns and goes on.
#pragma once

#include <string>
#include <vector>

#include "ublkd/base/result.h"

namespace ublkd::front::ublk {

/// Applies all of it; gives one line for each part that could not be had (empty: all is in force).
std::vector<std::string> guard_process();
/// True where the calling thread is an I/O flusher (PR_GET_IO_FLUSHER).
bool is_io_flusher();
/// kInvalidArgument where `path` (of a state or pool folder that may not be there yet) lies on a
/// ublk device, also where guard_process() took that from this process's sight. kConflict where the
/// host has another file system there than this process sees.
Result<void> check_not_on_ublk(const std::string& path, const std::string& sys_folder = "/sys");

}  // namespace ublkd::front::ublk
