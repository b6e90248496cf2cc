// The membership group authority (replication R4): stores each volume's membership record,
// authorizes a greater number by compare-and-set, declines any other. The decision is
// replication::decide(), and that who joins holds a place of the volume (place.h); this class runs
// it inside one writing transaction, so that it is on stable storage before anybody hears of it.
// The greatest number ever authorized outlives the volume. Fault points: authority.before_store,
// authority.after_store. Control plane; blocking; thread-safe. docs/metadata.md.
#pragma once

#include <optional>

#include "metadata/store.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/replication/membership.h"

namespace ublkd::metadata {

struct ProposalResult {
    replication::Verdict verdict = replication::Verdict::kDeclined;
    /// What is stored now, whoever won; none where the volume has no record yet, or was deleted.
    std::optional<replication::Membership> current;
};

class Authority {
  public:
    explicit Authority(MetadataStore* store) : store_(store) {}

    /// The volume's record; nullopt where nothing was authorized yet, or the volume was deleted.
    /// kStale, here and of the others: the store was restored, and its hosts have not confirmed the
    /// record yet (restored.h).
    Result<std::optional<replication::Membership>> current(VolumeId volume);

    /// Decides and stores. kAuthorized and kAlreadyYours: `current` is proposal.next. On an error
    /// the outcome is unknown: the same proposal is sent again until it is answered.
    Result<ProposalResult> propose(const replication::Proposal& proposal);

    /// Part of a volume's deletion, in the caller's transaction: nothing is authorized for it any
    /// more.
    static Result<void> retire(Transaction& tx, VolumeId volume);

  private:
    MetadataStore* store_;
};

}  // namespace ublkd::metadata
