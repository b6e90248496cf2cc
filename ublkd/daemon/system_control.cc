#include "ublkd/daemon/system_control.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/cluster_files.h"
#include "ublkd/daemon/doctor.h"
#include "ublkd/daemon/host_health.h"
#include "ublkd/daemon/host_records.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/system.h"
#include "ublkd/front/ublk/rescue.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::HostRecord;
using metadata::Transaction;

/// Of a host that has joined a cluster this is its first start: the file that says so is the one
/// that it came with.
Result<std::optional<HostId>> SystemControl::read_identity() {
    const Configuration& configuration = *core_.configuration;
    auto text = read_file(configuration.host_file());
    if (!text && text.error().code == Errc::kNotFound && configuration.enrolled) {
        text = read_file(configuration.cluster_file(kJoinedHostFile));
        if (text) {
            TRY(write_file_durably(configuration.host_file(), *text, 0600));
        }
    }
    if (!text && text.error().code == Errc::kNotFound) return std::optional<HostId>();
    if (!text) return fail(text.error());
    std::string id = *text;
    while (id.ends_with('\n')) id.pop_back();
    const auto host = HostId::parse(id);
    if (!host) return fail(Errc::kCorrupt, "the state folder's file host-id");
    return host;
}

Result<void> SystemControl::load_identity() {
    TRY_ASSIGN(const auto host, read_identity());
    if (!host) return finish_rebuild();
    TRY_ASSIGN(const auto record, core_.store->get<HostRecord>(*host));
    if (!record) return fail(Errc::kNotFound, "the host of the state folder's host-id");
    core_.identity->set(*host);
    return enter_cluster(*host);
}

/// Where this host's volumes listen for others, the others find it in the metadata.
Result<void> SystemControl::enter_cluster(HostId host) {
    const std::string address = core_.configuration->cluster_listen();
    ClusterId cluster;
    TRY(core_.store->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto record, tx.get<HostRecord>(host));
        if (!record) return fail(Errc::kNotFound, "the host");
        if (record->address != address) {
            record->address = address;
            TRY(tx.put(*record));
        }
        TRY_ASSIGN(const auto known, tx.list<metadata::ClusterRecord>());
        cluster = known.empty() ? ClusterId() : known.front().id;
        if (address.empty() || cluster) return {};
        metadata::ClusterRecord made{.id = ClusterId::random(), .created_ms = metadata::now_ms()};
        TRY(tx.put(made));
        cluster = made.id;
        return {};
    }));
    if (address.empty()) return {};
    core_.identity->set_cluster(cluster);
    core_.pools->learn(host);
    return core_.hosts->refresh();
}

/// A rebuild that was killed (rebuild.h): where its records are stored, this host is theirs.
Result<void> SystemControl::finish_rebuild() {
    const std::string& file = core_.configuration->rebuild_file();
    const auto text = read_file(file);
    if (!text && text.error().code == Errc::kNotFound) return undo_init();
    if (!text) return fail(text.error());
    const auto host = HostId::parse(text->substr(0, text->find('\n')));
    TRY_ASSIGN(const auto record, core_.store->get<HostRecord>(host.value_or(HostId())));
    if (!record) {
        TRY(remove_file_durably(file));
        return undo_init();
    }
    TRY(write_file_durably(core_.configuration->host_file(), *text, 0600));
    TRY(remove_file_durably(file));
    return load_identity();
}

/// What an `init` of this host that was killed, or failed, has left: pools without replicas, and
/// the host's records. Another host of this name is none of that: it listens. Metadata of its own
/// know no other host yet.
Result<void> SystemControl::undo_init() {
    const bool own = core_.configuration->metadata.empty();
    TRY_ASSIGN(
        const auto hosts,
        core_.store->list<HostRecord>(
            own ? metadata::Query() : metadata::where("name", core_.configuration->host_name)));
    for (const HostRecord& left : hosts) {
        if (!left.address.empty()) continue;
        const auto opened = core_.pools->open_all(left.id);
        core_.pools->forget_all();
        TRY(opened);
        TRY(core_.store->write([&left](Transaction& tx) { return erase_host(tx, left.id); }));
    }
    return {};
}

ApiResult<std::optional<api::PoolView>> SystemControl::init(const api::AddPoolRequest& request) {
    return init_as(core_.configuration->host_name, request);
}

ApiResult<std::optional<api::PoolView>> SystemControl::init_as(const std::string& name,
                                                               const api::AddPoolRequest& request) {
    const std::lock_guard lock(init_);
    if (initialized()) {
        return refuse(
            "IncorrectState",
            fmt::format("this daemon is initialized already, as {}: 'ebs-cli pool add' adds pools",
                        core_.identity->host().to_string()));
    }
    if (has_cluster_folder(*core_.configuration) && !core_.configuration->enrolled)
        return refuse("IncorrectState",
                      "this host has joined a cluster: start ublkd again, then 'ebs-cli pool add'");
    if (request.path.empty() &&
        (!request.domain.empty() || request.limit_bytes != 0 || request.buffered)) {
        return refuse("MissingParameter", "Path is needed with Domain, SizeBytes or Buffered");
    }
    if (request.dry_run) {
        if (!request.path.empty()) {
            API_TRY(core_.pools->plan_pool(request));
        }
        return std::nullopt;
    }
    const HostId host = HostId::random();
    const auto stored =
        core_.store->write([&](Transaction& tx) { return put_host(tx, host, name); });
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another host is named '{}': set host.name in {} and start again",
                                  name, core_.configuration->file));
    if (!stored) return refuse(stored.error(), "cannot store the host");
    (void)faults::hit("daemon.init.after_intent");

    std::optional<api::PoolView> made;
    if (!request.path.empty()) {
        auto added = core_.pools->add_pool_to(host, request);
        if (!added) {
            if (const auto undone = undo_init(); !undone)
                log::warn("init: {}", to_string(undone.error()));
            return refuse(added.error());
        }
        made = std::move(*added);
    }
    (void)faults::hit("daemon.init.after_pool");
    Result<void> written;
    if (!core_.configuration->file_exists) {
        written = write_file_durably(core_.configuration->file,
                                     configuration_text(*core_.configuration), 0644);
    }
    if (written)
        written =
            write_file_durably(core_.configuration->host_file(), host.to_string() + "\n", 0600);
    if (!written) {
        if (const auto undone = undo_init(); !undone)
            log::warn("init: {}", to_string(undone.error()));
        return refuse(written.error(),
                      fmt::format("cannot write {} or {}", core_.configuration->file,
                                  core_.configuration->host_file()));
    }
    core_.identity->set(host);
    if (const auto entered = enter_cluster(host); !entered)
        return refuse(entered.error(), "initialized, but not in the cluster: start ublkd again");
    core_.events->add("host.initialized", host.to_string(), name);
    return made;
}

api::VersionView SystemControl::version() {
    return {UBLKD_VERSION, "v1", initialized(), getpid(), boot_id_text()};
}

/// How a degraded volume comes to be whole.
std::string SystemControl::what_comes(const api::VolumeView& volume) {
    std::string when = "it gets another when a pool in a free failure domain is there";
    for (const auto& replica : volume.replicas) {
        if (!replica.waits_for.empty())
            when =
                fmt::format("{} returns (waits: {}), or {}", replica.id, replica.waits_for, when);
    }
    // Of one at rest: why a member cannot be used; it may come back.
    const std::string& reason = volume.health.reason;
    if (reason.empty()) return "; " + when;
    return fmt::format(" ({}); {}, and this has lasted for {} s", reason, when,
                       core_.configuration->replace_after_s);
}

void SystemControl::count_volumes(api::StatusView& view) {
    const auto volumes = volumes_->volumes();
    if (!volumes) {
        view.problems.push_back(volumes.error().message);
        return;
    }
    for (const auto& volume : *volumes) {
        ++view.volumes;
        const std::string& name = volume.name.empty() ? volume.id : volume.name;
        const auto& health = volume.health;
        if (health.state == "syncing") {
            ++view.volumes_syncing;
            const auto percent = health.sync_total_bytes == 0
                                     ? 0
                                     : health.sync_done_bytes * 100 / health.sync_total_bytes;
            view.problems.push_back(fmt::format("{}: syncing, {}%", name, percent));
        } else if (health.state == "degraded") {
            ++view.volumes_degraded;
            view.problems.push_back(fmt::format("{}: degraded, {} of {} replicas in sync{}", name,
                                                health.in_sync, health.wanted, what_comes(volume)));
        } else if (health.state == "blocked") {
            ++view.volumes_degraded;
            if (health.blocked_by != "attachment")  // told below
                view.problems.push_back(
                    fmt::format("{}: I/O waits ({}): {}", name, health.blocked_by, health.reason));
        }
        for (const auto& attachment : volume.attachments) {
            if (!attachment.message.empty())
                view.problems.push_back(fmt::format("{}: {} by {}: {}", name, attachment.state,
                                                    attachment.frontend, attachment.message));
        }
    }
}

namespace {

/// Their room: a file system counts once, by one of its pools that have no limit.
std::uint64_t total_of(const std::vector<api::PoolView>& pools) {
    std::set<std::string> unlimited;
    for (const auto& pool : pools) {
        if (pool.limit_bytes == 0) unlimited.insert(pool.id);
    }
    std::uint64_t total = 0;
    for (const auto& pool : pools) {
        const bool counted_by_another =
            std::ranges::any_of(pool.shares_space_with, [&](const std::string& other) {
                return unlimited.contains(other) && (pool.limit_bytes != 0 || other < pool.id);
            });
        if (!counted_by_another) total += pool.total_bytes;
    }
    return total;
}

}  // namespace

void SystemControl::count_hosts(api::StatusView& view) {
    const auto found = hosts();
    if (!found) {  // the metadata are away: this one is left to be told of
        view.hosts = 1;
        const std::string trouble = state_trouble(core_);
        view.problems.push_back(trouble.empty() ? found.error().message : trouble);
        return;
    }
    for (const auto& host : *found) {
        ++view.hosts;
        const std::string trouble =
            host.self            ? state_trouble(core_)
            : host.state == "ok" ? ""
            : host.state == "away"
                ? fmt::format("host {} does not answer", host.name)
                : fmt::format("host {} has not said where it listens", host.name);
        if (trouble.empty())
            ++view.hosts_ok;
        else
            view.problems.push_back(trouble);
    }
}

void SystemControl::count_pools(api::StatusView& view) {
    const auto all = core_.pools->pools();
    const auto pools = all ? *all : core_.pools->own_pools();
    for (const auto& pool : pools) {
        ++view.pools;
        view.used_bytes += pool.used_bytes;
        if (pool.state == "ok")
            ++view.pools_ok;
        else if (pool.state != "away")  // its host was told of
            view.problems.push_back(fmt::format("pool {}{} is {}: {}", pool.path,
                                                pool.measured ? "" : " of host " + pool.host_name,
                                                pool.state, pool.message));
    }
    view.total_bytes = total_of(pools);
}

void SystemControl::count_drains(api::StatusView& view) {
    const auto drains = volumes_->drains();
    if (!drains) return;  // that the metadata are away was told by now
    for (const auto& drain : *drains) {
        auto& lines = drain.state == "blocked" ? view.problems : view.notes;
        lines.push_back(drain.fix.empty() ? drain.message
                                          : fmt::format("{}; next: {}", drain.message, drain.fix));
    }
}

api::StatusView SystemControl::status() {
    api::StatusView view;
    view.version = UBLKD_VERSION;
    view.uptime_seconds =
        static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(
                                       std::chrono::steady_clock::now() - started_)
                                       .count());
    view.initialized = initialized();
    view.state = "uninitialized";
    if (!view.initialized) return view;
    count_hosts(view);
    if (const std::string trouble = core_.certificate->trouble(); !trouble.empty())
        view.problems.push_back(trouble);
    count_pools(view);
    count_volumes(view);
    count_drains(view);
    view.state = view.problems.empty() ? "ok" : "degraded";
    return view;
}

std::vector<api::FindingView> SystemControl::doctor() {
    const auto drains =
        initialized() ? volumes_->drains() : ApiResult<std::vector<api::DrainView>>();
    return examine(core_, drains ? *drains : std::vector<api::DrainView>());
}

/// What is not measured here is not shown: of another host version and boot are its own to tell.
api::HostView SystemControl::view_of(const HostRecord& record) {
    api::HostView view;
    view.id = record.id.to_string();
    view.name = record.name;
    view.self = record.id == core_.identity->host();
    if (view.self) {
        view.state = state_trouble(core_).empty() ? "ok" : "degraded";
        view.version = UBLKD_VERSION;
        view.boot_id = boot_id_text();
    } else {
        view.state = record.address.empty()         ? "unknown"
                     : volumes_->answers(record.id) ? "ok"
                                                    : "away";
    }
    (void)core_.store->read([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto pools,
                   tx.list<metadata::PoolRecord>(metadata::where("host", record.id)));
        view.pools = static_cast<unsigned>(pools.size());
        view.replicas = view.draining_pools = view.left_replicas = 0;
        view.left_bytes = 0;
        for (const auto& pool : pools) {
            TRY_ASSIGN(const auto replicas,
                       tx.list<metadata::ReplicaRecord>(metadata::where("pool", pool.id)));
            view.replicas += static_cast<unsigned>(replicas.size());
            if (!pool.draining) continue;
            ++view.draining_pools;
            view.left_replicas += static_cast<unsigned>(replicas.size());
            for (const auto& replica : replicas) {
                TRY_ASSIGN(const auto volume, tx.get<metadata::VolumeRecord>(replica.volume));
                if (volume) view.left_bytes += volume->size_bytes;
            }
        }
        return {};
    });
    return view;
}

ApiResult<std::vector<api::HostView>> SystemControl::hosts() {
    const auto records = core_.store->list<HostRecord>();
    if (!records) return refuse(records.error(), "cannot list the hosts");
    std::vector<api::HostView> views;
    for (const auto& record : *records) views.push_back(view_of(record));
    return views;
}

ApiResult<api::HostView> SystemControl::host(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_host(core_.store, name));
    return view_of(record);
}

ApiResult<std::vector<api::EventView>> SystemControl::events(std::uint64_t after_sequence,
                                                             unsigned limit, unsigned wait_ms) {
    const auto records = core_.events->wait_after(after_sequence, limit, wait_ms);
    if (!records) return refuse(records.error(), "cannot list the events");
    std::vector<api::EventView> views;
    for (const auto& record : *records)
        views.push_back(
            {record.sequence, record.time_ms, record.kind, record.resource, record.text});
    return views;
}

// ---- rescue

namespace {

std::unexpected<api::ApiError> no_ublk(const Core& core) {
    return refuse("UnsupportedOperation", fmt::format("this daemon has no ublk: {}",
                                                      to_string(core.engine->no_ublk_reason())));
}

}  // namespace

ApiResult<std::vector<api::OrphanView>> SystemControl::orphans() {
    const auto* environment = core_.engine->ublk();
    std::vector<api::OrphanView> views;
    if (environment == nullptr) return views;
    Lane& lane = core_.engine->lane_of(VolumeId(1));
    if (const auto answers = lane.ask([] { return true; }); !answers)
        return refuse(answers.error(), "cannot list the ublk devices");
    const auto found =
        io::run_on(lane.reactor(), [&] { return front::ublk::find_devices(environment); });
    if (!found) return refuse(found.error(), "cannot list the ublk devices");
    const auto volumes = core_.store->list<metadata::VolumeRecord>();
    for (const auto& device : *found) {
        if (device.server_alive) continue;
        api::OrphanView view;
        view.device = static_cast<int>(device.info.device_id);
        view.path = fmt::format("/dev/ublkb{}", device.info.device_id);
        view.state = device.condition;
        view.message = device.ours ? "made by ublkd" : "made by another program";
        for (const auto& volume : volumes ? *volumes : std::vector<metadata::VolumeRecord>()) {
            if (device.ours && front::ublk::device_tag(volume.id) == device.info.server_flags)
                view.volume_id = volume.id.to_string();
        }
        views.push_back(std::move(view));
    }
    return views;
}

ApiResult<void> SystemControl::recover_orphan(int device) {
    API_TRY_ASSIGN(const auto found, orphans());
    for (const auto& orphan : found) {
        if (orphan.device != device) continue;
        if (orphan.volume_id.empty())
            return refuse(
                "IncorrectState",
                fmt::format(
                    "{} belongs to no volume of this daemon: it can be removed, not recovered",
                    orphan.path));
        volumes_->retry_attachment(*VolumeId::parse(orphan.volume_id));
        API_TRY_ASSIGN(const auto left, orphans());
        for (const auto& still : left) {
            if (still.device == device)
                return refuse(
                    "IncorrectState",
                    fmt::format("{} could not be recovered: 'ebs-cli event list' says why; "
                                "'ebs-cli rescue remove' fails its I/O and removes it",
                                orphan.path));
        }
        return {};
    }
    return refuse(
        "InvalidDevice.NotFound",
        fmt::format("no orphaned ublk device {}: 'ebs-cli rescue list' shows them", device));
}

ApiResult<void> SystemControl::remove_orphan(int device) {
    const auto* environment = core_.engine->ublk();
    if (environment == nullptr) return no_ublk(core_);
    API_TRY_ASSIGN(const auto found, orphans());
    for (const auto& orphan : found) {
        if (orphan.device != device) continue;
        Lane& lane = core_.engine->lane_of(VolumeId(1));
        const auto removed = io::run_on(lane.reactor(), [&] {
            return front::ublk::remove_device(environment, static_cast<std::uint32_t>(device));
        });
        if (!removed) return refuse(removed.error(), "cannot remove " + orphan.path);
        core_.events->add("rescue.removed", orphan.volume_id, orphan.path);
        return {};
    }
    return refuse(
        "InvalidDevice.NotFound",
        fmt::format("no orphaned ublk device {}: 'ebs-cli rescue list' shows them", device));
}

}  // namespace ublkd::daemon
