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
    Request* of = nullptr;  // kCutHolds: the kCut
};

/// One attachment of the volume: the client in its process, and the guest that uses it.
class Attachment final : public replication::ClientEffects {
  public:
    Attachment(World* owner, Process* where, Endpoint number)
        : process(where), endpoint(number), id(number), world_(owner) {}

    /// The process starts: what the guest has no answer for is sent again under the same ids.
    void start();
    /// The guest died with its host.
    void guest_dies();
    void issue();
    /// Of a script: a flush, or a read or write of one sector.
    void issue(replication::OpKind kind, std::size_t sector);
    /// One request more, now or when its process has started.
    void last_issue();
    void scribble();
    std::size_t open() const;
    /// Sectors and values of writes without an answer.
    std::vector<std::pair<std::size_t, std::uint64_t>> unanswered() const;
    /// What the kHold `token` that was sent is to keep changes off.
    std::optional<Range> range_of(replication::OpKind kind, std::uint64_t token) const;
    /// What `disk` lacks of the change that `answer` tells this attachment of; "": nothing.
    std::string missing(const replication::Message& answer, const Disk& disk) const;

    Process* process;
    Endpoint endpoint;
    AttachmentId id;  // its token in the record, where there are several hosts
    std::unique_ptr<replication::Client> client;
    bool forced_off = false;  // its guest asks for nothing new

  private:
    void send_to_node(const replication::Message& message) override;
    void start_timer(std::uint32_t milliseconds) override;
    bool close(ReplicaId replica) override;
    void ask_authority() override;
    std::unique_ptr<Request> make();
    void submit(std::unique_ptr<Request> made);
    void answered(Request& request);
    void ask_whether_it_holds(Request& cut);
    void crash();

    World* world_;
    std::vector<std::unique_ptr<Request>> requests_;
    std::uint64_t sequence_ = 0;
    std::uint64_t guest_start_ = 0;
    bool owes_last_ = false;
    std::uint64_t losses_ = replication::kAnyLosses;  // R9: outlives the process, as the guest does
};

}  // namespace ublkd::sim
