// Instances, permissions and tags as the API sees them: thin over the metadata. Thread-safe;
// blocking. Owner: Daemon. Fault points: daemon.instance_delete.{after_detach,after_delete}.
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
