// The real daemon as a process of its own, with its state in a temporary folder: started, killed
// with SIGKILL, started again. It dies with the test. One owner, one thread.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

namespace ublkd::permission_test {

class Daemon {
  public:
    Daemon();
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    /// Kills it and removes the folder.
    ~Daemon();

    /// Starts it with these fault points (base/fault_injection.h), and waits for nothing.
    void launch(const std::string& faults = "");
    /// Launches it and waits until its API answers. False where it does not within 30 s; log() says
    /// why.
    [[nodiscard]] bool start(const std::string& faults = "");
    /// Makes the first pool, so that the API serves requests.
    [[nodiscard]] bool initialize();
    void kill_hard();  // SIGKILL, and waits for its end
    /// Whether it has ended by itself (a fault point's crash). Does not wait.
    bool has_died();
    /// The signal that ended it, 0 where it has not ended by one.
    int ended_by() const { return ended_by_; }

    const std::filesystem::path& folder() const { return folder_; }
    std::string socket() const { return folder_ / "api.sock"; }
    std::string log() const;

  private:
    std::filesystem::path folder_;
    pid_t process_ = -1;
    int ended_by_ = 0;
};

}  // namespace ublkd::permission_test
