#include "tests/unit/metadata/etcd_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

namespace ublkd::metadata::test {
namespace {

/// Ports that nobody listens on now; all are held until the last one is known.
std::vector<std::uint16_t> free_ports(unsigned count) {
    std::vector<std::uint16_t> ports;
    std::vector<int> held;
    for (unsigned i = 0; i < count; ++i) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        held.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        auto* const any = reinterpret_cast<sockaddr*>(&address);
        EXPECT_EQ(::bind(held.back(), any, size), 0);
        EXPECT_EQ(::getsockname(held.back(), any, &size), 0);
        ports.push_back(ntohs(address.sin_port));
    }
    for (const int socket : held) ::close(socket);
    return ports;
}

std::vector<std::string> words_of(const std::string& text) {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find(' ', at), text.size());
        if (end > at) words.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return words;
}

pid_t launch(const std::vector<std::string>& words, const std::string& log) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::dup2(output, 1);
    ::dup2(output, 2);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
}

}  // namespace

std::string run_shell(const std::string& command) {
    FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
    std::string output;
    std::array<char, 4096> buffer{};
    while (const std::size_t got = ::fread(buffer.data(), 1, buffer.size(), pipe))
        output.append(buffer.data(), got);
    EXPECT_EQ(::pclose(pipe), 0) << command << "\n" << output;
    return output;
}

EtcdProcess::EtcdProcess(const EtcdSetup& setup) : setup_(setup), pids_(setup.members, -1) {
    const auto ports = free_ports(2 * setup.members);
    client_ports_.assign(ports.begin(), ports.begin() + setup.members);
    peer_ports_.assign(ports.begin() + setup.members, ports.end());
    if (setup.tls) make_certificates();
    for (unsigned member = 0; member < setup.members; ++member) start(member);
    for (unsigned member = 0; member < setup.members; ++member) wait_until_it_serves(member);
}

EtcdProcess::~EtcdProcess() {
    for (unsigned member = 0; member < setup_.members; ++member) kill(member);
}

std::string EtcdProcess::client_url(unsigned member) const {
    return fmt::format("{}://127.0.0.1:{}", setup_.tls ? "https" : "http", client_ports_[member]);
}

std::string EtcdProcess::peer_url(unsigned member) const {
    return fmt::format("http://127.0.0.1:{}", peer_ports_[member]);
}

std::string EtcdProcess::all_peers() const {
    std::vector<std::string> peers;
    for (unsigned member = 0; member < setup_.members; ++member)
        peers.push_back(fmt::format("m{}={}", member, peer_url(member)));
    return fmt::format("{}", fmt::join(peers, ","));
}

void EtcdProcess::make_certificates() {
    const std::string in = "cd " + folder() + " && ";
    run_shell(in +
              "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
              "-keyout ca.key -out ca.pem -subj /CN=ca");
    for (const char* name : {"server", "client"}) {
        run_shell(in + fmt::format("openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
                                   "-nodes -keyout {0}.key -out {0}.csr -subj /O={0} && "
                                   "printf 'subjectAltName=IP:127.0.0.1\\n"
                                   "extendedKeyUsage=serverAuth,clientAuth\\n' > {0}.ext && "
                                   "openssl x509 -req -in {0}.csr -CA ca.pem -CAkey ca.key -days 2 "
                                   "-CAcreateserial -extfile {0}.ext -out {0}.pem",
                                   name));
    }
}

std::string EtcdProcess::tls_flags() const {
    if (!setup_.tls) return "";
    return fmt::format(
        "--cert-file {0}/server.pem --key-file {0}/server.key --trusted-ca-file {0}/ca.pem "
        "--client-cert-auth",
        folder());
}

EtcdAccess EtcdProcess::access() const {
    std::vector<unsigned> all;
    for (unsigned member = 0; member < setup_.members; ++member) all.push_back(member);
    return access(all);
}

EtcdAccess EtcdProcess::access(const std::vector<unsigned>& members) const {
    EtcdAccess made;
    for (const unsigned member : members) made.endpoints.push_back(client_url(member));
    if (!setup_.tls) return made;
    made.ca = file("ca.pem");
    made.certificate = file("client.pem");
    made.key = file("client.key");
    return made;
}

void EtcdProcess::kill(unsigned member) {
    if (pids_[member] < 0) return;
    ::kill(pids_[member], SIGKILL);
    ::waitpid(pids_[member], nullptr, 0);
    pids_[member] = -1;
}

void EtcdProcess::start(unsigned member) {
    // A fast election; room for the suite's transaction of 10,000 events.
    auto words = words_of(fmt::format(
        "etcd --name m{0} --data-dir {1}/m{0} --listen-client-urls {2} --advertise-client-urls {2} "
        "--listen-peer-urls {3} --initial-advertise-peer-urls {3} --initial-cluster {4} "
        "--heartbeat-interval 20 --election-timeout 200 {5}",
        member, folder(), client_url(member), peer_url(member), all_peers(), tls_flags()));
    words.insert(words.end(), setup_.flags.begin(), setup_.flags.end());
    pids_[member] = launch(words, file(fmt::format("m{}.log", member)));
}

void EtcdProcess::signal(int number, unsigned member) { ::kill(pids_[member], number); }

void EtcdProcess::wait_until_it_serves(unsigned member) {
    const auto client = *EtcdClient::make(access({member}));
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (;;) {
        bool unsure = false;
        const auto answer = client->call(
            "/v3/kv/range", api::Json::object().set("key", to_base64("serves?")),
            std::min(until, std::chrono::steady_clock::now() + std::chrono::seconds(1)), &unsure);
        // One that wants a user serves.
        if (answer || answer.error().code == Errc::kNotPermitted) return;
        if (std::chrono::steady_clock::now() >= until) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    FAIL() << "etcd does not serve:\n"
           << run_shell("tail -n 20 " + file(fmt::format("m{}.log", member)));
}

std::string EtcdProcess::control(const std::string& arguments, unsigned member) {
    std::string tls;
    if (setup_.tls)
        tls = fmt::format("--cacert {0}/ca.pem --cert {0}/client.pem --key {0}/client.key ",
                          folder());
    return run_shell(fmt::format("ETCDCTL_API=3 etcdctl --endpoints {} {}{}", client_url(member),
                                 tls, arguments));
}

unsigned EtcdProcess::leader() {
    for (unsigned member = 0; member < setup_.members; ++member) {
        if (pids_[member] < 0) continue;
        const auto fields = control("endpoint status -w fields", member);
        const auto value = [&](const std::string& name) {
            const auto at = fields.find("\"" + name + "\" : ");
            return fields.substr(at + name.size() + 5,
                                 fields.find('\n', at) - at - name.size() - 5);
        };
        if (value("Leader") == value("MemberID")) return member;
    }
    ADD_FAILURE() << "no leader";
    return 0;
}

void EtcdProcess::restore(const std::string& snapshot, const std::string& cluster_token) {
    for (unsigned member = 0; member < setup_.members; ++member) kill(member);
    for (unsigned member = 0; member < setup_.members; ++member) {
        run_shell(
            fmt::format("rm -rf {0}/m{1} && ETCDCTL_API=3 etcdctl snapshot restore {2} "
                        "--name m{1} --data-dir {0}/m{1} --initial-cluster {3} "
                        "--initial-advertise-peer-urls {4} --initial-cluster-token {5}",
                        folder(), member, snapshot, all_peers(), peer_url(member), cluster_token));
        start(member);
    }
    for (unsigned member = 0; member < setup_.members; ++member) wait_until_it_serves(member);
}

}  // namespace ublkd::metadata::test
