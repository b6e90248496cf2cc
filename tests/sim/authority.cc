#include "tests/sim/authority.h"

#include "tests/sim/world.h"

namespace ublkd::sim {

using replication::Verdict;

namespace {

std::string text(const replication::Membership& record) {
    std::string members;
    for (const replication::Member& member : record.members)
        members += " " + std::to_string(member.replica.value());
    return std::to_string(record.number) + ", primary " + std::to_string(record.primary.value()) +
           ", members" + members + ", losses " + std::to_string(record.loss_count);
}

}  // namespace

void Authority::propose(Replica& from, const replication::Proposal& proposal) {
    // On its way it depends on no process: a proposal of one that died may arrive.
    const std::uint64_t number = ++from.proposals;
    if (world_->timing.one_in(8)) {
        from.after(world_->timing.spread(1000, 50'000), [&from, number] {
            if (from.proposals == number)
                from.node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
        });
        if (world_->timing.one_in(2)) return;
    }
    world_->clock.after(world_->timing.spread(100, 20'000), nullptr,
                        [this, id = from.place->member.replica, serial = from.serial, number,
                         proposal] { arrive(id, serial, number, proposal); });
}

void Authority::arrive(ReplicaId from, std::uint64_t serial, std::uint64_t proposals,
                       const replication::Proposal& proposal) {
    const Verdict verdict = decide(record, proposal);
    if (verdict == Verdict::kAuthorized) record = proposal.next;
    if (tracing)
        trace(world_->clock.now_us(), "authority: %llu proposes %s: %s",
              static_cast<unsigned long long>(from.value()), text(proposal.next).c_str(),
              verdict == Verdict::kAuthorized     ? "authorized"
              : verdict == Verdict::kAlreadyYours ? "already so"
                                                  : "declined");
    Replica* const asker = world_->replica(from);
    if (asker == nullptr || asker->serial != serial) return;
    // The answer may be lost, which the asker takes for a deadline that passed.
    const bool lost = world_->timing.one_in(4);
    asker->after(world_->timing.spread(50, 2000),
                 [asker, proposals, verdict, lost, current = record] {
                     if (asker->proposals != proposals) return;  // another one was sent since
                     if (lost) {
                         asker->node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
                     } else {
                         asker->node.on_outcome(verdict, &current);
                     }
                 });
}

void Authority::ask(Replica& from) {
    from.after(world_->timing.spread(100, 5000), [this, &from] { from.node.on_current(&record); });
}

}  // namespace ublkd::sim
