// Messages between two hosts of the simulation go through the bytes of the peer protocol
// (ublkd/peer), as in the daemon. So each run shows that a peer takes whatever the core sends, and
// that nothing which the core needs is lost on the way.
#pragma once

#include "ublkd/peer/decoder.h"
#include "ublkd/replication/message.h"

namespace ublkd::sim {

class World;

class Wire {
  public:
    explicit Wire(World* world);
    /// What comes out at the other side; its data lies in the world's memory. `route` and `into`,
    /// which are each side's own, stay.
    replication::Message through(const replication::Message& message);

  private:
    World* world_;
    peer::Decoder decoder_;
};

}  // namespace ublkd::sim
