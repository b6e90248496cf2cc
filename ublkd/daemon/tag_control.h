// Tags of volumes and instances as the API sees them. Thread-safe; blocking. Owner: Daemon.
#pragma once

#include "ublkd/api/control.h"
#include "ublkd/daemon/core.h"

namespace ublkd::daemon {

class TagControl final : public api::TagControl {
  public:
    explicit TagControl(const Core& core) : core_(core) {}
    api::ApiResult<std::vector<api::TagView>> tags(const std::string& resource) override;
    api::ApiResult<void> add_tags(const std::string& resource, const api::Tags& tags) override;
    api::ApiResult<void> remove_tags(const std::string& resource,
                                     const std::vector<std::string>& keys) override;

  private:
    Core core_;
};

}  // namespace ublkd::daemon
