// A daemon that is on its way says so, from its first moment until it serves: who finds no socket
// waits for it then, and says at once that there is no daemon otherwise. It is a lock on the file
// SOCKET.starting, which ends with the process, however that ends. Owner: main.
#pragma once

#include <string>

#include "ublkd/base/fd.h"
#include "ublkd/daemon/configuration.h"

namespace ublkd::daemon {

class StartMark {
  public:
    /// Makes the folders of the state and of the sockets where they are missing. Where something
    /// cannot be done there is no mark: it is a help, and the start itself says what is wrong.
    explicit StartMark(const Configuration& configuration);
    StartMark(const StartMark&) = delete;
    StartMark& operator=(const StartMark&) = delete;
    ~StartMark();

  private:
    std::string path_;
    Fd file_;
};

}  // namespace ublkd::daemon
