// The authority of a run: one record, changed by the core's own decision. Proposals arrive late or
// never, their answers may be lost.
#pragma once

#include "ublkd/replication/membership.h"

namespace ublkd::sim {

class World;
struct Replica;

class Authority {
  public:
    explicit Authority(World* world) : world_(world) {}
    void propose(Replica& from, const replication::Proposal& proposal);
    void ask(Replica& from);

    replication::Membership record;

  private:
    void arrive(ReplicaId from, std::uint64_t serial, std::uint64_t proposals,
                const replication::Proposal& proposal);
    World* world_;
};

}  // namespace ublkd::sim
