// Permissions as the API sees them: who may host what. Thread-safe; blocking. Owner: Daemon.
#pragma once

#include "ublkd/api/control.h"
#include "ublkd/daemon/core.h"

namespace ublkd::daemon {

class Permissions final : public api::PermissionControl {
  public:
    explicit Permissions(const Core& core) : core_(core) {}
    api::ApiResult<std::vector<api::PermissionView>> permissions() override;
    api::ApiResult<api::PermissionAnswer> request_permission(
        const api::PermissionRequest& request) override;
    api::ApiResult<void> revoke_permission(const std::string& resource) override;

  private:
    Core core_;
};

}  // namespace ublkd::daemon
