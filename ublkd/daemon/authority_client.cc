#include "ublkd/daemon/authority_client.h"

namespace ublkd::daemon {

io::Task<Result<std::optional<replication::Membership>>> LocalAuthority::current(VolumeId volume) {
    using Answer = Result<std::optional<replication::Membership>>;
    metadata::Authority* const authority = authority_;
    std::function<Answer()> ask = [authority, volume] { return authority->current(volume); };
    io::Offload<Answer> asked(worker_, std::move(ask));
    co_return co_await asked;
}

io::Task<Result<replication::ProposalOutcome>> LocalAuthority::propose(
    replication::Proposal proposal) {
    using Answer = Result<metadata::ProposalResult>;
    metadata::Authority* const authority = authority_;
    const replication::Proposal* const sent = &proposal;
    std::function<Answer()> ask = [authority, sent] { return authority->propose(*sent); };
    io::Offload<Answer> asked(worker_, std::move(ask));
    Answer answer = co_await asked;
    if (!answer) co_return fail(answer.error());
    replication::ProposalOutcome outcome;
    outcome.verdict = answer->verdict;
    if (answer->current) outcome.current = std::move(*answer->current);
    co_return std::move(outcome);
}

}  // namespace ublkd::daemon
