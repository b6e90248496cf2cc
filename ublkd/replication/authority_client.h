// How a volume reaches the authority of its membership (replication R4): read the record, propose
// the next one. The daemon implements it over metadata::Authority (a blocking SQLite transaction,
// run on a worker); a test by a map.
//
// Called on the volume's reactor, one proposal at a time per volume. An error (kTimedOut, kClosed,
// kIo...) says nothing about the outcome: the proposal may still arrive, so the same one is sent
// again until it is authorized or a greater number is read. See docs/replication.md.
#pragma once

#include <optional>

#include "ublkd/base/result.h"
#include "ublkd/io/task.h"
#include "ublkd/replication/membership.h"

namespace ublkd::replication {

struct ProposalOutcome {
    Verdict verdict = Verdict::kDeclined;
    Membership current;  // what the authority holds after the decision
};

class AuthorityClient {
  public:
    virtual ~AuthorityClient() = default;
    /// The record of `volume`; nullopt where it has none yet. Errors: the authority could not be
    /// asked.
    virtual io::Task<Result<std::optional<Membership>>> current(VolumeId volume) = 0;
    /// Decides and, where authorized, stores durably before it answers. Errors: the outcome is
    /// unknown.
    virtual io::Task<Result<ProposalOutcome>> propose(Proposal proposal) = 0;
};

}  // namespace ublkd::replication
