// One replica of this process: its store, its node of the core, and the node's effects. Private to
// the driver.
#pragma once

#include "ublkd/volume/disk_watch.h"
#include "ublkd/volume/driver.h"

namespace ublkd::volume {

struct Volume::Driver::HostTimer : io::Reactor::Timer {
    Host* host = nullptr;
    replication::TimerKind kind{};
};

struct Volume::Driver::Host final : replication::Effects {
    Host(Driver* owner, ReplicaPlace where, std::unique_ptr<store::ReplicaStore> opened,
         RunFile file);
    ~Host() override;

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

    replication::AppliedIds::Table* ids_table() const { return &ids_file.as<KeptIds>()->table; }

    Driver* driver;
    ReplicaPlace place;
    std::unique_ptr<store::ReplicaStore> replica;
    RunFile ids_file;  // of KeptIds
    replication::AppliedIds ids;
    replication::Node node;
    io::Gate gate;  // requests of this node under way
    std::array<HostTimer, replication::kTimerKinds> timers{};
    std::optional<replication::Proposal> proposal;
    std::uint64_t proposals = 0;
    DiskWatch watch;
    bool hangs = false;     // was told of as hanging
    bool unwanted = false;  // its files are to be removed
};

}  // namespace ublkd::volume
