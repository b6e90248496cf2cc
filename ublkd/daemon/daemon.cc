#include "ublkd/daemon/daemon.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <thread>

#include "metadata/local_rows.h"
#include "metadata/optimistic_store.h"
#include "metadata/sqlite_store.h"
#include "ublkd/api/remote_rows.h"
#include "ublkd/api/routes.h"
#include "ublkd/api/routes_enrol.h"
#include "ublkd/api/routes_rows.h"
#include "ublkd/api/row_json.h"
#include "ublkd/api/server.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/authority_client.h"
#include "ublkd/daemon/cluster_control.h"
#include "ublkd/daemon/cluster_files.h"
#include "ublkd/daemon/dying_sockets.h"
#include "ublkd/daemon/enrolment.h"
#include "ublkd/daemon/etcd_metadata.h"
#include "ublkd/daemon/host_certificate.h"
#include "ublkd/daemon/instances.h"
#include "ublkd/daemon/metadata_control.h"
#include "ublkd/daemon/nbd_tls.h"
#include "ublkd/daemon/peer_listener.h"
#include "ublkd/daemon/permissions.h"
#include "ublkd/daemon/repair.h"
#include "ublkd/daemon/restore.h"
#include "ublkd/daemon/system.h"
#include "ublkd/daemon/system_control.h"
#include "ublkd/daemon/tag_control.h"

namespace ublkd::daemon {

/// Members in the order of their making; destroyed in reverse.
struct Daemon::Parts {
    explicit Parts(const Configuration& given) : configuration(given) {}

    Configuration configuration;
    Identity identity;
    std::unique_ptr<metadata::RowService> far_rows;  // where the metadata is not this host's
    std::unique_ptr<metadata::MetadataStore> store;
    std::unique_ptr<metadata::LocalRows> rows;  // for other hosts
    std::unique_ptr<Enrolment> enrolment;       // where the cluster's authority is
    std::unique_ptr<api::RouteTable> rows_routes;
    std::unique_ptr<api::RouteTable> admit_routes;
    std::unique_ptr<api::Server> rows_server;
    std::unique_ptr<metadata::Authority> authority;
    std::unique_ptr<metadata::PermissionService> permission_service;
    std::unique_ptr<LocalAuthority> authority_client;
    std::unique_ptr<EventLog> events;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Pools> pools;
    std::unique_ptr<HostDirectory> hosts;
    std::unique_ptr<HostCertificate> certificate;
    Core core;
    Repair repair;
    std::unique_ptr<Volumes> volumes;
    std::unique_ptr<PeerListener> peers;
    std::unique_ptr<SystemControl> system;
    std::unique_ptr<ClusterControl> cluster;
    std::unique_ptr<Instances> instances;
    std::unique_ptr<Permissions> permissions;
    std::unique_ptr<TagControl> tags;
    std::unique_ptr<MetadataControl> metadata;
    std::unique_ptr<api::RouteTable> routes;
    std::unique_ptr<api::Server> server;
    std::future<void> recovery;
};

namespace {

constexpr auto kRecoveryGrace = std::chrono::seconds(5);  // before the API answers
constexpr auto kStepLimit = std::chrono::seconds(4);      // of each step of stop()
constexpr auto kVolumesLimit = std::chrono::seconds(10);
constexpr auto kApiWait = std::chrono::seconds(2);   // for the socket of one that was killed
constexpr auto kPeerWait = std::chrono::seconds(5);  // the same, of its address for other hosts

/// Runs `step` on a thread of its own; false where it has not ended in time (the thread runs on).
bool ends_in_time(std::function<void()> step) {
    std::packaged_task<void()> task(std::move(step));
    const std::future<void> ended = task.get_future();
    std::thread(std::move(task)).detach();
    return ended.wait_for(kStepLimit) == std::future_status::ready;
}

std::string because(const std::string& what, const Error& error) {
    return fmt::format("{}: {}", what, to_string(error));
}

/// Of a daemon that does not learn who its host is.
std::string why_unknown(const Configuration& configuration, const Error& error) {
    if (error.code != Errc::kNotFound) return because("cannot read who this host is", error);
    return fmt::format(
        "the metadata does not know this host (of {}) any more: it was removed ('ebs-cli event "
        "list' at another host says when), or these are other metadata than before. To join as a "
        "new host delete all of {} but ublkd.toml, and the folders of its pools",
        configuration.host_file(), configuration.state_dir);
}

std::expected<std::unique_ptr<metadata::RowService>, std::string> open_far_rows(
    const Configuration& configuration, const HostTls& tls) {
    if (is_in_etcd(configuration)) return open_etcd(configuration);
    auto rows = api::RemoteRows::make({.address = configuration.metadata, .tls = tls.connecting});
    if (!rows)
        return std::unexpected(because("cannot use " + configuration.metadata, rows.error()));
    return std::move(*rows);
}

/// As early as can be: a command that follows the start at once waits for its answer.
Result<std::unique_ptr<api::Server>> listen_api(const Configuration& configuration) {
    api::ServerOptions options;
    options.socket_path = configuration.api_socket;
    options.group = configuration.api_group;
    return again_while_dying(kApiWait, [&] { return api::Server::listen(options); });
}

}  // namespace

std::expected<void, std::string> Daemon::open_store(Parts& p, const HostTls& tls) {
    const Configuration& configuration = p.configuration;
    if (!configuration.metadata.empty()) {
        auto rows = open_far_rows(configuration, tls);
        if (!rows) return std::unexpected(rows.error());
        if (is_in_etcd(configuration)) {
            if (const auto restored = apply_pending_restore(configuration, nullptr); !restored)
                return restored;
        }
        p.far_rows = std::move(*rows);
        p.store = std::make_unique<metadata::OptimisticStore>(p.far_rows.get());
        return {};
    }
    auto store = metadata::SqliteStore::open(configuration.database());
    if (!store && store.error().code == Errc::kBusy)
        return std::unexpected(fmt::format("another ublkd runs with {}", configuration.state_dir));
    if (!store)
        return std::unexpected(because("cannot open " + configuration.database(), store.error()));
    if (const auto restored = apply_pending_restore(configuration, store->get()); !restored)
        return restored;
    p.store = std::move(*store);
    return {};
}

std::expected<void, std::string> Daemon::serve_metadata(Parts& p, const HostTls& tls) {
    const Configuration& configuration = p.configuration;
    if (configuration.cluster_address.empty() || p.far_rows) return {};
    p.rows = std::make_unique<metadata::LocalRows>(p.store.get());
    p.rows_routes = std::make_unique<api::RouteTable>([] { return true; });
    api::add_row_routes(*p.rows_routes, p.rows.get());
    api::ServerOptions options;
    options.socket_path = configuration.metadata_socket;
    options.group = configuration.api_group;
    options.max_body_bytes = api::kRowsBodyMax;
    if (!configuration.metadata_address.empty())
        options.tls = {configuration.metadata_address, configuration.metadata_port, tls.accepting};
    if (p.enrolment) {
        p.admit_routes = std::make_unique<api::RouteTable>([] { return true; });
        api::add_admit_route(*p.admit_routes, p.enrolment.get());
        api::add_renew_route(*p.rows_routes, p.enrolment.get());
        options.tls->context = tls.admitting;
        options.tls->strangers = p.admit_routes.get();
    }
    auto server = again_while_dying(kApiWait, [&] { return api::Server::listen(options); });
    if (!server)
        return std::unexpected(because("cannot listen on " + options.socket_path, server.error()));
    p.rows_server = std::move(*server);
    p.rows_server->serve(p.rows_routes.get());
    return {};
}

Daemon::Daemon(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

std::expected<std::unique_ptr<Daemon>, std::string> Daemon::start(
    const Configuration& configuration, bool serve) {
    std::expected<io::TlsContext, std::string> nbd_tls;
    if (serve) nbd_tls = load_nbd_tls(configuration);
    if (!nbd_tls) return std::unexpected(nbd_tls.error());
    if (serve) {
        if (const auto renewed = renew_own_certificate(configuration); !renewed)
            return std::unexpected(renewed.error());
    }
    auto host_tls = load_host_tls(configuration);
    if (!host_tls) return std::unexpected(host_tls.error());
    auto parts = std::make_unique<Parts>(configuration);
    Parts& p = *parts;
    if (const auto made = make_folder(configuration.state_dir, 0700); !made)
        return std::unexpected(because("cannot make " + configuration.state_dir, made.error()));
    if (const auto opened = open_store(p, *host_tls); !opened)
        return std::unexpected(opened.error());
    // From here on this daemon is alone with the state folder.
    if (const auto made = renew_run_folder(configuration.run_dir); !made)
        return std::unexpected(because("cannot use " + configuration.run_dir, made.error()));
    if (serve) {
        auto server = listen_api(configuration);
        if (!server)
            return std::unexpected(
                because("cannot listen on " + configuration.api_socket, server.error()));
        p.server = std::move(*server);
    }
    if (has_authority(configuration))
        p.enrolment = std::make_unique<Enrolment>(&p.configuration, p.store.get(), &p.identity);
    if (serve) {
        if (const auto serving = serve_metadata(p, *host_tls); !serving)
            return std::unexpected(serving.error());
    }
    p.authority = std::make_unique<metadata::Authority>(p.store.get());
    p.permission_service = std::make_unique<metadata::PermissionService>(p.store.get());
    p.authority_client = std::make_unique<LocalAuthority>(p.authority.get());
    p.events = std::make_unique<EventLog>(p.store.get());
    auto engine = Engine::start(p.configuration, std::move(*nbd_tls));
    if (!engine) return std::unexpected(because("cannot start the data path", engine.error()));
    p.engine = std::move(*engine);
    p.pools = std::make_unique<Pools>(
        p.store.get(), p.events.get(), &p.identity, [repair = &p.repair] { repair->wake(); },
        [&p](HostId host) { return p.volumes && p.volumes->answers(host); });
    p.hosts = std::make_unique<HostDirectory>(p.store.get(), *host_tls);
    p.certificate = std::make_unique<HostCertificate>(&p.configuration, *host_tls);
    p.core = Core{&p.configuration,
                  &p.identity,
                  p.store.get(),
                  p.authority.get(),
                  p.permission_service.get(),
                  p.authority_client.get(),
                  p.engine.get(),
                  p.events.get(),
                  p.pools.get(),
                  p.hosts.get(),
                  p.certificate.get(),
                  boot_id()};
    p.volumes = std::make_unique<Volumes>(p.core, [repair = &p.repair] { repair->wake(); });
    p.system = std::make_unique<SystemControl>(p.core, p.volumes.get());
    p.cluster = std::make_unique<ClusterControl>(p.core, p.system.get(), p.enrolment.get());
    p.instances = std::make_unique<Instances>(p.core, p.volumes.get());
    p.permissions = std::make_unique<Permissions>(p.core);
    p.tags = std::make_unique<TagControl>(p.core);
    p.metadata = std::make_unique<MetadataControl>(p.core, p.system.get());
    std::unique_ptr<Daemon> daemon(
        new Daemon(std::move(parts)));  // from here on its destructor stops what was started

    if (const auto known = p.system->load_identity(); !known)
        return std::unexpected(why_unknown(configuration, known.error()));
    if (p.identity.initialized()) {
        if (const auto opened = p.pools->open_all(p.identity.host()); !opened)
            return std::unexpected(because("cannot read the pools", opened.error()));
    }
    if (serve) p.certificate->start(p.enrolment.get(), p.events.get(), &p.identity);
    if (serve && !configuration.cluster_address.empty()) {
        auto listening = again_while_dying(kPeerWait, [&] {
            return PeerListener::listen(&p.engine->first(), configuration.cluster_address,
                                        configuration.cluster_port, host_tls->accepting,
                                        [volumes = p.volumes.get()](HeardPeer heard) {
                                            volumes->post_peer(std::move(heard));
                                        });
        });
        if (!listening)
            return std::unexpected(
                because("cannot listen on " + configuration.cluster_listen(), listening.error()));
        p.peers = std::move(*listening);
    }
    p.recovery = std::async(std::launch::async, [&p, serve] {
        p.volumes->take_stock();
        // What hangs in recover() is not waited for.
        if (serve) p.repair.start(p.core, p.volumes.get());
        p.volumes->recover();
    });
    if (!serve) {
        p.recovery.wait();
    } else if (p.recovery.wait_for(kRecoveryGrace) != std::future_status::ready) {
        log::warn("not all volumes have come back yet: 'ebs-cli attachment list' shows them");
    }
    if (!serve) return daemon;
    if (const auto listening = p.engine->listen_nbd(); !listening) {
        return std::unexpected(
            because("cannot listen for NBD on " + configuration.nbd_socket, listening.error()));
    }
    p.routes = std::make_unique<api::RouteTable>(
        [system = p.system.get()] { return system->initialized(); });
    api::add_routes(*p.routes,
                    {p.system.get(), p.cluster.get(), p.volumes.get(), p.instances.get(),
                     p.pools.get(), p.permissions.get(), p.tags.get(), p.metadata.get()});
    p.server->serve(p.routes.get());
    return daemon;
}

std::vector<std::string> Daemon::stop() {
    stopped_ = true;
    Parts& p = *parts_;
    std::vector<std::string> left;
    const auto step = [&left](const char* what, std::function<void()> ending) {
        if (!ends_in_time(std::move(ending))) left.emplace_back(what);
    };
    p.events->shut_down();
    p.volumes->begin_stop();
    step("a request of the API is still under way", [&p] {
        p.volumes->end_verifies();
        p.server.reset();
    });
    step("a connection of another host is still being taken", [&p] {
        p.peers.reset();
        p.volumes->end_peers();
    });
    step("a volume is still being brought back", [&p] {
        if (p.recovery.valid()) p.recovery.wait();
    });
    step("a repair is still under way", [&p] { p.repair.stop(); });
    step("a certificate is still being renewed", [&p] { p.certificate->stop(); });
    step("an NBD connection waits for its requests", [&p] {
        p.engine->begin_stop_nbd();
        p.volumes->end_nbd_waits();
        p.engine->stop_nbd();
    });
    for (const auto& volume :
         p.volumes->shut_down(std::chrono::steady_clock::now() + kVolumesLimit))
        left.push_back(volume + " did not come to rest");
    return left;
}

Daemon::~Daemon() {
    if (stopped_) return;
    const auto left = stop();
    for (const auto& line : left) log::warn("{}", line);
    if (!left.empty()) std::_Exit(1);  // threads of it still run
}

std::vector<std::string> Daemon::detach_all() { return parts_->volumes->detach_all(false); }

}  // namespace ublkd::daemon
