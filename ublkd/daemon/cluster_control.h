// `ebs-cli cluster` as the API sees it: the cluster's beginning, tokens, and this host's way into a
// cluster. What is written counts at the next start. Thread-safe; blocking. Owner: Daemon.
#pragma once

#include <mutex>

#include "ublkd/api/control.h"
#include "ublkd/daemon/core.h"
#include "ublkd/daemon/enrolment.h"
#include "ublkd/daemon/join_token.h"
#include "ublkd/daemon/system_control.h"

namespace ublkd::daemon {

class ClusterControl final : public api::ClusterControl {
  public:
    /// `enrolment`: where the cluster's authority is here.
    ClusterControl(const Core& core, SystemControl* system, Enrolment* enrolment)
        : core_(core), system_(system), enrolment_(enrolment) {}

    api::ApiResult<api::ClusterView> init_cluster(const api::InitClusterRequest& request) override;
    api::ApiResult<api::JoinTokenView> make_token(std::uint64_t life_seconds) override;
    api::ApiResult<api::ClusterView> join(const api::JoinClusterRequest& request) override;

  private:
    api::ApiResult<void> check_is_free();
    api::ApiResult<std::string> be_named(const std::string& wanted);
    api::ApiResult<api::Admitted> ask(const JoinToken& token, const std::string& name,
                                      const std::string& key);

    Core core_;
    SystemControl* system_;
    Enrolment* enrolment_;
    std::mutex one_;  // at a time
};

}  // namespace ublkd::daemon
