#include "tests/sim/authority.h"

#include <algorithm>

#include "tests/sim/world.h"
#include "ublkd/base/fault_injection.h"

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

/// The asker of proposal `number` gets no answer, unless it has sent another one by then.
void times_out(Replica& asker, std::uint64_t number, std::uint64_t microseconds) {
    asker.after(microseconds, [&asker, number] {
        if (asker.proposals == number)
            asker.node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
    });
}

}  // namespace

void Authority::propose(Replica& from, const replication::Proposal& proposal) {
    // On its way it depends on no process: a proposal of one that died may arrive.
    const std::uint64_t number = ++from.proposals;
    if (away() || world_->timing.one_in(8)) {
        times_out(from, number, world_->timing.spread(1000, 50'000));
        if (away() || world_->timing.one_in(2)) return;
    }
    world_->clock.after(world_->timing.spread(100, 20'000), nullptr,
                        [this, id = from.place->member.replica, serial = from.serial, number,
                         proposal] { arrive(id, serial, number, proposal); });
}

void Authority::arrive(ReplicaId from, std::uint64_t serial, std::uint64_t proposals,
                       const replication::Proposal& proposal) {
    Replica* const found = world_->replica(from);
    Replica* const asker = found != nullptr && found->serial == serial ? found : nullptr;
    if (frozen_) {
        if (asker != nullptr) times_out(*asker, proposals, 1);
        return;
    }
    Verdict verdict = decide(record, proposal);
    const bool adds_barred = std::any_of(
        proposal.next.members.begin(), proposal.next.members.end(),
        [&](const auto& member) { return barred(member.replica) && !record.has(member.replica); });
    if (verdict == Verdict::kAuthorized && adds_barred) verdict = Verdict::kBarred;
    if (verdict == Verdict::kAuthorized) {
        if (proposal.next.loss_count > record.loss_count) world_->check_loss(record);
        past_.push_back(record);
        put(proposal.next);
    }
    if (tracing)
        trace(world_->clock.now_us(), "authority: %llu proposes %s: %s",
              static_cast<unsigned long long>(from.value()), text(proposal.next).c_str(),
              verdict == Verdict::kAuthorized     ? "authorized"
              : verdict == Verdict::kAlreadyYours ? "already so"
              : verdict == Verdict::kBarred       ? "barred"
                                                  : "declined");
    if (asker == nullptr) return;
    // The answer may be lost, which the asker takes for a deadline that passed.
    const bool lost = world_->timing.one_in(4) || loses_answers_;
    asker->after(world_->timing.spread(50, 2000),
                 [asker, proposals, verdict, lost, generation = generation_, current = record] {
                     if (asker->proposals != proposals) return;  // another one was sent since
                     const bool old = generation < asker->process->store_generation &&
                                      !faults::rule_off("rule.reports_promise");
                     if (lost || old) {
                         asker->node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
                     } else {
                         asker->node.on_outcome(verdict, &current);
                     }
                 });
}

/// A number that was authorized once is never another record's, also where the store lost it.
void Authority::put(const replication::Membership& next) {
    if (const auto [one, first] = authorized_.emplace(next.number, next);
        !first && one->second != next)
        world_->wrong("two records of number " + std::to_string(next.number) + " were authorized");
    record = next;
}

void Authority::ask(Replica& from) {
    from.after(world_->timing.spread(100, 5000), [this, &from] {
        if (away()) {
            from.node.on_current(fail(Errc::kTimedOut, "the authority"));
        } else {
            from.node.on_current(&record);
        }
    });
}

// ---- R16

void Authority::restore(std::uint64_t changes) {
    trace(world_->clock.now_us(), "authority: RESTORED, %llu changes are lost",
          static_cast<unsigned long long>(std::min<std::uint64_t>(changes, past_.size())));
    if (!frozen_) lost_ = record;
    for (; changes > 0 && !past_.empty(); --changes) {
        record = past_.back();
        past_.pop_back();
    }
    frozen_ = true;
    ++generation_;
    reports_.clear();
}

void Authority::report(Process& process) {
    if (!frozen_ || away_) return;
    process.store_generation = generation_;
    std::erase_if(reports_,
                  [&](const auto& other) { return other.host == HostId(process.index + 1); });
    reports_.push_back(world_->report_of(process));
    const auto next = replication::thawed(record, generation_, reports_);
    if (!next) return;
    put(*next);
    frozen_ = false;
    ++world_->counts.restores;
    trace(world_->clock.now_us(), "authority: goes on with %s", text(record).c_str());
}

}  // namespace ublkd::sim
