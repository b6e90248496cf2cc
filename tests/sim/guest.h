// A guest: sends requests through a client of the core and writes down what it saw (history.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/disk.h"
#include "tests/sim/network.h"
#include "ublkd/replication/client.h"

namespace ublkd::sim {

class World;
struct Process;
class Attachment;

struct Request : replication::ClientRequest {
    Attachment* attachment = nullptr;
    std::uint64_t begin = 0;
    std::vector<std::uint64_t> values;  // per sector
    std::vector<std::byte>* memory = nullptr;
    bool answered = false;
};

/// One attachment of the volume: the client in its process, and the guest that uses it.
class Attachment final : public replication::ClientEffects {
  public:
    Attachment(World* owner, Process* where, Endpoint number)
        : process(where), endpoint(number), world_(owner) {}

    /// The process starts: what the guest has no answer for is sent again under the same ids.
    void start();
    /// The guest died with its host.
    void guest_dies();
    void issue();
    void scribble();
    std::size_t open() const;
    /// What `disk` lacks of the change that `answer` tells this attachment of; "": nothing.
    std::string missing(const replication::Message& answer, const Disk& disk) const;

    Process* process;
    Endpoint endpoint;
    std::unique_ptr<replication::Client> client;

  private:
    void send_to_node(const replication::Message& message) override;
    void answered(Request& request);

    World* world_;
    std::vector<std::unique_ptr<Request>> requests_;
    std::uint64_t sequence_ = 0;
    std::uint64_t guest_start_ = 0;
};

}  // namespace ublkd::sim
