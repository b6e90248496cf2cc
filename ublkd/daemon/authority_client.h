// How a volume of this daemon reaches the authority: metadata::Authority (a blocking transaction)
// on a worker thread. Called on the volumes' reactors. Owner: Daemon; outlives the volumes.
#pragma once

#include "metadata/authority.h"
#include "ublkd/io/worker.h"
#include "ublkd/replication/authority_client.h"

namespace ublkd::daemon {

class LocalAuthority final : public replication::AuthorityClient {
  public:
    explicit LocalAuthority(metadata::Authority* authority)
        : authority_(authority), worker_("authority") {}
    io::Task<Result<std::optional<replication::Membership>>> current(VolumeId volume) override;
    io::Task<Result<replication::ProposalOutcome>> propose(replication::Proposal proposal) override;

  private:
    metadata::Authority* authority_;
    io::Worker worker_;
};

}  // namespace ublkd::daemon
