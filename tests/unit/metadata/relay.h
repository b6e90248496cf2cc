// A TCP port of this machine that is joined to a unix socket, as a tunnel is, and the faults of the
// way between the two: answers that are lost, that never come, that are something else.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace ublkd::metadata::test {

class Relay {
  public:
    enum class Fault {
        kNone,
        kLoseCommit,  // the next commit goes through; its connection ends instead of the answer
        kSilent,      // requests arrive, nothing else happens
        kGarbage      // `garbage` is the answer, and the server hears nothing
    };

    explicit Relay(std::string socket);
    Relay(const Relay&) = delete;
    Relay& operator=(const Relay&) = delete;
    ~Relay();

    std::string address() const { return "http://127.0.0.1:" + std::to_string(port_); }
    void set(Fault fault, std::string garbage = "");
    /// Connections that were made.
    unsigned connections() const { return connections_; }

  private:
    void accept_all();
    void serve(int client);
    bool answer(int client, int server, const std::string& request);

    const std::string socket_;
    int listening_ = -1;
    std::uint16_t port_ = 0;
    std::atomic<unsigned> connections_ = 0;
    std::mutex mutex_;
    Fault fault_ = Fault::kNone;
    std::string garbage_;
    std::set<int> open_;
    std::vector<std::thread> threads_;
    std::thread accepting_;
};

}  // namespace ublkd::metadata::test
