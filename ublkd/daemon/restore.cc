#include "ublkd/daemon/restore.h"

#include <fmt/format.h>

#include <algorithm>

#include "metadata/etcd/etcd_filler.h"
#include "metadata/restored.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/etcd_metadata.h"

namespace ublkd::daemon {
namespace {

using metadata::AllRows;
using metadata::Transaction;
using metadata::WholeStore;

/// States of a store begin at a multiple of this: it is more than one store has in its life.
constexpr std::uint64_t kStatesOfOne = std::uint64_t{1} << 40;

std::unexpected<std::string> failed(const std::string& what, const Error& error) {
    return std::unexpected(fmt::format("{}: {}", what, to_string(error)));
}

/// In the place of all rows, frozen.
Result<void> put_into_sqlite(metadata::SqliteStore* store, const AllRows& rows) {
    TRY_ASSIGN(const AllRows now, WholeStore::read(store));
    TRY(store->skip_states((std::max(now.state, rows.state) / kStatesOfOne + 1) * kStatesOfOne));
    TRY(store->write([&](Transaction& tx) -> Result<void> {
        TRY(WholeStore::replace(tx, rows));
        if (const int error = faults::hit("restore.before_commit"))
            return fail_errno(error, "restore the metadata");
        return {};
    }));
    (void)faults::hit("restore.after_commit");
    return {};
}

Result<void> put_into_etcd(const metadata::EtcdOptions& options, const AllRows& rows, HostId own) {
    TRY_ASSIGN(auto filler, metadata::EtcdFiller::make(options));
    const std::string by = "restore at " + own.to_string();
    TRY(filler.fill(rows, by, true));
    TRY(filler.finish(by));
    (void)faults::hit("restore.after_commit");
    return {};
}

Result<void> put_rows(const metadata::EtcdOptions* etcd, metadata::SqliteStore* store,
                      const AllRows& rows, HostId own) {
    return store != nullptr ? put_into_sqlite(store, rows) : put_into_etcd(*etcd, rows, own);
}

}  // namespace

std::string pending_restore_file(const Configuration& configuration) {
    return configuration.state_dir + "/restore-pending";
}

std::string before_restore_file(const Configuration& configuration) {
    return configuration.state_dir + "/before-restore";
}

Result<HostId> own_host_in(const metadata::Backup& backup, const Configuration& configuration) {
    HostId own;
    const auto text = read_file(configuration.host_file());
    if (text) own = HostId::parse(text->substr(0, text->find('\n'))).value_or(HostId());
    if (!text && text.error().code != Errc::kNotFound) return fail(text.error());
    for (const auto& row : backup.rows.of(metadata::table_of<metadata::HostRecord>()).rows) {
        TRY_ASSIGN(const auto host, metadata::decode_row<metadata::HostRecord>(row));
        if (own ? host.id == own : host.name == configuration.host_name) return host.id;
    }
    return HostId();
}

std::string text_to_restore(metadata::Backup backup, std::uint64_t restores_before) {
    const auto then = metadata::restores_of(backup.rows);
    const std::uint64_t restores = std::max(then.value_or(0), restores_before) + 1;
    if (!metadata::freeze_all(backup.rows, restores)) return "";
    return metadata::backup_text(backup);
}

std::expected<void, std::string> apply_pending_restore(const Configuration& configuration,
                                                       metadata::SqliteStore* store) {
    const std::string file = pending_restore_file(configuration);
    const auto text = read_file(file, metadata::kBackupMax);
    if (!text && text.error().code == Errc::kNotFound) return {};
    if (!text) return failed("cannot read " + file, text.error());
    auto backup = metadata::read_backup(*text);
    if (!backup)
        return failed(fmt::format("cannot restore {} (delete it to start without)", file),
                      backup.error());
    const auto own = own_host_in(*backup, configuration);
    if (!own) return failed("cannot restore " + file, own.error());
    if (!*own)
        return std::unexpected(
            fmt::format("{} knows no host {}: set host.name, or delete it to start without", file,
                        configuration.host_name));
    std::expected<metadata::EtcdOptions, std::string> etcd;
    if (store == nullptr) etcd = etcd_options(configuration);
    if (!etcd) return std::unexpected(etcd.error());
    if (const auto put = put_rows(&*etcd, store, backup->rows, *own); !put)
        return failed("cannot restore " + file, put.error());
    auto done = write_file_durably(configuration.host_file(), own->to_string() + "\n", 0600);
    if (done) done = remove_file_durably(file);
    if (!done) return failed("cannot end the restore of " + file, done.error());
    log::info("the metadata were restored from the backup of {}", backup->host);
    return {};
}

}  // namespace ublkd::daemon
