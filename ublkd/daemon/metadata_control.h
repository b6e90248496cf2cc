// What is done with the metadata as a whole: backups, and what becomes of them. Thread-safe;
// blocking. Owner: Daemon. docs/metadata.md, "Backup and restore".
#pragma once

#include <mutex>

#include "metadata/backup/backup_file.h"
#include "ublkd/api/control.h"
#include "ublkd/daemon/core.h"
#include "ublkd/daemon/rebuild.h"
#include "ublkd/daemon/system_control.h"

namespace ublkd::daemon {

class MetadataControl final : public api::MetadataControl {
  public:
    MetadataControl(const Core& core, SystemControl* system) : core_(core), system_(system) {}
    api::ApiResult<api::BackupView> backup() override;
    api::ApiResult<api::BackupView> restore(const api::RestoreRequest& request) override;
    api::ApiResult<api::PlanView> plan_restore(const api::RestoreRequest& request) override;
    api::ApiResult<api::RebuildView> rebuild(const api::RebuildRequest& request) override;
    api::ApiResult<api::PlanView> plan_rebuild(const api::RebuildRequest& request) override;
    api::ApiResult<void> thaw(const std::string& volume) override;

  private:
    /// A backup that may be restored here.
    struct Checked {
        metadata::Backup backup;
        metadata::AllRows now;  // what it is to replace
    };
    Result<metadata::Backup> read_now();
    api::ApiResult<Checked> check(const api::RestoreRequest& request);

    api::ApiResult<FoundHost> find_lost(const api::RebuildRequest& request);

    const Core core_;
    SystemControl* const system_;
    std::mutex rebuild_;  // one at a time
};

}  // namespace ublkd::daemon
