// init, status, version, doctor, hosts, events and rescue as the API sees them. Thread-safe;
// blocking. Owner: Daemon.
#pragma once

#include <chrono>
#include <mutex>

#include "ublkd/api/control.h"
#include "ublkd/daemon/core.h"
#include "ublkd/daemon/volumes.h"

namespace ublkd::daemon {

class SystemControl final : public api::SystemControl {
  public:
    SystemControl(const Core& core, Volumes* volumes) : core_(core), volumes_(volumes) {}

    /// Which host this is, from the state folder; undoes an `init` that was interrupted. Before
    /// anything else.
    Result<void> load_identity();

    bool initialized() const override { return core_.identity->initialized(); }
    api::VersionView version() override;
    api::StatusView status() override;
    std::vector<api::FindingView> doctor() override;
    api::ApiResult<std::optional<api::PoolView>> init(const api::AddPoolRequest& request) override;
    /// The same with a name for the host.
    api::ApiResult<std::optional<api::PoolView>> init_as(const std::string& name,
                                                         const api::AddPoolRequest& request);
    api::ApiResult<std::vector<api::HostView>> hosts() override;
    api::ApiResult<api::HostView> host(const std::string& name) override;
    // host_removal.cc
    api::ApiResult<api::HostView> drain_host(const std::string& name, bool drain) override;
    api::ApiResult<void> remove_host(const std::string& name, bool force) override;
    api::ApiResult<std::vector<api::EventView>> events(std::uint64_t after_sequence, unsigned limit,
                                                       unsigned wait_ms) override;
    api::ApiResult<std::vector<api::OrphanView>> orphans() override;
    api::ApiResult<void> recover_orphan(int device) override;
    api::ApiResult<void> remove_orphan(int device) override;

  private:
    Result<std::optional<HostId>> read_identity();
    Result<void> finish_rebuild();
    Result<void> undo_init();
    Result<void> enter_cluster(HostId host);
    api::HostView view_of(const metadata::HostRecord& record);
    std::string what_comes(const api::VolumeView& volume);
    void count_hosts(api::StatusView& view);
    void count_pools(api::StatusView& view);
    void count_volumes(api::StatusView& view);
    void count_drains(api::StatusView& view);

    Core core_;
    Volumes* volumes_;
    std::mutex init_;  // one at a time
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace ublkd::daemon
