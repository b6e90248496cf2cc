// A host's daemon in a run: the replicas that it has open, and what ublkd/volume does around the
// core (which stores are opened at a start, what their nodes are told, who is closed when).
#pragma once

#include <memory>
#include <vector>

#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "ublkd/replication/node.h"

namespace ublkd::sim {

class World;
struct Process;

/// One open replica: its node and the node's effects, over the world's clock.
struct Replica final : replication::Effects {
    Replica(World* world, Process* process, Disk* disk);

    void send(const replication::Message& message) override;
    void disk(const replication::DiskRequest& request) override;
    void store(const replication::StoreRequest& request) override;
    void extent(std::uint64_t token, Range range) override;
    replication::RegionSet activity() override;
    void clear_activity(const replication::RegionSet& regions, std::uint64_t through) override;
    void mark(std::uint64_t through) override;
    replication::UnitSet dirty(ReplicaId lost) override;
    void acquire_buffer(std::uint64_t token, std::size_t bytes) override;
    void release_buffer(std::uint32_t handle) override;
    void propose(const replication::Proposal& proposal) override;
    void ask_authority() override;
    void start_timer(replication::TimerKind kind, std::uint32_t milliseconds) override;
    void notice(const replication::Notice& notice) override;

    /// Calls `function` in so many microseconds, if this replica is still open then.
    void after(std::uint64_t microseconds, std::function<void()> function);
    bool idle() const { return disk_ops.empty() && store_ops.empty() && node.open_ops() == 0; }
    /// An answer to a question of its own, whether the primary is well.
    void hear_health(const replication::Message& message);
    /// The process dies: of what is in the disk's queue any part is done.
    void die();

    struct DiskOp {
        std::uint64_t id = 0;
        replication::DiskRequest request{};
        Disk::Snapshot snapshot{};  // of a flush: what had ended when it began
        bool begun = false;         // a change: what notes it is on the disk
    };
    struct StoreOp {
        std::uint64_t token = 0;
        bool keep_record = false;
        std::optional<replication::Membership> record;
        std::optional<replication::Membership> left_by;
        std::optional<std::optional<replication::Proposal>> pending;
        std::uint64_t boot = 0;
        bool ids_anew = false;
        std::uint64_t durable_through = 0;
        replication::LostMembers lost{};
        bool marks = false;  // the mark alone
    };

    World* world;
    Process* process;
    Disk* place;
    std::uint64_t serial;
    replication::AppliedIds ids;
    replication::Node node;
    std::vector<DiskOp> disk_ops;
    std::deque<StoreOp> store_ops;
    std::vector<std::vector<std::byte>*> buffers;
    std::uint64_t proposals = 0;
    std::uint64_t health_asked = 0;  // R6: the last question
    bool told_well = false;          // by the primary, in answer to it, and that it serves others
    replication::LostMembers known_lost{};

  private:
    void begin_disk_op(std::uint64_t id);
    void end_disk_op(std::uint64_t id);
    void end_store_op();
    void apply_store(const StoreOp& op);
};

struct Process {
    std::size_t index = 0;
    Running running;
    std::uint64_t boot = 1;
    std::uint64_t store_generation = 1;  // R16: of the authority's store, as promised to it
    bool started = false;                // it knows the record, and has opened its replicas
    std::vector<std::unique_ptr<Replica>> replicas;
};

}  // namespace ublkd::sim
