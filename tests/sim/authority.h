// The authority of a run: one record, changed by the core's own decision. Proposals arrive late or
// never, their answers may be lost.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "ublkd/replication/membership.h"

namespace ublkd::sim {

class World;
struct Replica;
struct Process;

class Authority {
  public:
    explicit Authority(World* world) : world_(world) {}
    void propose(Replica& from, const replication::Proposal& proposal);
    void ask(Replica& from);
    /// It answers nobody.
    bool away() const { return away_ || frozen_; }
    void set_away(bool away) { away_ = away; }
    /// Who proposes hears nothing.
    void lose_answers(bool lose) { loses_answers_ = lose; }
    /// R4: `replica` never joins anything again.
    void bar(ReplicaId replica) { barred_.insert(replica); }
    bool barred(ReplicaId replica) const { return barred_.contains(replica); }
    /// R16: its store is lost, and restored from a backup of before `changes` of the record.
    void restore(std::uint64_t changes);
    bool frozen() const { return frozen_; }
    /// What is in force while the store is behind: what it last authorized.
    const replication::Membership& in_force() const { return frozen_ ? lost_ : record; }
    /// A host answers a restored store.
    void report(Process& process);

    replication::Membership record;

  private:
    void arrive(ReplicaId from, std::uint64_t serial, std::uint64_t proposals,
                const replication::Proposal& proposal);
    void put(const replication::Membership& next);
    World* world_;
    bool away_ = false;
    bool loses_answers_ = false;
    bool frozen_ = false;
    std::set<ReplicaId> barred_;
    std::uint64_t generation_ = 1;
    std::map<std::uint64_t, replication::Membership> authorized_;  // all, by number
    replication::Membership lost_;               // frozen: the record before it was restored
    std::vector<replication::Membership> past_;  // its records, the newest one last
    std::vector<replication::HostReport> reports_;
};

}  // namespace ublkd::sim
