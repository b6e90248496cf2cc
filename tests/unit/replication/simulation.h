// A host of two or three replicas for the core of replication, without disks, threads or clocks:
// one seed is one run. Messages are shuffled (in order between any two), disk requests end in any
// order, what is not flushed may be lost sector by sector, proposals may arrive late and their
// answers be lost, the process dies and starts again in the same boot or in another, disks fail,
// replicas join. After each run: every answer is explained by one order (history.h), flushed writes
// are there, and the members hold the same bytes.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/replication/history.h"
#include "ublkd/replication/client.h"
#include "ublkd/replication/node.h"

namespace ublkd::test {

struct SimulationOptions {
    std::size_t members = 2;
    std::size_t spares = 1;  // replicas that may join
    int steps = 3000;
    // One in so many steps; 0: never.
    int kill = 0;
    int power_cut = 0;
    int stop_halfway = 0;  // in moments without an open request
    int fail_disk = 0;
    int add = 0;
    int fill_disk = 0;
    int flush_share = 8;  // percent of the guest's requests
    bool wait_on_full = true;
    bool scribble = false;    // the guest changes its page while it is written (R13)
    bool unreadable = false;  // sectors that cannot be read (R14)
};

class Simulation final : public replication::ClientEffects {
  public:
    Simulation(const SimulationOptions& options, std::uint64_t seed);
    ~Simulation() override;
    /// "" or what went wrong.
    std::string run();
    struct Counts {
        std::uint64_t answered = 0, deaths = 0, power_cuts = 0, joins = 0, losses = 0, records = 0;
    };
    const Counts& counts() const { return counts_; }

  private:
    static constexpr std::size_t kSectors = 64;  // of 512 bytes: 8 pages, 4 regions of 2 pages
    static constexpr std::uint64_t kBytes = kSectors * kSectorBytes;
    static constexpr std::uint32_t kRegion = 8192;

    struct Disk;
    struct Host;
    struct DiskOp {
        Host* host = nullptr;
        replication::DiskRequest request{};
        std::vector<std::byte> snapshot{};  // of a flush: what had ended when it began
        std::vector<std::uint64_t> snapshot_versions{};
    };
    struct StoreOp {
        Host* host = nullptr;
        std::uint64_t token = 0;
        std::function<void(Disk&)> change;
    };
    struct Guest : replication::ClientRequest {
        Simulation* simulation = nullptr;
        std::uint64_t begin = 0;
        std::vector<std::uint64_t> values;  // per sector
        std::vector<std::size_t> entries;   // in the history
        std::vector<std::byte>* memory = nullptr;
        bool answered = false;
        bool scribbled = false;
    };
    struct Pending {  // at the authority
        replication::Proposal proposal;
        std::uint64_t life = 0;
        ReplicaId from;
    };

    void send_to_node(const replication::Message& message) override;
    void post(const replication::Message& message);
    bool step_world();
    bool deliver();
    void trace(const replication::Message& message) const;
    void trace(const char* what, const Host& host, const replication::DiskRequest& request,
               const Result<void>& result) const;
    void disk_end(std::size_t index);
    void apply(Disk& disk, const replication::DiskRequest& request, bool torn);
    void authority_step();
    void guest_request();
    void answered(Guest& guest);
    void start();
    void begin();
    void stop_halfway();
    void die(bool power_cut);
    void settle();
    bool busy() const;
    void tidy();
    std::string members_differ() const;
    std::uint64_t sector_value(const Disk& disk, std::size_t sector) const;
    std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
    bool one_in(int steps) { return steps > 0 && below(static_cast<std::uint64_t>(steps)) == 0; }
    std::vector<std::byte>* memory(std::size_t bytes);
    Host* host_of(ReplicaId replica);
    Host* serving();

    SimulationOptions options_;
    std::mt19937_64 random_;
    std::uint64_t now_ = 1;
    std::uint64_t boot_ = 1;
    std::uint64_t life_ = 0;
    std::vector<std::unique_ptr<Disk>> disks_;
    std::vector<std::unique_ptr<Host>> hosts_;
    std::unique_ptr<replication::Client> client_;
    replication::Membership record_;
    std::vector<Pending> proposals_;
    std::map<std::pair<ReplicaId, ReplicaId>, std::deque<replication::Message>> channels_;
    std::vector<DiskOp> disk_ops_;
    std::vector<StoreOp> store_ops_;
    std::vector<std::function<void()>> soon_;  // buffers, extents
    std::vector<std::pair<Host*, replication::TimerKind>> timers_;
    std::deque<std::vector<std::byte>>
        arena_;  // lives as long as the run, so that late writes hit no freed memory
    std::vector<std::unique_ptr<Guest>> guests_;
    std::uint64_t guest_start_ = 1000;
    std::uint64_t guest_sequence_ = 0;
    std::uint64_t next_value_ = 1;
    History history_{kSectors};
    bool lossy_ = false;  // a power cut: what was not flushed may be gone
    std::vector<std::size_t> flushes_;
    std::string failure_;
    Counts counts_;
};

}  // namespace ublkd::test
