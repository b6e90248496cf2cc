// An NBD server over memory, for the interop tests and the bench: no daemon, no disk.
//   nbd_test_server --unix PATH [--tcp PORT] [--export NAME=MIB]... [--logical BYTES] [--read-only]
// Prints "ready" (and the TCP port) when it listens; ends on SIGTERM or SIGINT.
// With LISTEN_FDS it serves the sockets given to it.
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>

#include "ublkd/block/memory_device.h"
#include "ublkd/front/nbd/nbd_server.h"

namespace {

using namespace ublkd;

struct Arguments {
    std::string unix_path;
    int tcp_port = -1;
    std::map<std::string, std::uint64_t> exports;  // name -> bytes
    std::uint32_t logical_block_bytes = kSectorBytes;
    bool read_only = false;
};

class MemoryDirectory final : public front::nbd::ExportDirectory {
  public:
    MemoryDirectory(io::Reactor* reactor, const Arguments& arguments) : reactor_(reactor) {
        for (const auto& [name, bytes] : arguments.exports) {
            block::Geometry geometry;
            geometry.size_bytes = bytes;
            geometry.logical_block_bytes = arguments.logical_block_bytes;
            geometry.read_only = arguments.read_only;
            devices_[name] = std::make_unique<block::MemoryDevice>(geometry);
        }
    }
    std::vector<std::string> list() override {
        std::vector<std::string> names;
        for (const auto& entry : devices_) names.push_back(entry.first);
        return names;
    }
    io::Task<Result<front::nbd::ExportInfo>> describe(const std::string& name) override {
        const auto found = devices_.find(name.empty() ? devices_.begin()->first : name);
        if (found == devices_.end()) co_return fail(Errc::kNotFound, "export");
        co_return front::nbd::ExportInfo{found->first, "in memory", found->second->geometry()};
    }
    io::Task<Result<front::nbd::Export>> open(const std::string& name) override {
        auto info = co_await describe(name);
        if (!info) co_return fail(info.error());
        front::nbd::Export opened;
        opened.info = *info;
        opened.device = devices_.find(info->name)->second.get();
        opened.home = reactor_;
        co_return opened;
    }

  private:
    io::Reactor* reactor_;
    std::map<std::string, std::unique_ptr<block::MemoryDevice>> devices_;
};

bool parse(int argc, char** argv, Arguments& arguments) {
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        const bool has_value = i + 1 < argc;
        if (option == "--unix" && has_value) {
            arguments.unix_path = argv[++i];
        } else if (option == "--tcp" && has_value) {
            arguments.tcp_port = std::atoi(argv[++i]);
        } else if (option == "--logical" && has_value) {
            arguments.logical_block_bytes = static_cast<std::uint32_t>(std::atoi(argv[++i]));
        } else if (option == "--read-only") {
            arguments.read_only = true;
        } else if (option == "--export" && has_value) {
            const std::string value = argv[++i];
            const auto equals = value.find('=');
            if (equals == std::string::npos) return false;
            arguments.exports[value.substr(0, equals)] =
                std::strtoull(value.c_str() + equals + 1, nullptr, 10) * kMiB;
        } else {
            return false;
        }
    }
    if (arguments.exports.empty()) arguments.exports["memory"] = 64 * kMiB;
    return true;
}

io::Task<void> wait_for_signal(io::Reactor* reactor, int signals) {
    (void)co_await reactor->poll(io::FdRef{signals, -1}, POLLIN);
}

int serve(const Arguments& arguments, int signals) {
    auto reactor = io::Reactor::create();
    auto buffers = io::BufferPool::create(64 * kMiB);
    if (!reactor || !buffers) return 1;
    MemoryDirectory directory(reactor->get(), arguments);
    front::nbd::NbdServer server(reactor->get(), buffers->get(), &directory);
    const auto activated = server.listen_activated();
    Result<void> listening;
    if (!activated) listening = fail(activated.error());
    if (listening && !arguments.unix_path.empty())
        listening = server.listen_unix(arguments.unix_path);
    if (listening && arguments.tcp_port >= 0) {
        const auto port =
            server.listen_tcp("127.0.0.1", static_cast<std::uint16_t>(arguments.tcp_port));
        if (port) {
            std::printf("port %u\n", *port);
        } else {
            listening = fail(port.error());
        }
    }
    if (!listening)
        std::fprintf(stderr, "nbd_test_server: %s\n", to_string(listening.error()).c_str());
    std::puts(listening ? "ready" : "failed");
    std::fflush(stdout);
    if (listening) (*reactor)->run_until_complete(wait_for_signal(reactor->get(), signals));
    (*reactor)->run_until_complete(server.stop());
    return listening ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    if (!parse(argc, argv, arguments)) {
        std::fprintf(stderr,
                     "usage: nbd_test_server --unix PATH [--tcp PORT] [--export NAME=MIB]... "
                     "[--logical BYTES] [--read-only]\n");
        return 2;
    }
    sigset_t stop_signals;
    sigemptyset(&stop_signals);
    sigaddset(&stop_signals, SIGTERM);
    sigaddset(&stop_signals, SIGINT);
    sigprocmask(SIG_BLOCK, &stop_signals, nullptr);
    return serve(arguments, signalfd(-1, &stop_signals, SFD_CLOEXEC));
}
