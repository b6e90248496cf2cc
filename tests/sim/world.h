// One run: everything that there is, from one seed. While guests send requests, faults happen; then
// all faults end, and within a bound every request must have its answer, every member must hold the
// same bytes, and one order of operations must explain what the guests saw. Checks while it runs:
// checks.cc. Owner: whoever makes it; run() once.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/authority.h"
#include "tests/sim/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/guest.h"
#include "tests/sim/history.h"
#include "tests/sim/network.h"
#include "tests/sim/process.h"
#include "tests/sim/random.h"
#include "tests/sim/scenario.h"
#include "tests/sim/trace.h"

namespace ublkd::sim {

inline constexpr VolumeId kVolume{1};

struct Counts {
    std::uint64_t answered = 0, failovers = 0, fenced = 0, restores = 0, kills = 0, power_cuts = 0,
                  joins = 0, by_map = 0, lost = 0, records = 0, losses = 0, cuts = 0, held = 0,
                  events = 0;
};

class World {
  public:
    explicit World(const RunOptions& options);
    ~World();
    /// "" or what went wrong.
    std::string run();

    // For the parts of the run.
    Replica* replica(ReplicaId id) const;
    Attachment* attachment(Endpoint endpoint) const;
    Process& process_of(Endpoint endpoint) const;
    Endpoint endpoint_of(AttachmentId attachment) const;
    bool hosts() const { return processes_.size() > 1; }
    std::string name_of(Endpoint endpoint) const;
    std::uint64_t tick() { return ++ticks_; }
    std::uint64_t next_serial() { return ++serials_; }
    std::uint64_t next_value() { return ++values_; }
    std::vector<std::byte>* memory(std::size_t bytes);
    void bury(std::unique_ptr<Request> request) { buried_.push_back(std::move(request)); }
    void wrong(std::string what);
    void on_notice(Replica& from, const replication::Notice& notice);
    void check_answer(const Replica& primary, const replication::Message& answer);
    /// R14: a read fails when no member could read the range, and not before.
    void check_read_error(const Replica& primary, std::uint64_t token);
    /// What is kept off changes is the same on all members.
    void check_hold(const Replica& primary, std::uint64_t token);
    /// R18: all members of the record have preserved the same.
    void check_cut_members(const Replica& primary, std::uint64_t cut);
    /// R18: what was preserved for `request`, a kCut that was answered or a kCutHolds that was
    /// answered with yes, is what the volume held at one moment; and in the second case nobody was
    /// told of a change that is not in it before that was asked.
    void check_cut(const Request& request, std::uint64_t end);
    /// A read that began after an attachment was fenced shows nothing of what that had under way
    /// (R15).
    void check_read(std::uint64_t value, std::uint64_t begin);
    /// R9: unflushed writes may be given up only when all members restarted in another boot.
    void check_loss(const replication::Membership& record);
    /// R16: what a host reports.
    replication::HostReport report_of(const Process& process) const;

    Scenario scenario;
    Random timing;    // what takes how long, and what is lost
    Random workload;  // what guests do
    Clock clock;
    Network network{this};
    Authority authority{this};
    History history{kSectors};
    Counts counts;
    bool unreadable = false;

  private:
    friend class Script;  // of a directed test
    void begin();
    /// All that was asked is answered, and then all is checked once more.
    void end();

    // process.cc
    void start(Process& process);
    void die(Process& process, bool power_cut);
    void look_after(Process& process);
    void open_new_members(Process& process);
    void follow_detach();
    /// It came for one that is forced off, and is no attachment yet.
    bool waits_for_place(const Attachment& attachment) const;
    void open(Process& process, Disk& disk, bool may_be_in_sync);
    Replica* serving() const;

    // faults.cc
    void happen(const Fault& fault);
    void cut_power();
    void cut_stop_short();
    void go_down(Process& process, bool power_cut, std::uint64_t length_us);
    void partition(const Fault& fault);
    void pause(Process& process, std::uint64_t length_us);
    void fail_disk(const Fault& fault);
    void return_disk();
    void fill_disks(const Fault& fault);
    void join();
    void end_faults();

    // checks.cc
    /// A member of the record that could serve.
    bool in_sync(const Disk& disk) const;
    bool busy() const;
    std::string why_busy() const;
    void check_maps();
    void check_end();

    void guest_turn(Attachment& attachment);
    void look_after_all();

    std::vector<Fault> faults_;
    std::optional<std::vector<std::size_t>> only_;
    std::size_t requests_left_;
    std::uint64_t ends_us_;  // when guests stop
    std::vector<std::unique_ptr<Disk>> disks_;
    std::vector<std::unique_ptr<Process>> processes_;
    std::vector<std::unique_ptr<Attachment>> attachments_;
    std::deque<std::vector<std::byte>>
        arena_;  // as long as the run: late writes hit no freed memory
    std::vector<std::unique_ptr<Request>> buried_;
    /// R15: forced off, until it is fenced and another one has its place.
    struct Detach {
        Attachment* from = nullptr;
        Attachment* to = nullptr;  // made when `from` is fenced
    };
    std::optional<Detach> detach_;
    std::map<std::uint64_t, std::vector<std::byte>> cuts_;  // what counts, by name
    std::map<std::uint64_t, std::uint64_t> fenced_;  // values under way then and on no disk; when
    std::uint64_t served_ = 0;  // the greatest number under which somebody served
    std::uint64_t ticks_ = 1;
    std::uint64_t serials_ = 1000;
    std::uint64_t values_ = 0;
    std::string wrong_;
};

}  // namespace ublkd::sim
