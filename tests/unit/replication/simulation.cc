#include "tests/unit/replication/simulation.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"

namespace ublkd::test {

using namespace replication;

namespace {

/// With TRACE in the environment a run tells what happens, for a person.
bool tracing() {
    static const bool on = std::getenv("TRACE") != nullptr;
    return on;
}

}  // namespace

struct Simulation::Disk {
    Member member;
    std::vector<std::byte> now = std::vector<std::byte>(kBytes);
    std::vector<std::byte> durable = std::vector<std::byte>(kBytes);
    std::vector<std::uint64_t> version = std::vector<std::uint64_t>(kSectors);
    std::vector<std::uint64_t> durable_version = std::vector<std::uint64_t>(kSectors);
    std::uint64_t versions = 0;
    std::optional<Membership> record;
    std::optional<Proposal> pending;
    std::uint64_t boot = 0;
    bool clean = false;
    std::set<std::uint32_t> activity;
    bool failed = false;
    bool full = false;
    std::unique_ptr<AppliedIds::Table> table = std::make_unique<AppliedIds::Table>();
};

struct Simulation::Host final : Effects {
    Host(Simulation* owner, Disk* own)
        : simulation(owner),
          disk_(own),
          ids(own->table.get()),
          node({.volume = VolumeId(1),
                .self = own->member,
                .size_bytes = kBytes,
                .region_bytes = kRegion,
                .copy_bytes = kPageBytes,
                .wait_on_full = owner->options_.wait_on_full},
               this, &ids) {}

    void send(const Message& message) override { simulation->post(message); }
    void disk(const DiskRequest& request) override {
        DiskOp op{.host = this, .request = request};
        if (request.kind == OpKind::kFlush) {
            op.snapshot = disk_->now;
            op.snapshot_versions = disk_->version;
        } else if (is_change(request.kind)) {
            // The store's promise: the bit is durable before the write.
            for (std::uint64_t at = request.range.offset_bytes / kRegion;
                 at * kRegion < request.range.end_bytes(); ++at)
                disk_->activity.insert(static_cast<std::uint32_t>(at));
        }
        simulation->disk_ops_.push_back(std::move(op));
    }
    void store(const StoreRequest& request) override {
        std::optional<Membership> record;
        if (request.record != nullptr) record = *request.record;
        std::optional<std::optional<Proposal>> pending;
        if (request.pending != nullptr) pending = *request.pending;
        const std::uint64_t boot = request.in_sync ? simulation->boot_ : 0;
        simulation->store_ops_.push_back({this, request.token, [=](Disk& to) {
                                              to.record = record;
                                              if (pending) to.pending = *pending;
                                              to.boot = boot;
                                              to.clean = false;
                                          }});
    }
    void extent(std::uint64_t token, Range range) override {
        simulation->soon_.push_back([this, token, range] {
            const auto zero = [&](std::uint64_t at) {
                return is_all_zero(std::span(disk_->now).subspan(at, kPageBytes));
            };
            block::Extent extent{.length_bytes = kPageBytes,
                                 .allocated = !zero(range.offset_bytes)};
            while (extent.length_bytes < range.length_bytes &&
                   zero(range.offset_bytes + extent.length_bytes) == !extent.allocated)
                extent.length_bytes += kPageBytes;
            node.on_extent(token, extent);
        });
    }
    RegionSet activity() override { return {disk_->activity.begin(), disk_->activity.end()}; }
    void clear_activity(const RegionSet& regions) override {
        for (const std::uint32_t region : regions) disk_->activity.erase(region);
    }
    void acquire_buffer(std::uint64_t token, std::size_t bytes) override {
        simulation->soon_.push_back([this, token, bytes] {
            buffers.push_back(simulation->memory(bytes));
            node.on_buffer(token, {.bytes = *buffers.back(),
                                   .handle = static_cast<std::uint32_t>(buffers.size() - 1)});
        });
    }
    void release_buffer(std::uint32_t handle) override {
        // Whoever still reads it would see this.
        std::fill(buffers[handle]->begin(), buffers[handle]->end(), std::byte{0xdd});
    }
    void propose(const Proposal& proposal) override {
        std::erase_if(simulation->proposals_, [&](const Pending& known) {
            return known.from == disk_->member.replica && known.life == simulation->life_;
        });
        simulation->proposals_.push_back({proposal, simulation->life_, disk_->member.replica});
    }
    void ask_authority() override {
        simulation->soon_.push_back([this] { node.on_current(&simulation->record_); });
    }
    void start_timer(TimerKind kind, std::uint32_t) override {
        simulation->timers_.emplace_back(this, kind);
    }
    void notice(const Notice& notice) override {
        Simulation& s = *simulation;
        if (notice.kind == Notice::Kind::kRecord || notice.kind == Notice::Kind::kServing) {
            s.client_->set_record(*notice.record, notice.kind == Notice::Kind::kServing);
            ++s.counts_.records;
        } else if (notice.kind == Notice::Kind::kLost) {
            ++s.counts_.losses;
        } else if (notice.kind == Notice::Kind::kJoined) {
            ++s.counts_.joins;
        }
    }

    Simulation* simulation;
    Disk* disk_;
    AppliedIds ids;
    Node node;
    std::vector<std::vector<std::byte>*> buffers;
};

Simulation::Simulation(const SimulationOptions& options, std::uint64_t seed)
    : options_(options), random_(seed) {
    record_.volume = VolumeId(1);
    record_.number = 1;
    for (std::size_t i = 0; i < options.members + options.spares; ++i) {
        disks_.push_back(std::make_unique<Disk>());
        disks_.back()->member = {
            .replica = ReplicaId(i + 1), .host = HostId(1), .pool = PoolId(i + 1)};
        if (i < options.members) record_.members.push_back(disks_.back()->member);
    }
    record_.primary = ReplicaId(1);
    for (std::size_t i = 0; i < options.members; ++i) {
        disks_[i]->record = record_;
        disks_[i]->boot = boot_;
    }
    start();
}

Simulation::~Simulation() = default;

std::vector<std::byte>* Simulation::memory(std::size_t bytes) {
    arena_.emplace_back(bytes);
    return &arena_.back();
}

Simulation::Host* Simulation::host_of(ReplicaId replica) {
    for (const auto& host : hosts_) {
        if (host->disk_->member.replica == replica) return host.get();
    }
    return nullptr;
}

Simulation::Host* Simulation::serving() {
    Host* found = nullptr;
    for (const auto& host : hosts_) {
        if (host->node.role() == Role::kServing &&
            (found == nullptr || host->node.number() > found->node.number()))
            found = host.get();
    }
    return found;
}

// ---- lives

/// What the daemon does: opens the members that can be opened, and tells their nodes the record.
void Simulation::start() {
    ++life_;
    client_ = std::make_unique<Client>(VolumeId(1), 5000 + life_, this);
    std::set<ReplicaId> wanted;
    for (const Member& member : record_.members) wanted.insert(member.replica);
    for (const auto& disk : disks_) {
        if (disk->pending && wanted.contains(disk->member.replica)) {
            for (const Member& member : disk->pending->next.members) wanted.insert(member.replica);
        }
    }
    std::vector<ReplicaId> missing;
    for (const auto& disk : disks_) {
        if (!wanted.contains(disk->member.replica)) continue;
        if (disk->failed) {
            missing.push_back(disk->member.replica);
            continue;
        }
        hosts_.push_back(std::make_unique<Host>(this, disk.get()));
        NodeStart start{.record = disk->record, .pending = disk->pending};
        start.in_sync = disk->record && (disk->boot == boot_ || disk->clean);
        hosts_.back()->node.start(start);
    }
    client_->set_record(record_, false);
    Host* const primary = host_of(record_.primary);
    Host* heir = nullptr;
    for (const auto& host : hosts_) {
        if (heir == nullptr && primary == nullptr && host->node.in_sync() &&
            record_.has(host->disk_->member.replica))
            heir = host.get();
    }
    for (const auto& host : hosts_) {
        if (host.get() != primary && host.get() != heir) host->node.begin(record_, missing);
    }
    if (primary != nullptr) primary->node.begin(record_, missing);
    if (heir != nullptr) heir->node.replace_primary(record_, missing);
    // ublk sends again what it has no answer for, with the ids that it kept.
    for (const auto& guest : guests_) {
        if (guest->answered) continue;
        guest->place = ClientRequest::Place::kNone;
        guest->token = 0;
        client_->submit(*guest);
    }
}

/// The power goes while the volume stops: all is durable, and some members are marked clean
/// already.
void Simulation::stop_halfway() {
    for (const auto& disk : disks_) {
        if (!record_.has(disk->member.replica) || disk->failed) continue;
        disk->durable = disk->now;
        disk->durable_version = disk->version;
        disk->activity.clear();
    }
    for (const auto& disk : disks_) {
        if (record_.has(disk->member.replica) && !disk->failed && below(2) == 0) disk->clean = true;
    }
    die(true);
}

void Simulation::die(bool power_cut) {
    // Requests in the disks' queues: any part of them is done.
    for (const DiskOp& op : disk_ops_) {
        if (is_change(op.request.kind) && !op.host->disk_->failed)
            apply(*op.host->disk_, op.request, true);
    }
    for (StoreOp& op : store_ops_) {
        if (below(2) == 0 && !op.host->disk_->failed) op.change(*op.host->disk_);
    }
    disk_ops_.clear();
    store_ops_.clear();
    soon_.clear();
    timers_.clear();
    channels_.clear();
    hosts_.clear();
    // A proposal on its way may be lost, or arrive later.
    std::erase_if(proposals_, [&](const Pending&) { return below(3) == 0; });
    ++counts_.deaths;
    if (tracing())
        std::printf("%6llu %s\n", static_cast<unsigned long long>(now_),
                    power_cut ? "POWER CUT" : "DEATH");
    if (power_cut) {
        ++counts_.power_cuts;
        ++boot_;
        for (const auto& disk : disks_) {
            for (std::size_t sector = 0; sector < kSectors; ++sector) {
                if (disk->version[sector] == disk->durable_version[sector]) continue;
                const auto at = static_cast<std::ptrdiff_t>(sector * kSectorBytes);
                auto* const from = below(2) == 0 ? &disk->now : &disk->durable;
                std::copy_n(from->begin() + at, kSectorBytes, disk->now.begin() + at);
                std::copy_n(disk->now.begin() + at, kSectorBytes, disk->durable.begin() + at);
                disk->durable_version[sector] = disk->version[sector];
            }
            *disk->table = {};
        }
        guests_.clear();  // the guest died too
        ++guest_start_;
        guest_sequence_ = 0;
        lossy_ = true;
    }
    start();
}

// ---- messages and disks

void Simulation::send_to_node(const Message& message) { post(message); }
void Simulation::post(const Message& message) {
    channels_[{message.from, message.to}].push_back(message);
}

void Simulation::trace(const Message& message) const {
    if (!tracing()) return;
    std::printf("%6llu %llu->%llu n%llu type %d kind %d [%llu +%llu] id %llu.%llu token %llx%s%s\n",
                static_cast<unsigned long long>(now_),
                static_cast<unsigned long long>(message.from.value()),
                static_cast<unsigned long long>(message.to.value()),
                static_cast<unsigned long long>(message.number), static_cast<int>(message.type),
                static_cast<int>(message.kind),
                static_cast<unsigned long long>(message.range.offset_bytes / kSectorBytes),
                static_cast<unsigned long long>(message.range.length_bytes / kSectorBytes),
                static_cast<unsigned long long>(message.id.client_start),
                static_cast<unsigned long long>(message.id.sequence),
                static_cast<unsigned long long>(message.token), message.failed ? " failed" : "",
                message.mark_only ? " mark" : "");
}

void Simulation::trace(const char* what, const Host& host, const DiskRequest& request,
                       const Result<void>& result) const {
    if (!tracing()) return;
    std::printf("%6llu %s %llu kind %d [%llu +%llu] token %llx %s\n",
                static_cast<unsigned long long>(now_), what,
                static_cast<unsigned long long>(host.disk_->member.replica.value()),
                static_cast<int>(request.kind),
                static_cast<unsigned long long>(request.range.offset_bytes / kSectorBytes),
                static_cast<unsigned long long>(request.range.length_bytes / kSectorBytes),
                static_cast<unsigned long long>(request.token),
                result ? "" : to_string(result.error().code));
}

bool Simulation::deliver() {
    if (channels_.empty()) return false;
    auto at = channels_.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(below(channels_.size())));
    const Message message = at->second.front();
    at->second.pop_front();
    if (at->second.empty()) channels_.erase(at);
    ++now_;
    trace(message);
    if (!message.to) {
        client_->on_message(message);
    } else if (Host* const host = host_of(message.to); host != nullptr) {
        host->node.on_message(message);
    } else if (Host* const sender = host_of(message.from); sender != nullptr) {
        sender->node.on_peer_lost(message.to, Error{Errc::kNotFound});
    } else if (message.type == MessageType::kRequest) {
        Message moved;
        moved.type = MessageType::kMoved;
        moved.volume = VolumeId(1);
        moved.token = message.token;
        client_->on_message(moved);
    }
    return true;
}

void Simulation::apply(Disk& disk, const DiskRequest& request, bool torn) {
    const std::size_t first = request.range.offset_bytes / kSectorBytes;
    for (std::size_t i = 0; i < request.range.length_bytes / kSectorBytes; ++i) {
        if (torn && below(2) == 0) continue;
        auto* const to = disk.now.data() + (first + i) * kSectorBytes;
        if (request.kind == OpKind::kWrite) {
            std::memcpy(to, request.data.data() + i * kSectorBytes, kSectorBytes);
        } else {
            std::memset(to, 0, kSectorBytes);
        }
        disk.version[first + i] = ++disk.versions;
    }
}

void Simulation::disk_end(std::size_t index) {
    const DiskOp op = std::move(disk_ops_[index]);
    disk_ops_.erase(disk_ops_.begin() + static_cast<std::ptrdiff_t>(index));
    Disk& disk = *op.host->disk_;
    const DiskRequest& request = op.request;
    Result<void> result;
    if (disk.failed) {
        result = fail(Errc::kIo, "disk");
    } else if (request.kind == OpKind::kWrite && disk.full && below(2) == 0) {
        apply(disk, request, true);
        result = fail(Errc::kNoSpace, "disk");
    } else if (request.kind == OpKind::kRead) {
        std::memcpy(request.into.data(), disk.now.data() + request.range.offset_bytes,
                    request.into.size());
        if (options_.unreadable && below(20) == 0) result = fail(Errc::kIo, "sector");
    } else if (request.kind == OpKind::kFlush) {
        for (std::size_t sector = 0; sector < kSectors; ++sector) {
            if (op.snapshot_versions[sector] <= disk.durable_version[sector]) continue;
            const auto at = static_cast<std::ptrdiff_t>(sector * kSectorBytes);
            std::copy_n(op.snapshot.begin() + at, kSectorBytes, disk.durable.begin() + at);
            disk.durable_version[sector] = op.snapshot_versions[sector];
        }
    } else {
        apply(disk, request, false);
        if (request.fua) {
            const auto at = static_cast<std::ptrdiff_t>(request.range.offset_bytes);
            std::copy_n(disk.now.begin() + at, request.range.length_bytes,
                        disk.durable.begin() + at);
            for (std::size_t i = 0; i < request.range.length_bytes / kSectorBytes; ++i) {
                const std::size_t sector = request.range.offset_bytes / kSectorBytes + i;
                disk.durable_version[sector] = disk.version[sector];
            }
        }
    }
    trace("disk", *op.host, request, result);
    op.host->node.on_disk(request.token, result);
}

/// One proposal arrives; its answer may be lost.
void Simulation::authority_step() {
    const std::size_t index = below(proposals_.size());
    const Pending pending = proposals_[index];
    proposals_.erase(proposals_.begin() + static_cast<std::ptrdiff_t>(index));
    const Verdict verdict = decide(record_, pending.proposal);
    if (verdict == Verdict::kAuthorized) record_ = pending.proposal.next;
    if (tracing()) {
        std::printf("%6llu authority: %llu proposes %llu primary %llu members",
                    static_cast<unsigned long long>(now_),
                    static_cast<unsigned long long>(pending.from.value()),
                    static_cast<unsigned long long>(pending.proposal.next.number),
                    static_cast<unsigned long long>(pending.proposal.next.primary.value()));
        for (const Member& member : pending.proposal.next.members)
            std::printf(" %llu", static_cast<unsigned long long>(member.replica.value()));
        std::printf(" verdict %d\n", static_cast<int>(verdict));
    }
    Host* const host = host_of(pending.from);
    if (pending.life != life_ || host == nullptr) return;
    if (below(4) == 0) {
        host->node.on_outcome(fail(Errc::kTimedOut, "lost"), nullptr);
    } else {
        host->node.on_outcome(verdict, &record_);
    }
}

// ---- the guest

void Simulation::guest_request() {
    auto guest = std::make_unique<Guest>();
    Guest& request = *guest;
    request.simulation = this;
    request.begin = ++now_;
    request.on_done = [](ClientRequest* done) noexcept {
        auto* const self = static_cast<Guest*>(done);
        self->simulation->answered(*self);
    };
    const std::uint64_t dice = below(100);
    const std::size_t count = 1 + below(4);
    const std::size_t first = below(kSectors - count);
    if (dice < static_cast<std::uint64_t>(options_.flush_share)) {
        request.kind = OpKind::kFlush;
    } else {
        request.kind = dice < 60 ? OpKind::kWrite : OpKind::kRead;
        // Zeroes look all alike, so they are left out where the order of values is checked.
        if (options_.scribble && dice > 90)
            request.kind = dice > 95 ? OpKind::kDiscard : OpKind::kZero;
        request.range = {first * kSectorBytes, count * kSectorBytes};
        request.memory = memory(count * kSectorBytes);
        request.into = *request.memory;
    }
    if (is_change(request.kind)) request.id = {guest_start_, ++guest_sequence_};
    if (request.kind == OpKind::kWrite) {
        request.data = *request.memory;
        for (std::size_t i = 0; i < count; ++i) {
            request.values.push_back(next_value_++);
            for (std::size_t at = 0; at < kSectorBytes; at += 8)
                std::memcpy(request.memory->data() + i * kSectorBytes + at, &request.values[i], 8);
            request.entries.push_back(history_.write(first + i, request.begin, request.values[i]));
        }
    }
    guests_.push_back(std::move(guest));
    client_->submit(request);
}

void Simulation::answered(Guest& guest) {
    guest.answered = true;
    ++counts_.answered;
    const std::uint64_t end = ++now_;
    const std::size_t first = guest.range.offset_bytes / kSectorBytes;
    if (!guest.result) {
        // Only a volume whose last disk is gone, or a full one that was told to fail, answers with
        // an error.
        const bool allowed = guest.result.error().code == Errc::kNoSpace
                                 ? !options_.wait_on_full
                                 : options_.fail_disk > 0 || options_.unreadable;
        if (!allowed) failure_ = "a request failed";
        return;
    }
    if (guest.kind == OpKind::kWrite) {
        for (std::size_t i = 0; i < guest.entries.size(); ++i)
            history_.end_write(first + i, guest.entries[i], end);
    } else if (guest.kind == OpKind::kFlush) {
        history_.flushed(guest.begin);
    } else if (!lossy_ && !options_.scribble) {
        for (std::size_t i = 0; i < guest.into.size() / kSectorBytes; ++i) {
            std::uint64_t value = 0;
            std::memcpy(&value, guest.into.data() + i * kSectorBytes, 8);
            history_.read(first + i, guest.begin, end, value);
        }
    }
}

// ---- a run

bool Simulation::step_world() {
    const std::uint64_t dice = below(100);
    if (dice < 45 && deliver()) return true;
    if (dice < 75 && !disk_ops_.empty()) {
        disk_end(below(disk_ops_.size()));
        return true;
    }
    if (dice < 85 && !soon_.empty()) {
        const std::size_t index = below(soon_.size());
        const auto function = soon_[index];
        soon_.erase(soon_.begin() + static_cast<std::ptrdiff_t>(index));
        function();
        return true;
    }
    if (dice < 92 && !store_ops_.empty()) {
        StoreOp op = std::move(store_ops_.front());
        store_ops_.erase(store_ops_.begin());
        const bool failed = op.host->disk_->failed;
        if (!failed) op.change(*op.host->disk_);
        op.host->node.on_stored(op.token,
                                failed ? Result<void>(fail(Errc::kIo, "disk")) : Result<void>());
        return true;
    }
    if (dice < 97 && !proposals_.empty()) {
        authority_step();
        return true;
    }
    if (dice >= 97 && !timers_.empty()) {
        const std::size_t index = below(timers_.size());
        const auto [host, kind] = timers_[index];
        timers_.erase(timers_.begin() + static_cast<std::ptrdiff_t>(index));
        host->node.on_timer(kind);
        return true;
    }
    return false;
}

bool Simulation::busy() const {
    for (const auto& host : hosts_) {
        if (host->node.open_ops() > 0 || host->node.proposing() || host->node.joining())
            return true;
        if (host->node.role() == Role::kProbing || host->node.role() == Role::kPreparing)
            return true;
    }
    return client_->open() > 0 || !disk_ops_.empty() || !store_ops_.empty() || !channels_.empty() ||
           !soon_.empty();
}

/// What the daemon's driver does beside: tells former members the record, brings back those that
/// restarted alone.
void Simulation::tidy() {
    Host* const primary = serving();
    if (primary == nullptr) return;
    const Membership record = *primary->node.record();
    for (const auto& host : hosts_) {
        const ReplicaId replica = host->disk_->member.replica;
        if (record.has(replica) || primary->node.joining() == replica ||
            host->node.role() == Role::kOut)
            continue;
        if (host->node.number() < record.number) host->node.on_current(&record);
    }
    // Who is no member any more is closed when nothing of it is under way; it may join again.
    std::erase_if(hosts_, [&](const std::unique_ptr<Host>& host) {
        const ReplicaId replica = host->disk_->member.replica;
        const auto mine = [&](const auto& op) { return op.host == host.get(); };
        const bool out = !record.has(replica) && primary->node.joining() != replica &&
                         host->node.open_ops() == 0;
        if (!out || !soon_.empty() || !channels_.empty() || std::ranges::any_of(disk_ops_, mine) ||
            std::ranges::any_of(store_ops_, mine))
            return false;
        std::erase_if(timers_, [&](const auto& timer) { return timer.first == host.get(); });
        std::erase_if(proposals_, [&](const Pending& pending) { return pending.from == replica; });
        return true;
    });
}

void Simulation::settle() {
    for (int i = 0; busy() && i < 200'000; ++i) {
        (void)step_world();
        if (i % 64 == 0) tidy();
    }
    if (!busy()) return;
    failure_ = "no progress after all faults ended:";
    for (const auto& host : hosts_) {
        failure_ += " [replica " + std::to_string(host->disk_->member.replica.value()) + " role " +
                    std::to_string(static_cast<int>(host->node.role())) + " number " +
                    std::to_string(host->node.number()) + " ops " +
                    std::to_string(host->node.open_ops()) +
                    (host->node.proposing() ? " proposing" : "") +
                    (host->node.joining() ? " joining" : "") + " regions " +
                    std::to_string(host->node.regions_to_copy()) + "]";
    }
    failure_ += " record " + std::to_string(record_.number) + " client " +
                std::to_string(client_->open()) + "/" + std::to_string(client_->parked()) +
                " disks " + std::to_string(disk_ops_.size()) + " stores " +
                std::to_string(store_ops_.size()) + " messages " + std::to_string(channels_.size());
}

std::string Simulation::run() {
    for (int i = 0; i < options_.steps && failure_.empty(); ++i) {
        if (guests_.size() > 64)
            std::erase_if(guests_,
                          [](const std::unique_ptr<Guest>& guest) { return guest->answered; });
        const auto open =
            std::count_if(guests_.begin(), guests_.end(),
                          [](const std::unique_ptr<Guest>& guest) { return !guest->answered; });
        if (open < 6 && below(8) == 0 && !lossy_) guest_request();
        if (options_.scribble && !guests_.empty() && below(10) == 0) {
            Guest& guest = *guests_[below(guests_.size())];
            if (guest.kind == OpKind::kWrite && !guest.answered) {
                for (std::byte& byte : *guest.memory) byte = static_cast<std::byte>(below(256));
            }
        }
        (void)step_world();
        if (i % 32 == 0) tidy();
        Host* const primary = serving();
        const bool quiet = primary != nullptr && primary->node.regions_to_copy() == 0 && !busy();
        if (one_in(options_.kill))
            die(false);
        else if (one_in(options_.stop_halfway) && quiet && record_.number == primary->node.number())
            stop_halfway();
        else if (one_in(options_.power_cut))
            die(true);
        else if (one_in(options_.fail_disk) && primary != nullptr &&
                 primary->node.record()->members.size() > 1) {
            Disk& disk = *hosts_[below(hosts_.size())]->disk_;
            const auto healthy =
                std::count_if(hosts_.begin(), hosts_.end(), [&](const std::unique_ptr<Host>& host) {
                    return !host->disk_->failed &&
                           primary->node.record()->has(host->disk_->member.replica);
                });
            if (healthy > 1 && record_.number == primary->node.number()) disk.failed = true;
        } else if (one_in(options_.fill_disk)) {
            for (const auto& disk : disks_) disk->full = !disk->full && below(2) == 0;
        } else if (one_in(options_.add) && primary != nullptr && !primary->node.joining()) {
            for (const auto& disk : disks_) {
                const bool known = host_of(disk->member.replica) != nullptr;
                if (disk->failed || known || record_.has(disk->member.replica)) continue;
                auto host = std::make_unique<Host>(this, disk.get());
                host->node.start({});
                hosts_.push_back(std::move(host));
                (void)primary->node.add(disk->member);
                break;
            }
        }
        if (lossy_ && serving() != nullptr && serving()->node.regions_to_copy() == 0 && !busy()) {
            // The loss is looked at: each sector holds what was flushed, or something later.
            if (tracing())
                std::printf("%6llu LOSS LOOKED AT\n", static_cast<unsigned long long>(now_));
            for (std::size_t sector = 0; sector < kSectors && failure_.empty(); ++sector)
                failure_ = history_.lose(sector, ++now_, sector_value(*serving()->disk_, sector));
            lossy_ = false;
        }
    }
    for (const auto& disk : disks_) disk->full = false;
    options_.unreadable = false;
    if (failure_.empty()) settle();
    if (failure_.empty() && !lossy_ && !options_.scribble) {
        // A last read of everything.
        Host* const primary = serving();
        if (primary == nullptr) return "nobody serves at the end";
        if (!primary->disk_->failed) {
            for (std::size_t sector = 0; sector < kSectors; ++sector) {
                const std::uint64_t begin = ++now_;
                history_.read(sector, begin, ++now_, sector_value(*primary->disk_, sector));
            }
        }
        failure_ = history_.check();
    }
    if (failure_.empty()) failure_ = members_differ();
    return failure_;
}

std::uint64_t Simulation::sector_value(const Disk& disk, std::size_t sector) const {
    std::uint64_t value = 0;
    std::memcpy(&value, disk.now.data() + sector * kSectorBytes, 8);
    return value;
}

std::string Simulation::members_differ() const {
    const Disk* first = nullptr;
    for (const auto& disk : disks_) {
        if (!record_.has(disk->member.replica) || disk->failed) continue;
        if (first == nullptr) first = disk.get();
        for (std::size_t sector = 0; sector < kSectors; ++sector) {
            if (std::memcmp(first->now.data() + sector * kSectorBytes,
                            disk->now.data() + sector * kSectorBytes, kSectorBytes) != 0)
                return "members differ in sector " + std::to_string(sector);
        }
    }
    return "";
}

}  // namespace ublkd::test
