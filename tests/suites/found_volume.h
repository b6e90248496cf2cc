// A new volume as the daemon makes it: replicas, the first record with the first of them as
// primary, the record in all members.
#pragma once

#include "ublkd/replication/authority_client.h"
#include "ublkd/volume/founding.h"

namespace ublkd::suites {

inline io::Task<Result<void>> found_volume(io::Reactor* reactor, io::BufferPool* buffers,
                                           volume::VolumeConfig config,
                                           replication::AuthorityClient* authority) {
    replication::Proposal proposal;
    proposal.next.volume = config.id;
    proposal.next.number = 1;
    for (std::size_t i = 0; i < config.replicas.size(); ++i) {
        CO_TRY(co_await volume::make_replica(reactor, buffers, &config, &config.replicas[i]));
        proposal.next.members.push_back(config.replicas[i].member);
    }
    proposal.proposer = proposal.next.primary = proposal.next.members.front().replica;
    const replication::Membership record = proposal.next;
    auto proposing = authority->propose(std::move(proposal));
    const auto outcome = co_await proposing;
    if (!outcome) co_return fail(outcome.error());
    if (!replication::accepted(outcome->verdict))
        co_return fail(Errc::kConflict, "the volume has a membership already");
    for (std::size_t i = 0; i < config.replicas.size(); ++i) {
        CO_TRY(co_await volume::seal_member(reactor, buffers, &config.replicas[i], &record));
    }
    co_return Result<void>{};
}

}  // namespace ublkd::suites
