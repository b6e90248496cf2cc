#include "ublkd/daemon/authority_client.h"

#include "ublkd/base/fault_injection.h"

namespace ublkd::daemon {

Result<void> LocalAuthority::check_promise(std::uint64_t asked_in) const {
    if (asked_in == promises_ || faults::rule_off("rule.reports_promise")) return {};
    return fail(Errc::kTimedOut, "the authority was asked before its store was restored");
}

io::Task<Result<std::optional<replication::Membership>>> LocalAuthority::current(VolumeId volume) {
    using Answer = Result<std::optional<replication::Membership>>;
    const std::uint64_t asked_in = promises_;
    metadata::Authority* const authority = authority_;
    std::function<Answer()> ask = [authority, volume] { return authority->current(volume); };
    io::Offload<Answer> asked(worker_, std::move(ask));
    Answer answer = co_await asked;
    CO_TRY(check_promise(asked_in));
    co_return std::move(answer);
}

io::Task<Result<replication::ProposalOutcome>> LocalAuthority::propose(
    replication::Proposal proposal) {
    using Answer = Result<metadata::ProposalResult>;
    const std::uint64_t asked_in = promises_;
    metadata::Authority* const authority = authority_;
    const replication::Proposal* const sent = &proposal;
    std::function<Answer()> ask = [authority, sent] { return authority->propose(*sent); };
    io::Offload<Answer> asked(worker_, std::move(ask));
    Answer answer = co_await asked;
    CO_TRY(check_promise(asked_in));
    if (!answer) co_return fail(answer.error());
    replication::ProposalOutcome outcome;
    outcome.verdict = answer->verdict;
    if (answer->current) outcome.current = std::move(*answer->current);
    co_return std::move(outcome);
}

}  // namespace ublkd::daemon
