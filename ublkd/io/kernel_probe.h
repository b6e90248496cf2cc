// What this machine's io_uring does, asked by trying it, never by the kernel's version.
// Thread-safe; asked once a process.
#pragma once

namespace ublkd::io {

/// True where a file taken out of a ring's table is closed when its own requests are over. Linux
/// before 6.13 closes such files in the order in which they left the table, each only after all
/// requests on any registered file that were begun before: one request that waits for long (a ublk
/// tag, a listener) keeps every later file open, with its locks, and the removal of other ublk
/// devices waiting. There, no file goes into the table.
bool registered_files_close_at_once();

}  // namespace ublkd::io
