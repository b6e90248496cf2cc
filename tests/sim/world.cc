#include "tests/sim/world.h"

#include <algorithm>
#include <set>

namespace ublkd::sim {
namespace {

constexpr std::uint64_t kLookAfterUs = 2000;
constexpr std::uint64_t kBoundUs = 60'000'000;  // within which all must have ended
constexpr std::uint64_t kEventsMax = 400'000;

}  // namespace

World::World(const RunOptions& options)
    : scenario(options.scenario),
      timing(options.timing == 0 ? options.seed : options.timing, 1),
      workload(options.seed, 2),
      unreadable(options.scenario.unreadable),
      faults_(draw_faults(options.scenario, options.seed)),
      only_(options.only),
      requests_left_(options.requests_max),
      ends_us_(static_cast<std::uint64_t>(options.scenario.milliseconds) * 1000) {
    authority.record.volume = kVolume;
    authority.record.number = 1;
    authority.record.primary = ReplicaId(1);
    for (std::size_t i = 0; i < scenario.hosts; ++i) {
        processes_.push_back(std::make_unique<Process>());
        processes_.back()->index = i;
    }
    for (std::size_t i = 0; i < scenario.members + scenario.spares; ++i) {
        disks_.push_back(std::make_unique<Disk>());
        Disk& disk = *disks_.back();
        disk.process = i % scenario.hosts;
        disk.member = {
            .replica = ReplicaId(i + 1), .host = HostId(disk.process + 1), .pool = PoolId(i + 1)};
        if (i < scenario.members) authority.record.members.push_back(disk.member);
    }
    for (std::size_t i = 0; i < scenario.clients; ++i) {
        // The last host has a client first, so that one is not where the primary is.
        Process* const process = processes_[scenario.hosts - 1 - i % scenario.hosts].get();
        attachments_.push_back(std::make_unique<Attachment>(this, process, kFirstClient + i));
        if (hosts()) authority.record.attachments.push_back(attachments_.back()->id);
    }
    for (const auto& disk : disks_) {
        if (!authority.record.has(disk->member.replica)) continue;
        disk->record = authority.record;
        disk->boot = processes_[disk->process]->boot;
        disk->ids_of_member = true;
    }
}

World::~World() = default;

Replica* World::replica(ReplicaId id) const {
    if (id.value() == 0 || id.value() > disks_.size()) return nullptr;
    for (const auto& open : processes_[disks_[id.value() - 1]->process]->replicas) {
        if (open->place->member.replica == id) return open.get();
    }
    return nullptr;
}

Attachment* World::attachment(Endpoint endpoint) const {
    return attachments_[endpoint - kFirstClient].get();
}

Process& World::process_of(Endpoint endpoint) const {
    if (endpoint >= kFirstClient) return *attachment(endpoint)->process;
    return *processes_[disks_[endpoint - 1]->process];
}

Endpoint World::endpoint_of(AttachmentId attachment) const {
    for (const auto& each : attachments_) {
        if (each->id == attachment) return each->endpoint;
    }
    return kFirstClient;  // one that was forced off: the endpoint refuses what is for another one
}

std::string World::name_of(Endpoint endpoint) const {
    return endpoint >= kFirstClient ? "client " + std::to_string(endpoint - kFirstClient)
                                    : "replica " + std::to_string(endpoint);
}

std::vector<std::byte>* World::memory(std::size_t bytes) {
    arena_.emplace_back(bytes);
    return &arena_.back();
}

void World::wrong(std::string what) {
    if (!wrong_.empty()) return;
    trace(clock.now_us(), "WRONG: %s", what.c_str());
    wrong_ = std::move(what);
}

Replica* World::serving() const {
    Replica* found = nullptr;
    for (const auto& process : processes_) {
        for (const auto& open : process->replicas) {
            if (open->node.role() == replication::Role::kServing &&
                (found == nullptr || open->node.number() > found->node.number()))
                found = open.get();
        }
    }
    return found;
}

void World::on_notice(Replica& from, const replication::Notice& notice) {
    using Kind = replication::Notice::Kind;
    const auto id = static_cast<unsigned long long>(from.place->member.replica.value());
    switch (notice.kind) {
        case Kind::kRecord:
        case Kind::kServing:
            if (tracing)
                trace(clock.now_us(), "replica %llu %s %llu", id,
                      notice.kind == Kind::kServing ? "serves under" : "has stored",
                      static_cast<unsigned long long>(notice.record->number));
            ++counts.records;
            if (from.node.role() == replication::Role::kServing)
                served_ = std::max(served_, from.node.number());
            if (notice.kind == Kind::kServing && notice.record->loss_count > counts.losses) {
                counts.losses = notice.record->loss_count;
                const std::string lost = history.lose(tick(), [&](std::size_t sector) {
                    std::set<std::uint64_t> values;
                    for (const replication::Member& member : notice.record->members) {
                        const Disk& disk = *disks_[member.replica.value() - 1];
                        if (!disk.failed) values.insert(disk.value(sector));
                    }
                    return values;
                });
                if (!lost.empty()) wrong(lost);
            }
            for (const auto& attachment : attachments_) {
                if (attachment->process == from.process && attachment->client)
                    attachment->client->set_record(*notice.record, notice.kind == Kind::kServing);
            }
            break;
        case Kind::kLost:
            ++counts.lost;
            disks_[notice.replica.value() - 1]->gives_up = true;
            if (tracing)
                trace(clock.now_us(), "replica %llu finds %llu lost: %s", id,
                      static_cast<unsigned long long>(notice.replica.value()), notice.cause.where);
            break;
        case Kind::kJoined:
            ++counts.joins;
            disks_[notice.replica.value() - 1]->gives_up = false;
            counts.by_map += notice.by_map ? 1 : 0;
            trace(clock.now_us(), "replica %llu finds %llu joined%s", id,
                  static_cast<unsigned long long>(notice.replica.value()),
                  notice.by_map ? ", copied by a map" : "");
            break;
        case Kind::kFailover:
            ++counts.failovers;
            if (from.told_well) wrong("a primary that is well and serves others is replaced");
            trace(clock.now_us(), "replica %llu TAKES OVER from %llu, which %s", id,
                  static_cast<unsigned long long>(notice.replica.value()), notice.text);
            break;
        default:
            break;
    }
}

void World::guest_turn(Attachment& attachment) {
    if (clock.now_us() >= ends_us_ || requests_left_ == 0) return;
    if (attachment.forced_off) return;
    if (attachment.process->running.up && attachment.client) {
        --requests_left_;
        attachment.issue();
        if (scenario.scribble) attachment.scribble();
    }
    clock.after(workload.spread(50, scenario.pause_us), nullptr,
                [this, &attachment] { guest_turn(attachment); });
}

void World::look_after_all() {
    for (const auto& process : processes_) {
        if (process->running.up && !process->running.paused) look_after(*process);
    }
    follow_detach();
    for (const auto& process : processes_) {
        // A host answers also where it has not started yet: from its superblocks.
        if (authority.frozen() && process->running.up && !process->running.paused &&
            timing.one_in(2))
            authority.report(*process);
    }
    check_maps();
    clock.after(timing.spread(kLookAfterUs / 4, kLookAfterUs), nullptr,
                [this] { look_after_all(); });
}

void World::begin() {
    for (const auto& process : processes_) start(*process);
    for (const auto& attachment : attachments_) guest_turn(*attachment);
    look_after_all();
}

std::string World::run() {
    begin();
    for (std::size_t i = 0; i < faults_.size(); ++i) {
        if (only_ && std::find(only_->begin(), only_->end(), i) == only_->end()) continue;
        clock.after(faults_[i].at_us, nullptr, [this, i] { happen(faults_[i]); });
    }
    while (clock.now_us() < ends_us_ && wrong_.empty() && clock.step()) {
    }
    end();
    return wrong_;
}

void World::end() {
    if (wrong_.empty()) end_faults();
    const std::uint64_t bound = clock.now_us() + kBoundUs;
    while (wrong_.empty() && busy()) {
        for (int i = 0; i < 32; ++i) (void)clock.step();
        if (clock.now_us() > bound || clock.events() > kEventsMax)
            wrong("no progress after all faults ended: " + why_busy());
    }
    if (wrong_.empty()) check_end();
    counts.events = clock.events();
}

}  // namespace ublkd::sim
