// bench_volume_server --unix PATH --folder DIR --size BYTES
// Our NBD server over a volume of one replica in DIR, with the whole data path of the daemon
// (front, volume, replication, store) and an authority in memory, so that no control plane is
// needed to measure it. The export is named "bench". Prints "ready" when it listens; on SIGTERM the
// reactor's counters go to stderr.
#include <poll.h>
#include <sys/signalfd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "tests/bench/ublk_export.h"
#include "tests/suites/found_volume.h"
#include "ublkd/front/nbd/nbd_server.h"
#include "ublkd/volume/volume.h"

namespace {

using namespace ublkd;

class MemoryAuthority final : public replication::AuthorityClient {
  public:
    io::Task<Result<std::optional<replication::Membership>>> current(VolumeId) override {
        co_return held_;
    }
    io::Task<Result<replication::ProposalOutcome>> propose(
        replication::Proposal proposal) override {
        replication::ProposalOutcome outcome;
        outcome.verdict = replication::decide(held_, proposal);
        if (outcome.verdict == replication::Verdict::kAuthorized) held_ = proposal.next;
        outcome.current = *held_;
        co_return outcome;
    }

  private:
    std::optional<replication::Membership> held_;
};

class OneExport final : public front::nbd::ExportDirectory {
  public:
    OneExport(io::Reactor* reactor, io::BufferPool* buffers, block::BlockDevice* device)
        : reactor_(reactor), buffers_(buffers), device_(device) {}
    std::vector<std::string> list() override { return {"bench"}; }
    io::Task<Result<front::nbd::ExportInfo>> describe(const std::string& name) override {
        if (name != "bench") co_return fail(Errc::kNotFound, "export");
        co_return front::nbd::ExportInfo{"bench", "", device_->geometry()};
    }
    io::Task<Result<front::nbd::Export>> open(const std::string& name) override {
        auto info = co_await describe(name);
        if (!info) co_return fail(info.error());
        front::nbd::Export opened;
        opened.info = *info;
        opened.device = device_;
        opened.home = reactor_;
        opened.buffers = buffers_;
        co_return opened;
    }

  private:
    io::Reactor* reactor_;
    io::BufferPool* buffers_;
    block::BlockDevice* device_;
};

struct Arguments {
    std::string socket_path;
    std::string folder;
    std::uint64_t size_bytes = 0;
    bool ublk = false;
};

io::Task<void> wait_for_signal(io::Reactor* reactor, int signals) {
    (void)co_await reactor->poll(io::FdRef{signals, -1}, POLLIN);
}

volume::VolumeConfig config_of(const Arguments& arguments) {
    volume::VolumeConfig config;
    config.id = VolumeId{1};
    config.size_bytes = arguments.size_bytes;
    volume::ReplicaPlace place;
    place.member.replica = ReplicaId{2};
    place.folder = arguments.folder + "/" + ReplicaId{2}.to_string();
    config.replicas.push_back(place);
    return config;
}

io::Task<Result<void>> serve(io::Reactor* reactor, io::BufferPool* front_buffers,
                             io::BufferPool* store_buffers, const Arguments* arguments,
                             int signals) {
    MemoryAuthority authority;
    const volume::VolumeConfig config = config_of(*arguments);
    CO_TRY(co_await suites::found_volume(reactor, store_buffers, config, &authority));
    std::unique_ptr<volume::Volume> volume;
    CO_TRY_ASSIGN(volume, co_await volume::Volume::start(reactor, store_buffers, config, &authority,
                                                         nullptr));
    OneExport directory(reactor, front_buffers, volume.get());
    front::nbd::NbdServer server(reactor, front_buffers, &directory);
    bench::UblkExport ublk;
    Result<void> serving;
    if (!arguments->socket_path.empty()) serving = server.listen_unix(arguments->socket_path);
    if (serving && arguments->ublk)
        serving = co_await ublk.attach(reactor, front_buffers, volume.get());
    if (serving) {
        if (arguments->ublk) std::puts(ublk.path().c_str());
        std::puts("ready");
        std::fflush(stdout);
        co_await wait_for_signal(reactor, signals);
    }
    co_await ublk.detach();
    co_await server.stop();
    CO_TRY(co_await volume->stop());
    co_return serving;
}

}  // namespace

int main(int argc, char** argv) {
    Arguments arguments;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i];
        if (name == "--ublk") {
            arguments.ublk = true;
            continue;
        }
        if (++i == argc) break;
        if (name == "--unix") arguments.socket_path = argv[i];
        if (name == "--folder") arguments.folder = argv[i];
        if (name == "--size") arguments.size_bytes = std::strtoull(argv[i], nullptr, 10);
    }
    if ((arguments.socket_path.empty() && !arguments.ublk) || arguments.folder.empty() ||
        arguments.size_bytes == 0) {
        std::fprintf(
            stderr,
            "usage: bench_volume_server [--unix PATH] [--ublk] --folder DIR --size BYTES\n");
        return 2;
    }
    sigset_t stop_signals;
    sigemptyset(&stop_signals);
    sigaddset(&stop_signals, SIGTERM);
    sigaddset(&stop_signals, SIGINT);
    sigprocmask(SIG_BLOCK, &stop_signals, nullptr);
    auto reactor = io::Reactor::create();
    auto front_buffers = io::BufferPool::create(48 * kMiB);
    auto store_buffers = io::BufferPool::create(16 * kMiB);
    if (!reactor || !front_buffers || !store_buffers) return 1;
    const auto served = (*reactor)->run_until_complete(
        serve(reactor->get(), front_buffers->get(), store_buffers->get(), &arguments,
              signalfd(-1, &stop_signals, SFD_CLOEXEC)));
    if (!served)
        std::fprintf(stderr, "bench_volume_server: %s\n", to_string(served.error()).c_str());
    const io::ReactorStats& stats = (*reactor)->stats();
    std::fprintf(stderr,
                 "turns %lu enters %lu waits %lu submissions %lu completions %lu ready %lu hooks "
                 "%lu timers %lu full %lu\n",
                 stats.turns, stats.enters, stats.waits, stats.submissions, stats.completions,
                 stats.ready_runs, stats.hook_runs, stats.timers_fired, stats.queue_full);
    return served ? 0 : 1;
}
