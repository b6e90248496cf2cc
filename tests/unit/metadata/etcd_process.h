// A private etcd of a test: one or several members on this machine's loopback, with ports that were
// free, their data in a folder that goes with it. A member that is killed is started again with the
// data it has.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "metadata/etcd/etcd_client.h"
#include "tests/unit/metadata/sqlite_fixture.h"

namespace ublkd::metadata::test {

struct EtcdSetup {
    unsigned members = 1;
    bool tls = false;                     // with client certificates
    std::vector<std::string> flags = {};  // more ones
};

class EtcdProcess {
  public:
    explicit EtcdProcess(const EtcdSetup& setup = {});
    EtcdProcess(const EtcdProcess&) = delete;
    EtcdProcess& operator=(const EtcdProcess&) = delete;
    ~EtcdProcess();

    /// How ublkd reaches all members, or those that are named.
    EtcdAccess access() const;
    EtcdAccess access(const std::vector<unsigned>& members) const;
    std::string folder() const { return folder_.path(); }
    std::string file(const std::string& name) const { return folder_.file(name); }

    void kill(unsigned member = 0);  // SIGKILL
    void start(unsigned member = 0);
    void signal(int number, unsigned member = 0);
    /// Until one answers, at most 20 s.
    void wait_until_it_serves(unsigned member = 0);
    unsigned leader();
    /// What etcdctl prints; a failure is one of the test.
    std::string control(const std::string& arguments, unsigned member = 0);
    /// Away with the data: from what `snapshot` has, as an operator does it.
    void restore(const std::string& snapshot, const std::string& cluster_token = "restored");

  private:
    std::string client_url(unsigned member) const;
    std::string peer_url(unsigned member) const;
    std::string all_peers() const;
    std::string tls_flags() const;
    void make_certificates();

    const EtcdSetup setup_;
    TemporaryFolder folder_;
    std::vector<std::uint16_t> client_ports_, peer_ports_;
    std::vector<pid_t> pids_;
};

/// Runs `command` by the shell; its output. A failure is one of the test.
std::string run_shell(const std::string& command);

}  // namespace ublkd::metadata::test
