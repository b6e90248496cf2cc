// The cluster's authority at work, at the host that has its key: makes tokens, admits the hosts
// that come with one, signs what hosts with a certificate ask for. The key is read from its file
// each time. docs/cluster.md, "Certificates". Thread-safe; blocking.
//
// Owner: Daemon. Rule: rule.token_once.
#pragma once

#include "metadata/store.h"
#include "ublkd/api/routes_enrol.h"
#include "ublkd/api/views.h"
#include "ublkd/daemon/configuration.h"
#include "ublkd/daemon/event_log.h"
#include "ublkd/daemon/identity.h"

namespace ublkd::daemon {

class Enrolment final : public api::Enrolment {
  public:
    Enrolment(const Configuration* configuration, metadata::MetadataStore* store,
              const Identity* identity)
        : configuration_(configuration), store_(store), identity_(identity) {}

    api::ApiResult<api::JoinTokenView> make_token(std::uint64_t life_seconds);
    api::ApiResult<api::Admitted> admit(const api::AdmitRequest& request) override;
    api::ApiResult<std::string> renew(const std::vector<std::string>& certified,
                                      const std::string& request) override;
    /// Whoever asks is trusted: this host itself.
    api::ApiResult<std::string> sign(const std::string& host_name, const std::string& request);

  private:
    struct Claim;
    Result<void> judge(metadata::Transaction& tx, Claim& claim);
    Result<void> admit_in(metadata::Transaction& tx, Claim& claim);

    const Configuration* configuration_;
    metadata::MetadataStore* store_;
    const Identity* identity_;
};

}  // namespace ublkd::daemon
