// A TCP port of this machine before an etcd, and what may become of a commit on its way: held until
// it is let go, whoever has given it up meanwhile, or made with its answer lost.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace ublkd::metadata::test {

class EtcdRelay {
  public:
    explicit EtcdRelay(std::uint16_t etcd_port);
    EtcdRelay(const EtcdRelay&) = delete;
    EtcdRelay& operator=(const EtcdRelay&) = delete;
    ~EtcdRelay();

    std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }
    /// Each commit that comes from now on waits for let_go(); with false, those that come pass.
    void hold(bool held) { hold_ = held; }
    /// Until one is held.
    void wait_for_held();
    /// What is held goes on; returns when etcd has answered all of it.
    void let_go();
    /// The next commit's answer does not come back.
    void lose_answer() { lose_ = true; }

  private:
    void serve(int client);
    void pass_commit(int server, const std::string& request);

    const std::uint16_t etcd_port_;
    int listening_ = -1;
    std::uint16_t port_ = 0;
    std::atomic<bool> hold_ = false, lose_ = false, ended_ = false;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool released_ = false;
    unsigned held_ = 0;
    std::vector<std::jthread> threads_;  // guarded by mutex_
    std::jthread accepting_;
};

}  // namespace ublkd::metadata::test
