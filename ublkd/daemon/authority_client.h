// How a volume of this daemon reaches the authority: metadata::Authority (a blocking transaction)
// on a worker thread. Called on the volumes' reactors. Owner: Daemon; outlives the volumes.
#pragma once

#include <atomic>
#include <cstdint>

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
    /// R16: what was asked before is answered kTimedOut from now on, whatever the store says: it
    /// was restored, and this host is about to report what it knows. Any thread.
    void promise() { ++promises_; }

  private:
    Result<void> check_promise(std::uint64_t asked_in) const;
    metadata::Authority* authority_;
    std::atomic<std::uint64_t> promises_ = 0;  // looked at on the asker's reactor
    io::Worker worker_;
};

}  // namespace ublkd::daemon
