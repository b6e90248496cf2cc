// The data path's threads: reactors with their buffers, the NBD server on the first of them, and
// the kernel's ublk driver where there is one. A volume is given a lane (a reactor and what belongs
// to it) by its id and stays there.
//
// Owner: Daemon. Started before any volume, ended after the last one has stopped. call_on() and
// io::run_on() are how threads that may block reach a lane; Lane::ask() those that may not block
// for long. The order of destruction is the reverse of the order of the members.
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/daemon/configuration.h"
#include "ublkd/daemon/nbd_exports.h"
#include "ublkd/daemon/questions.h"
#include "ublkd/front/nbd/nbd_server.h"
#include "ublkd/front/ublk/ublk_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/worker.h"

namespace ublkd::daemon {

/// Two pools, so that a front end's buffers and the volume's own never wait for each other.
struct Lane {
    std::unique_ptr<io::BufferPool> front_buffers;
    std::unique_ptr<io::BufferPool> volume_buffers;
    std::unique_ptr<io::ReactorThread> thread;
    Questions questions;
    io::Reactor& reactor() { return thread->reactor(); }
    /// What `function` gives on the reactor's thread; kTimedOut (questions.h).
    template <class F>
    auto ask(F function) {
        return questions.ask(reactor(), std::move(function));
    }
};

/// Runs `function` on the reactor's thread and waits for what it gives. Not on a reactor's thread.
template <class F>
auto call_on(io::Reactor& reactor, F function) {
    using T = decltype(function());
    CHECK(io::Reactor::current() == nullptr, "call_on() blocks: not for a reactor's thread");
    std::promise<T> promise;
    auto future = promise.get_future();
    reactor.post([&] {
        if constexpr (std::is_void_v<T>) {
            function();
            promise.set_value();
        } else {
            promise.set_value(function());
        }
    });
    return future.get();
}

class Engine {
  public:
    using Driver = Result<std::unique_ptr<front::ublk::KernelDriver>>;
    static Driver linux_driver();
    /// `configuration` outlives it. `nbd_tls`: of NBD over TCP. `driver`: of ublk.
    static Result<std::unique_ptr<Engine>> start(const Configuration& configuration,
                                                 io::TlsContext nbd_tls,
                                                 std::function<Driver()> driver = linux_driver);
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    /// All volumes have been stopped.
    ~Engine();

    /// The one that has clients and hosts that connect.
    io::Reactor& first() { return lanes_[0]->reactor(); }
    Lane& lane_of(VolumeId volume) { return *lanes_[volume.value() % lanes_.size()]; }
    /// Asks all reactors side by side whether they answer: after that no question to one that does
    /// not waits for it.
    void look_at_reactors();
    /// By the last question to it.
    bool answers(VolumeId volume) { return !lane_of(volume).questions.is_late(); }
    /// kTimedOut: a reactor that serves the volume does not answer; for NBD that is also the one
    /// that has the clients. Who would wait for it without end asks this before anything is begun.
    Result<void> check_answers(VolumeId volume, bool nbd);
    /// Of a volume to be made: whose reactor answers. kTimedOut: none does.
    Result<VolumeId> new_volume();
    /// Listens where the configuration says. Called when the volumes that were attached are back.
    /// A TCP port that is taken, say by a user of this machine, keeps nobody else's volume from
    /// being served: nbd_tcp_trouble() tells why, retry_nbd_tcp() tries again.
    Result<void> listen_nbd();
    void retry_nbd_tcp();
    std::optional<Error> nbd_tcp_trouble() const;
    /// Shows `entry` to NBD clients, and takes it away again: what is in flight is answered,
    /// connections end.
    void add_export(NbdExports::Entry entry);
    void remove_export(const std::string& name);
    /// The first half, which waits for nothing; remove_export() follows.
    void begin_remove_export(const std::string& name);
    /// Returns at once.
    void rename_export(const std::string& id, const std::string& name);
    unsigned export_connections(const std::string& name);
    void begin_stop_nbd();
    void stop_nbd();

    /// nullptr where this kernel (or the configuration) has no ublk; no_ublk_reason() says why.
    const front::ublk::UblkEnvironment* ublk() const { return ublk_; }
    Error no_ublk_reason() const;
    /// Looks again where there was none: its module may be loaded late. True where it is there now.
    /// One call at a time.
    bool retry_ublk();

  private:
    Engine(const Configuration* configuration, std::function<Driver()> driver)
        : configuration_(configuration), make_driver_(std::move(driver)) {}
    void start_ublk();
    Result<void> look_for_ublk();
    Result<void> listen_nbd_tcp();

    const Configuration* configuration_;
    std::function<Driver()> make_driver_;
    std::vector<std::unique_ptr<Lane>> lanes_;
    NbdExports exports_;                          // on the first reactor alone
    std::unique_ptr<front::nbd::NbdServer> nbd_;  // the same
    bool nbd_tcp_ = false;                        // listens; the same
    mutable std::mutex nbd_tcp_mutex_;
    std::optional<Error> nbd_tcp_trouble_;
    std::unique_ptr<io::Worker> ublk_worker_;
    std::unique_ptr<front::ublk::KernelDriver> ublk_driver_;
    front::ublk::UblkEnvironment ublk_environment_;
    std::atomic<const front::ublk::UblkEnvironment*> ublk_ = nullptr;  // once it has answered
    mutable std::mutex no_ublk_mutex_;
    Error no_ublk_reason_{Errc::kUnsupported, 0, "switched off by the configuration"};
};

}  // namespace ublkd::daemon
