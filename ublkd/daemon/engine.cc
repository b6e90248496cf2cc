#include "ublkd/daemon/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "ublkd/api/peer.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/dying_sockets.h"
#include "ublkd/front/ublk/kernel_driver_linux.h"

namespace ublkd::daemon {
namespace {

unsigned reactor_count(const Configuration& configuration) {
    if (configuration.reactors != 0) return configuration.reactors;
    return std::clamp(std::thread::hardware_concurrency() / 2, 1u, 8u);
}

io::Task<Result<std::uint64_t>> ask_features(const front::ublk::UblkEnvironment* environment) {
    front::ublk::UblkControl control(environment->driver, environment->deadlines);
    co_return co_await control.features();
}

constexpr auto kUnixWait = std::chrono::seconds(10);
constexpr auto kTcpWait = std::chrono::seconds(2);

}  // namespace

Engine::Driver Engine::linux_driver() { return front::ublk::LinuxDriver::create(); }

Result<std::unique_ptr<Engine>> Engine::start(const Configuration& configuration,
                                              io::TlsContext nbd_tls,
                                              std::function<Driver()> driver) {
    std::unique_ptr<Engine> engine(new Engine(&configuration, std::move(driver)));
    for (unsigned i = 0; i < reactor_count(configuration); ++i) {
        auto lane = std::make_unique<Lane>();
        const auto half = static_cast<std::size_t>(configuration.buffer_mib * kMiB / 2);
        TRY_ASSIGN(lane->front_buffers, io::BufferPool::create(half));
        TRY_ASSIGN(lane->volume_buffers, io::BufferPool::create(half));
        TRY_ASSIGN(lane->thread, io::ReactorThread::start(fmt::format("reactor-{}", i), {}));
        engine->lanes_.push_back(std::move(lane));
    }
    front::nbd::NbdServerOptions options;
    options.admit = [group = api::group_id(configuration.api_group)](int fd) {
        return api::is_admitted(fd, group);
    };
    options.tls = std::move(nbd_tls);
    Engine* const made = engine.get();
    call_on(engine->first(), [made, &options] {
        made->nbd_ = std::make_unique<front::nbd::NbdServer>(
            &made->first(), made->lanes_[0]->front_buffers.get(), &made->exports_, options);
    });
    if (configuration.ublk) engine->start_ublk();
    return engine;
}

Result<void> Engine::look_for_ublk() {
    TRY_ASSIGN(ublk_driver_, make_driver_());
    if (!ublk_worker_) ublk_worker_ = std::make_unique<io::Worker>("ublk-control");
    ublk_environment_.driver = ublk_driver_.get();
    ublk_environment_.worker = ublk_worker_.get();
    ublk_environment_.run_folder = configuration_->run_dir;
    const auto* environment = &ublk_environment_;
    TRY(io::run_on(first(), [environment] { return ask_features(environment); }));
    ublk_ = environment;
    return {};
}

void Engine::start_ublk() {
    const auto found = look_for_ublk();
    if (found) return;
    const bool was_asked = ublk_driver_ != nullptr;
    ublk_driver_.reset();
    const std::lock_guard lock(no_ublk_mutex_);
    if (was_asked && no_ublk_reason_ != found.error())
        log::warn("ublk is not used: {}; this is tried again", to_string(found.error()));
    no_ublk_reason_ = found.error();
}

bool Engine::retry_ublk() {
    if (!configuration_->ublk || ublk() != nullptr) return false;
    start_ublk();
    if (ublk() == nullptr) return false;
    log::info("ublk is there now: volumes can be /dev/ublkbN");
    return true;
}

Error Engine::no_ublk_reason() const {
    const std::lock_guard lock(no_ublk_mutex_);
    return no_ublk_reason_;
}

Engine::~Engine() {
    stop_nbd();
    ublk_driver_.reset();
    ublk_worker_.reset();
    for (auto& lane : lanes_) lane->thread.reset();
}

void Engine::look_at_reactors() {
    std::vector<Questions::Asked<bool>> asked;
    for (const auto& lane : lanes_)
        asked.push_back(lane->questions.begin(lane->reactor(), [] { return true; }));
    const auto deadline = Questions::Clock::now() + Questions::kLimit;
    for (auto& one : asked) (void)one.wait_until(deadline);
}

Result<void> Engine::check_answers(VolumeId volume, bool nbd) {
    const auto nothing = [] { return true; };
    TRY(lane_of(volume).ask(nothing));
    if (nbd) {
        TRY(lanes_[0]->ask(nothing));
    }
    return {};
}

Result<VolumeId> Engine::new_volume() {
    constexpr unsigned kTries = 1000;  // far more than it takes where one of the reactors answers
    look_at_reactors();
    for (unsigned i = 0; i < kTries; ++i) {
        const VolumeId id = VolumeId::random();
        if (answers(id)) return id;
    }
    return fail(Errc::kTimedOut, "no reactor answers");
}

Result<void> Engine::listen_nbd() {
    TRY_ASSIGN(const unsigned activated,
               call_on(first(), [this] { return nbd_->listen_activated(); }));
    if (activated > 0) log::info("NBD: {} sockets by socket activation", activated);
    const SocketAccess access{.group = api::group_id(configuration_->api_group)};
    TRY(again_while_dying(kUnixWait, [&] {
        return call_on(first(),
                       [&] { return nbd_->listen_unix(configuration_->nbd_socket, access); });
    }));
    const auto tcp = again_while_dying(kTcpWait, [this] { return listen_nbd_tcp(); });
    if (!tcp)
        log::warn("NBD: cannot listen on {}:{}: {}; this is tried again",
                  configuration_->nbd_address, configuration_->nbd_port, to_string(tcp.error()));
    return {};
}

Result<void> Engine::listen_nbd_tcp() {
    if (configuration_->nbd_address.empty()) return {};
    const auto listening = call_on(first(), [this]() -> Result<void> {
        if (!nbd_) return fail(Errc::kClosed, "listen");
        if (nbd_tcp_) return {};
        TRY(nbd_->listen_tcp(configuration_->nbd_address, configuration_->nbd_port));
        nbd_tcp_ = true;
        return {};
    });
    const std::lock_guard lock(nbd_tcp_mutex_);
    nbd_tcp_trouble_ = listening ? std::nullopt : std::optional(listening.error());
    return listening;
}

void Engine::retry_nbd_tcp() {
    if (nbd_tcp_trouble() && listen_nbd_tcp())
        log::info("NBD: listens on {}:{} now", configuration_->nbd_address,
                  configuration_->nbd_port);
}

std::optional<Error> Engine::nbd_tcp_trouble() const {
    const std::lock_guard lock(nbd_tcp_mutex_);
    return nbd_tcp_trouble_;
}

void Engine::add_export(NbdExports::Entry entry) {
    call_on(first(), [this, &entry] { exports_.add(std::move(entry)); });
}

void Engine::begin_remove_export(const std::string& name) {
    call_on(first(), [this, &name] {
        exports_.remove(name);
        nbd_->begin_disconnect(name);
    });
}

void Engine::begin_stop_nbd() {
    if (lanes_.empty() || !lanes_[0]->thread || !nbd_) return;
    call_on(first(), [this] { nbd_->begin_stop(); });
}

void Engine::remove_export(const std::string& name) {
    io::run_on(first(), [this, &name] {
        exports_.remove(name);
        return nbd_->disconnect(name);
    });
}

void Engine::rename_export(const std::string& id, const std::string& name) {
    first().post([this, id, name] { exports_.rename(id, name); });
}

unsigned Engine::export_connections(const std::string& name) {
    return call_on(first(), [this, &name] { return nbd_->connections(name); });
}

void Engine::stop_nbd() {
    if (lanes_.empty() || !lanes_[0]->thread || !nbd_) return;
    io::run_on(first(), [this] { return nbd_->stop(); });
    call_on(first(), [this] { nbd_.reset(); });
}

}  // namespace ublkd::daemon
