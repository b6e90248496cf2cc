#include "metadata/authority.h"

#include <algorithm>

#include "metadata/place.h"
#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata {
namespace {

using replication::Membership;
using replication::Proposal;
using replication::Verdict;

/// Whether `next` adds a replica from which a permission was taken (permission.h): it never joins
/// anything again.
Result<bool> adds_a_past_holder(Transaction& tx, const MembershipRecord& stored,
                                const Membership& next) {
    if (faults::rule_off("rule.past_holder_never_joins")) return false;
    for (const replication::Member& member : next.members) {
        if (stored.membership && stored.membership->has(member.replica)) continue;
        Query query = where("incarnation", member.replica);
        query.limit = 1;
        auto past = tx.list<PastHolderRecord>(query);
        if (!past) return fail(past.error());
        if (!past->empty()) return true;
    }
    return false;
}

/// Whether each member that `next` adds, or names with another host or pool, holds a place of the
/// volume.
Result<bool> members_hold_places(Transaction& tx, const MembershipRecord& stored,
                                 const Membership& next) {
    if (faults::rule_off("rule.members_hold_places")) return true;
    for (const replication::Member& member : next.members) {
        const replication::Member* const before =
            stored.membership ? stored.membership->find(member.replica) : nullptr;
        if (before != nullptr && *before == member) continue;
        TRY_ASSIGN(const bool holds, holds_place(tx, next.volume, member));
        if (!holds) return false;
    }
    return true;
}

Result<Verdict> judge(Transaction& tx, const MembershipRecord& stored, const Proposal& proposal) {
    if (stored.retired && !faults::rule_off("rule.retired_volume_declined"))
        return Verdict::kDeclined;
    const Verdict verdict = replication::decide(stored.membership, proposal);
    if (verdict != Verdict::kAuthorized) return verdict;
    auto barred = adds_a_past_holder(tx, stored, proposal.next);
    if (!barred) return fail(barred.error());
    if (*barred) return Verdict::kBarred;
    // Unlike a bar this may change: who holds none may be granted one later.
    TRY_ASSIGN(const bool all_hold, members_hold_places(tx, stored, proposal.next));
    return all_hold ? Verdict::kAuthorized : Verdict::kDeclined;
}

}  // namespace

Result<std::optional<Membership>> Authority::current(VolumeId volume) {
    auto stored = store_->get<MembershipRecord>(volume);
    if (!stored) return fail(stored.error());
    if (!*stored || (*stored)->retired) return std::optional<Membership>();
    if ((*stored)->frozen && !faults::rule_off("rule.restored_is_frozen"))
        return fail(Errc::kStale, kFrozen);
    return (*stored)->membership;
}

Result<ProposalResult> Authority::propose(const Proposal& proposal) {
    TRY(replication::validate(proposal.next));
    (void)faults::hit("authority.before_judgement");
    auto outcome =
        store_->write_for<ProposalResult>([&](Transaction& tx) -> Result<ProposalResult> {
            auto found = tx.get<MembershipRecord>(proposal.next.volume);
            if (!found) return fail(found.error());
            MembershipRecord stored =
                found->value_or(MembershipRecord{.volume = proposal.next.volume});
            if (stored.frozen && !faults::rule_off("rule.restored_is_frozen"))
                return fail(Errc::kStale, kFrozen);
            TRY_ASSIGN(const Verdict verdict, judge(tx, stored, proposal));
            if (verdict != Verdict::kAuthorized) {
                if (stored.retired) return ProposalResult{verdict, std::nullopt};
                return ProposalResult{verdict, stored.membership};
            }
            CHECK(proposal.next.number > stored.greatest_number ||
                      faults::rule_off("rule.accept_equal_number") ||
                      faults::rule_off("rule.retired_volume_declined"),
                  "a number is authorized once");
            stored.membership = proposal.next;
            stored.greatest_number = std::max(stored.greatest_number, proposal.next.number);
            if (const int error = faults::hit("authority.before_store"))
                return fail_errno(error, "store membership");
            if (!faults::rule_off("rule.authority_store_first")) {
                TRY(tx.put(stored));
            }
            return ProposalResult{verdict, stored.membership};
        });
    if (outcome && outcome->verdict == Verdict::kAuthorized) {
        if (const int error = faults::hit("authority.after_store"))
            return fail_errno(error, "answer proposal");
    }
    return outcome;
}

Result<void> Authority::retire(Transaction& tx, VolumeId volume) {
    auto found = tx.get<MembershipRecord>(volume);
    if (!found) return fail(found.error());
    MembershipRecord stored = found->value_or(MembershipRecord{.volume = volume});
    if (stored.retired) return {};
    if (stored.frozen) return fail(Errc::kStale, kFrozen);
    stored.retired = true;
    return tx.put(stored);
}

}  // namespace ublkd::metadata
