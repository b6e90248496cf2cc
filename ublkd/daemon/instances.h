// Instances as the API sees them: what volumes are attached to. Thread-safe; blocking. Owner:
// Daemon. Fault points: daemon.instance_delete.{after_detach,after_delete}.
#pragma once

#include "ublkd/api/control.h"
#include "ublkd/daemon/core.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

class Instances final : public api::InstanceControl {
  public:
    Instances(const Core& core, Volumes* volumes) : core_(core), volumes_(volumes) {}
    api::ApiResult<api::InstanceView> create_instance(const std::string& name,
                                                      const api::Tags& tags) override;
    api::ApiResult<std::vector<api::InstanceView>> instances() override;
    api::ApiResult<api::InstanceView> instance(const std::string& name) override;
    /// Detaches its volumes, and deletes those that were attached so; refused for the host's own.
    /// Killed in between, the same request again finishes it.
    api::ApiResult<void> delete_instance(const std::string& name) override;

  private:
    api::ApiResult<api::InstanceView> view_of(const metadata::InstanceRecord& record);
    Core core_;
    Volumes* volumes_;
};

}  // namespace ublkd::daemon
