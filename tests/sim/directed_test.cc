// Goal: rules that no seed, or hardly one, needs are needed: a script of steps is clean with the
// rule, and goes wrong without. Method: a run without guests or faults of its own (real nodes, the
// simulation's network, disks and authority), in which each next step waits until the one before
// has come about; checked as every run is, and the activity maps at each event.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "tests/sim/world.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::sim {

using replication::Membership;
using replication::OpKind;

/// One run, by steps. When it has gone wrong, or a step did not come about, the rest does nothing.
class Script {
  public:
    explicit Script(const Scenario& scenario) {
        // Clients may ask a secondary while the primary is still starting: a start without.
        const auto calm = [&] { return world_ != nullptr && record().number == 1; };
        for (std::uint64_t seed = 1; !calm() && stuck_.empty(); ++seed) {
            world_ = std::make_unique<World>(RunOptions{
                .scenario = lasting(scenario), .seed = seed, .only = {}, .requests_max = 0});
            world_->begin();
            until_quiet();
        }
    }

    void until(const char* step, const std::function<bool()>& there) {
        const std::uint64_t bound = world_->clock.now_us() + kStepMostUs;
        while (goes_on() && !there()) {
            (void)world_->clock.step();
            world_->check_maps();
            if (world_->clock.now_us() > bound) stuck_ = step;
        }
    }
    void act(const std::function<void(World&)>& action) {
        if (goes_on()) action(*world_);
    }
    void until_record(std::uint64_t number) {
        until("a record", [&] { return record().number == number && stored(number); });
    }
    void down(std::size_t host, bool power_cut) {
        act([&](World& world) { world.die(*world.processes_[host], power_cut); });
    }
    void up(std::size_t host) {
        act([&](World& world) {
            world.processes_[host]->running.up = true;
            world.start(*world.processes_[host]);
        });
    }
    void join() {
        act([](World& world) { world.join(); });
    }
    void issue(std::size_t client, OpKind kind) {
        act([&](World& world) { world.attachments_[client]->issue(kind, kSector); });
    }
    void until_quiet() {
        until("quiet", [&] { return world_->serving() != nullptr && !world_->busy(); });
    }
    void until_answered(std::size_t client) {
        until("an answer", [&] { return world_->attachments_[client]->open() == 0; });
    }

    const Membership& record() const { return world_->authority.record; }
    Disk& disk(std::size_t replica) { return *world_->disks_[replica - 1]; }
    bool is_open(std::size_t replica) const {
        return world_->replica(ReplicaId(replica)) != nullptr;
    }
    bool has_written(std::size_t replica) { return disk(replica).value(kSector) != 0; }
    bool has_passed(std::uint64_t microseconds) const {
        return world_->clock.now_us() > microseconds;
    }
    std::uint64_t now_us() const { return world_->clock.now_us(); }
    const Counts& counts() const { return world_->counts; }

    /// Faults end, and all is checked.
    void end() {
        if (goes_on()) world_->end();
    }
    const std::string& wrong() const { return world_->wrong_; }
    /// The step that did not come about.
    const std::string& stuck() const { return stuck_; }

  private:
    static constexpr std::uint64_t kStepMostUs = 10'000'000;
    static constexpr std::size_t kSector = 0;

    static Scenario lasting(Scenario scenario) {
        scenario.milliseconds = 1'000'000;
        return scenario;
    }
    bool goes_on() const { return wrong().empty() && stuck_.empty(); }
    /// By all members whose hosts are there.
    bool stored(std::uint64_t number) const {
        for (const replication::Member& member : record().members) {
            const Replica* const replica = world_->replica(member.replica);
            if (replica == nullptr || replica->node.number() != number) return false;
        }
        return true;
    }

    std::unique_ptr<World> world_;
    std::string stuck_;
};

namespace {

constexpr std::uint64_t kLongUs = 1'000'000'000;

void shows(const char* rule, const Scenario& scenario, const std::function<void(Script&)>& steps) {
    for (const bool on : {true, false}) {
        if (!on) {
            ASSERT_TRUE(faults::arm(std::string(rule) + "=off"));
        }
        Script script(scenario);
        steps(script);
        script.end();
        faults::disarm_all();
        EXPECT_EQ(script.stuck(), "") << rule << (on ? " on" : " off");
        EXPECT_EQ(script.wrong().empty(), on) << rule << ": " << script.wrong();
    }
}

/// The primary, alone, comes back as it was when the other member had been lost once before. It
/// lacks nothing that was answered, but its map is of that loss: it says nothing of what the other
/// member has from the time when it was a member again.
TEST(Directed, R11_MapOfAnEarlierLossIsNotUsed) {
    shows("rule.map_is_bound", {.name = "a script", .hosts = 3, .clients = 3}, [](Script& script) {
        constexpr std::size_t kOfNoMember = 0;  // its host has no replica
        constexpr std::size_t kOfPrimary = 2;
        script.down(1, false);
        script.until_record(2);
        script.act([&](World&) { script.disk(1).make_image(); });
        script.up(1);
        script.join();
        script.until_record(3);
        script.issue(kOfNoMember, OpKind::kWrite);
        script.until("all have it", [&] { return script.has_written(1) && script.has_written(2); });
        script.down(2, true);  // nobody is told that it is written
        script.up(2);
        script.until_quiet();
        script.issue(kOfPrimary, OpKind::kFlush);
        script.until_answered(kOfPrimary);
        script.until("bits are cleared", [&] {
            return script.disk(1).activity.empty() && script.disk(2).activity.empty();
        });
        script.down(1, false);
        script.until_record(4);
        script.down(0, false);
        script.act([&](World&) { script.disk(1).put_image_back(); });
        script.up(0);
        script.until_record(4);
        script.up(1);
        script.join();
        script.until("it joins again", [&] { return script.counts().joins == 2; });
    });
}

/// A primary proposes a second member, hears nothing, and is cut off from it. The other one, which
/// its host told of the record, takes over alone. The first one leaves without having stored a
/// record with both; then the authority is restored from before all of that, while the other's host
/// is down.
TEST(Directed, R16_ReplicaThatLeftSaysByWhichRecord) {
    shows("rule.left_is_known",
          {.name = "a script", .members = 1, .spares = 1, .hosts = 2, .clients = 2},
          [](Script& script) {
              constexpr std::size_t kOfOther = 0;
              constexpr std::size_t kOfFirst = 1;
              script.act([](World& world) { world.authority.lose_answers(true); });
              script.join();
              script.until("it is proposed", [&] { return script.record().number == 2; });
              script.act([](World& world) {
                  world.network.block(0, 1, kLongUs);
                  world.network.block(1, 0, kLongUs);
              });
              script.issue(kOfFirst, OpKind::kWrite);  // it waits, and the replica stays open
              script.issue(kOfOther, OpKind::kWrite);
              script.until("it takes over", [&] { return script.record().number == 3; });
              script.act([](World& world) { world.authority.lose_answers(false); });
              script.until_answered(kOfOther);
              script.issue(kOfOther, OpKind::kFlush);
              script.until_answered(kOfOther);
              script.act([](World& world) { world.network.heal(); });
              script.until("the first one has left", [&] { return !script.is_open(1); });
              script.down(1, false);
              script.act([](World& world) { world.authority.restore(2); });
              const std::uint64_t begin = script.now_us();
              script.until("time goes by", [&] { return script.has_passed(begin + 500'000); });
              script.up(1);
          });
}

}  // namespace
}  // namespace ublkd::sim
