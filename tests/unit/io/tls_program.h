// The openssl program as the other side of a connection: one that we did not write.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ublkd/io/socket.h"

namespace ublkd::io {

/// Killed and waited for at the end.
class Program {
  public:
    /// `input`, `output`: descriptors that become its own; stay the caller's.
    Program(const std::vector<std::string>& arguments, int input, int output);
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;
    ~Program();
    /// Its exit status, or -1 where it does not end within 10 s.
    int wait();

  private:
    int pid_;
    bool ended_ = false;
};

/// `openssl s_client` as the other end of `server`. Its standard input is the file `folder`/input
/// where there is one; what it gets is in `folder`/output.
std::unique_ptr<Program> s_client(Reactor* reactor, Socket* server, const std::string& folder,
                                  const std::vector<std::string>& more);
/// `openssl s_server` for one connection, which sends each line back in reverse.
std::unique_ptr<Program> s_server(const std::string& folder, const std::vector<std::string>& more,
                                  std::uint16_t* port);

}  // namespace ublkd::io
