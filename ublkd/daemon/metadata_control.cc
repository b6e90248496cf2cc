#include "ublkd/daemon/metadata_control.h"

#include <fmt/format.h>

#include "metadata/restored.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/daemon/etcd_metadata.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/restore.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::AllRows;
using metadata::Backup;
using metadata::table_of;

namespace {

unsigned count_of(const AllRows& rows, const metadata::Table& table) {
    return static_cast<unsigned>(rows.of(table).rows.size());
}

api::BackupView view_of(const Backup& backup, std::string text) {
    return {backup.host,
            backup.created_ms,
            count_of(backup.rows, table_of<metadata::HostRecord>()),
            count_of(backup.rows, table_of<metadata::PoolRecord>()),
            count_of(backup.rows, table_of<metadata::VolumeRecord>()),
            std::move(text)};
}

}  // namespace

Result<Backup> MetadataControl::read_now() {
    Backup backup;
    backup.host = core_.configuration->host_name;
    backup.created_ms = metadata::now_ms();
    TRY_ASSIGN(backup.rows, metadata::WholeStore::read(core_.store));
    return backup;
}

ApiResult<api::BackupView> MetadataControl::backup() {
    const auto now = read_now();
    if (!now) return refuse(now.error(), "cannot read the metadata");
    return view_of(*now, metadata::backup_text(*now));
}

ApiResult<MetadataControl::Checked> MetadataControl::check(const api::RestoreRequest& request) {
    const Configuration& configuration = *core_.configuration;
    if (!configuration.metadata.empty() && !is_in_etcd(configuration))
        return refuse("IncorrectState", fmt::format("the metadata are kept by the host at {}: "
                                                    "they are restored there",
                                                    configuration.metadata));
    auto text = read_file(request.path, metadata::kBackupMax);
    if (!text) return refuse(text.error(), "cannot read " + request.path);
    auto backup = metadata::read_backup(*text);
    if (!backup) return refuse(backup.error(), "cannot restore " + request.path);
    const auto own = own_host_in(*backup, configuration);
    if (!own) return refuse(own.error(), "cannot look up this host in " + request.path);
    if (!*own)
        return refuse("IncorrectState",
                      fmt::format("{} knows no host {}: set host.name in {} to the name that this "
                                  "host had, and start again",
                                  request.path, configuration.host_name, configuration.file));
    auto now = metadata::WholeStore::read(core_.store);
    if (!now) return refuse(now.error(), "cannot read the metadata that are there");
    const unsigned volumes = count_of(*now, table_of<metadata::VolumeRecord>());
    if (!request.force && count_of(*now, table_of<metadata::HostRecord>()) > 0)
        return refuse("IncorrectState",
                      fmt::format("there are metadata already, with {} volume{}: force replaces "
                                  "them",
                                  volumes, volumes == 1 ? "" : "s"));
    return Checked{std::move(*backup), std::move(*now)};
}

ApiResult<api::PlanView> MetadataControl::plan_restore(const api::RestoreRequest& request) {
    API_TRY_ASSIGN(const auto checked, check(request));
    const auto view = view_of(checked.backup, "");
    return api::PlanView{
        {fmt::format("put {} volumes, {} pools and {} hosts of the backup in the place of the "
                     "{} volumes that are known now, at the next start",
                     view.volumes, view.pools, view.hosts,
                     count_of(checked.now, table_of<metadata::VolumeRecord>())),
         "serve each volume again when all hosts of its replicas have told what they know"}};
}

ApiResult<api::BackupView> MetadataControl::restore(const api::RestoreRequest& request) {
    API_TRY_ASSIGN(auto checked, check(request));
    const auto restores = metadata::restores_of(checked.now);
    if (!restores) return refuse(restores.error(), "cannot read the metadata that are there");
    const auto view = view_of(checked.backup, "");
    const std::string text = text_to_restore(std::move(checked.backup), *restores);
    if (text.empty())
        return refuse("CorruptData", request.path + " has records that are none of ublkd's");
    Backup now;
    now.host = core_.configuration->host_name;
    now.created_ms = metadata::now_ms();
    now.rows = std::move(checked.now);
    const std::string kept = before_restore_file(*core_.configuration);
    const std::string file = pending_restore_file(*core_.configuration);
    auto written = write_file_durably(kept, metadata::backup_text(now), 0600);
    if (written) written = write_file_durably(file, text, 0600);
    if (!written) return refuse(written.error(), fmt::format("cannot write {} or {}", kept, file));
    return view;
}

ApiResult<FoundHost> MetadataControl::find_lost(const api::RebuildRequest& request) {
    if (core_.identity->initialized())
        return refuse("IncorrectState",
                      "this host has metadata: what it lacks is in no pool, or in a backup");
    return look_in_pools(request.pools);
}

ApiResult<api::PlanView> MetadataControl::plan_rebuild(const api::RebuildRequest& request) {
    const std::lock_guard lock(rebuild_);
    API_TRY_ASSIGN(const auto found, find_lost(request));
    api::PlanView plan;
    for (const auto& pool : found.pools)
        plan.steps.push_back(fmt::format("take the pool {} in {}, with {} replicas",
                                         pool.record.id.to_string(), pool.record.path,
                                         pool.replicas.size()));
    for (const auto& volume : found.volumes)
        plan.steps.push_back(fmt::format(
            "make {} of {} bytes, as number {} says: {} members, replicas of it here: {}",
            volume.newest.volume.to_string(), volume.size_bytes, volume.newest.number,
            volume.newest.members.size(), volume.replicas));
    return plan;
}

/// As an init, but that the pools are there. Killed before its records are stored nothing was done;
/// after that the next start ends it (SystemControl::load_identity).
ApiResult<api::RebuildView> MetadataControl::rebuild(const api::RebuildRequest& request) {
    const std::lock_guard lock(rebuild_);
    API_TRY_ASSIGN(const auto found, find_lost(request));
    const Configuration& configuration = *core_.configuration;
    metadata::HostRecord host;
    host.id = found.id ? found.id : HostId::random();
    host.name = configuration.host_name;
    host.created_ms = metadata::now_ms();
    const std::string id = host.id.to_string() + "\n";
    if (const auto begun = write_file_durably(configuration.rebuild_file(), id, 0600); !begun)
        return refuse(begun.error(), "cannot write " + configuration.rebuild_file());
    const auto stored = core_.store->write(
        [&](metadata::Transaction& tx) { return make_records(tx, found, host); });
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists",
                      fmt::format("another host is named '{}', or has one of these pools",
                                  configuration.host_name));
    if (!stored) return refuse(stored.error(), "cannot store what was found");
    (void)faults::hit("daemon.rebuild.after_records");
    Result<void> done;
    if (!configuration.file_exists)
        done = write_file_durably(configuration.file, configuration_text(configuration), 0644);
    if (done) done = write_file_durably(configuration.host_file(), id, 0600);
    if (done) done = remove_file_durably(configuration.rebuild_file());
    if (done) done = core_.pools->open_all(host.id);
    if (done) done = system_->load_identity();
    if (!done)
        return refuse(done.error(), "the metadata are made, but cannot be used: start ublkd again");
    core_.events->add(
        "metadata.rebuilt", host.id.to_string(),
        fmt::format("{} volumes from {} pools", found.volumes.size(), found.pools.size()));
    return api::RebuildView{host.id.to_string(), static_cast<unsigned>(found.pools.size()),
                            static_cast<unsigned>(found.volumes.size())};
}

ApiResult<void> MetadataControl::thaw(const std::string& volume) {
    API_TRY_ASSIGN(const auto found, find_volume(core_.store, volume));
    bool frozen = false;
    const auto done = core_.store->write([&](metadata::Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto waits, metadata::confirmation_of(tx, found.id));
        frozen = waits.frozen;
        if (!frozen) return {};
        TRY(EventLog::add_in(tx, "volume.thawed", found.id.to_string(),
                             "by force: " + waits.waits_for));
        return metadata::confirm_by_force(tx, found.id);
    });
    core_.events->announce();
    if (!done && done.error().code == Errc::kNotFound)
        return refuse("IncorrectState",
                      fmt::format("no host has told anything of {} yet: start one that has a "
                                  "replica of it",
                                  volume));
    if (!done) return refuse(done.error(), "cannot thaw " + volume);
    if (!frozen)
        return refuse("IncorrectState",
                      fmt::format("volume {} does not wait for hosts after a restore", volume));
    return {};
}

}  // namespace ublkd::daemon
