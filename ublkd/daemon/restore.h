// A restore of the metadata: the backup is checked and kept in the state folder by a request, and
// put in the place of the store's rows by the next start, before anybody uses them. Killed at any
// point that start is made again; the store has the old rows or the new ones. docs/metadata.md.
#pragma once

#include <expected>
#include <string>

#include "metadata/backup/backup_file.h"
#include "metadata/sqlite_store.h"
#include "ublkd/daemon/configuration.h"

namespace ublkd::daemon {

/// In the state folder: what the next start restores; what was replaced then.
std::string pending_restore_file(const Configuration& configuration);
std::string before_restore_file(const Configuration& configuration);

/// Which of the backup's hosts this one is: by its id where it has one, else by its name. None: it
/// is none of them.
Result<HostId> own_host_in(const metadata::Backup& backup, const Configuration& configuration);

/// What is kept for the next start: the backup with all its memberships frozen. "": its rows are
/// none. `restores_before`: of the store that it replaces.
std::string text_to_restore(metadata::Backup backup, std::uint64_t restores_before);

/// `store`: none where the metadata are in etcd. Fault points: restore.before_commit,
/// restore.after_commit. An error is one line for a person.
std::expected<void, std::string> apply_pending_restore(const Configuration& configuration,
                                                       metadata::SqliteStore* store);

}  // namespace ublkd::daemon
