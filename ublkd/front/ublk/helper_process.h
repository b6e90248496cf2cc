// Runs what may wait for one of our own devices in a child process that holds none of our
// descriptors. Were it a thread of ours, a SIGKILL could not end it while it waits for the device,
// so /dev/ublkcN would stay open, so no other server could take the device over: a deadlock of the
// machine's making. The child waits alone, and goes on when the next server serves.
#pragma once

#include <string>
#include <vector>

namespace ublkd::front::ublk {

// A child that does not end within ten seconds is left to itself (ETIMEDOUT). On a Worker only, all
// of these.

/// Writes `text` to an existing file. 0 or an errno.
int write_file_in_child(const std::string& path, const std::string& text);
/// Opens `path` read-only and exclusively, and closes it. 0 or an errno; EBUSY: somebody claims the
/// device.
int try_claim_in_child(const std::string& path);
/// Starts a program (looked up in PATH) without input or output, and does not wait for it. False
/// where there is none.
bool start_in_background(const std::vector<std::string>& command);

}  // namespace ublkd::front::ublk
