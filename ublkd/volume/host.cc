#include "ublkd/volume/host.h"

#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"

namespace ublkd::volume {
namespace {

using replication::OpKind;

constexpr std::size_t kPayloadBytes = 16 * kMiB;  // of private copies under way, as address space
constexpr std::chrono::seconds kWatchTick{1};

std::vector<std::uint32_t> set_bits(const store::Bitmap& map) {
    std::vector<std::uint32_t> bits;
    for (std::uint64_t bit = map.find_set(0); bit < map.size(); bit = map.find_set(bit + 1))
        bits.push_back(static_cast<std::uint32_t>(bit));
    return bits;
}

}  // namespace

Volume::Driver::Host::Host(Driver* owner, ReplicaPlace where,
                           std::unique_ptr<store::ReplicaStore> opened, IdsFile file)
    : driver(owner),
      place(std::move(where)),
      replica(std::move(opened)),
      ids_file(std::move(file)),
      ids(ids_file.table()),
      node({.volume = owner->config_.id,
            .self = place.member,
            .size_bytes = owner->config_.size_bytes,
            .copy_bytes_per_second = owner->config_.copy_bytes_per_second,
            .wait_on_full = owner->config_.on_full == OnFull::kWait,
            .durable_changes = owner->config_.durability == Durability::kWrite,
            .health_ms = owner->config_.cluster ? owner->config_.cluster->health_ms : 0},
           this, &ids) {
    for (std::size_t kind = 0; kind < timers.size(); ++kind) {
        timers[kind].host = this;
        timers[kind].kind = static_cast<replication::TimerKind>(kind);
        timers[kind].on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
            auto* const timer = static_cast<HostTimer*>(fired);
            timer->host->driver->step([timer] { timer->host->node.on_timer(timer->kind); });
        };
    }
}

Volume::Driver::Host::~Host() {
    for (HostTimer& timer : timers) driver->reactor_->cancel_timer(&timer);
}

void Volume::Driver::Host::send(const replication::Message& message) {
    driver->messages_.push(replication::Message(message));
}

void Volume::Driver::Host::disk(const replication::DiskRequest& request) {
    io::spawn(gate, driver->run_disk(this, request));
}

io::Task<void> Volume::Driver::run_disk(Host* host, replication::DiskRequest request) {
    Done done{.kind = Done::Kind::kDisk, .host = host, .token = request.token};
    store::ReplicaStore& replica = *host->replica;
    const std::uint64_t at = request.range.offset_bytes;
    const std::uint64_t begun = host->watch.begin();
    watch_disks();
    switch (request.kind) {
        case OpKind::kRead:
            done.result = co_await replica.read(at, request.into);
            break;
        case OpKind::kWrite: {
            const block::WriteOptions options{.fua = request.fua};
            done.result = co_await replica.write(at, request.data, options);
            break;
        }
        case OpKind::kDiscard: {
            const block::WriteOptions options{.fua = request.fua};
            done.result = co_await replica.discard(request.range, options);
            break;
        }
        case OpKind::kZero: {
            const block::ZeroOptions options{.fua = request.fua,
                                             .keep_allocated = request.keep_allocated};
            done.result = co_await replica.write_zeroes(request.range, options);
            break;
        }
        case OpKind::kFlush:
            done.result = co_await replica.flush();
            break;
        case OpKind::kHold:
        case OpKind::kMakeEqual:
        case OpKind::kCutHolds:
            break;
        case OpKind::kCut:
            done.result = fail(Errc::kUnsupported, "a cut: stores do not preserve blocks yet");
            break;
    }
    host->watch.end(begun);
    push_done(std::move(done));
}

void Volume::Driver::watch_disks() {
    if (!watch_timer_.armed()) reactor_->start_timer(&watch_timer_, io::Clock::now() + kWatchTick);
}

/// Tells of a disk that begins or ends to hang.
void Volume::Driver::look_at_disks() {
    bool open = false;
    for (const auto& host : hosts_) {
        host->watch.advance();
        open = open || host->watch.open() > 0;
        const bool hangs = host->watch.oldest_ticks() >= kHungSeconds;
        if (hangs == std::exchange(host->hangs, hangs)) continue;
        const std::string text = "the disk of " + host->place.member.replica.to_string() + " in " +
                                 host->place.member.pool.to_string() +
                                 (hangs ? " does not answer" : " answers again");
        log::warn("volume {}: {}", config_.id.to_string(), text);
        if (events_ != nullptr) events_->trouble(config_.id, text);
    }
    if (open) watch_disks();
}

void Volume::Driver::Host::store(const replication::StoreRequest& request) {
    store::SuperblockChange change;
    change.clean = false;
    if (!request.keep_record) {
        change.number = request.record == nullptr ? 0 : request.record->number;
        change.record = store::RecordBytes();
    }
    if (request.record != nullptr)
        change.record = store::RecordBytes(replication::encode(*request.record));
    change.left_by = store::RecordBytes();
    if (request.left_by != nullptr)
        change.left_by = store::RecordBytes(replication::encode(*request.left_by));
    change.durable_through = request.durable_through;
    change.lost = store::LostReplicas();
    for (std::size_t i = 0; i < request.lost.size(); ++i)
        (*change.lost)[i] = {request.lost[i].replica, request.lost[i].number,
                             request.lost[i].through};
    if (request.pending != nullptr) {
        change.pending = store::ProposalBytes();
        if (*request.pending)
            change.pending = store::ProposalBytes(replication::encode(**request.pending));
    }
    change.boot_id = request.in_sync ? driver->config_.boot_id : store::BootId{};
    faults::hit("volume.before_store");
    io::spawn(gate, driver->run_store(this, Done::Kind::kStored, request.token, change));
}

io::Task<void> Volume::Driver::run_store(Host* host, Done::Kind kind, std::uint64_t token,
                                         store::SuperblockChange change) {
    Done done{.kind = kind, .host = host, .token = token};
    const std::uint64_t begun = host->watch.begin();
    watch_disks();
    done.result = co_await host->replica->update_superblock(change);
    host->watch.end(begun);
    push_done(std::move(done));
}

void Volume::Driver::Host::mark(std::uint64_t through) {
    store::SuperblockChange change;
    change.durable_through = through;
    io::spawn(gate, driver->run_store(this, Done::Kind::kMarked, through, change));
}

replication::UnitSet Volume::Driver::Host::dirty(ReplicaId lost) {
    const store::Bitmap* const map = replica->dirty(lost);
    return map == nullptr ? replication::UnitSet() : set_bits(*map);
}

void Volume::Driver::Host::extent(std::uint64_t token, Range range) {
    io::spawn(gate, driver->run_extent(this, token, range));
}

io::Task<void> Volume::Driver::run_extent(Host* host, std::uint64_t token, Range range) {
    Done done{.kind = Done::Kind::kExtent, .host = host, .token = token};
    const auto extents = co_await host->replica->block_status(range, 1);
    if (extents) {
        done.extent = extents->front();
    } else {
        done.result = fail(extents.error());
    }
    push_done(std::move(done));
}

replication::RegionSet Volume::Driver::Host::activity() { return set_bits(replica->activity()); }

void Volume::Driver::Host::clear_activity(const replication::RegionSet& regions,
                                          std::uint64_t through) {
    // At once, though another may still be under way: the store clears as of the call.
    io::spawn(gate, driver->run_clear(this, regions, through));
}

io::Task<void> Volume::Driver::run_clear(Host* host, replication::RegionSet regions,
                                         std::uint64_t through) {
    const std::uint64_t begun = host->watch.begin();
    watch_disks();
    // Where it fails the bits stay: more is copied than needed.
    (void)co_await host->replica->clear_activity(regions, through);
    host->watch.end(begun);
}

Result<io::BufferPool*> Volume::Driver::payloads() {
    if (!payloads_) {
        TRY_ASSIGN(payloads_, io::BufferPool::create(kPayloadBytes));
    }
    return payloads_.get();
}

std::uint32_t Volume::Driver::keep_buffer(io::Buffer buffer) {
    if (kept_free_.empty()) {
        kept_.push_back(std::move(buffer));
        return static_cast<std::uint32_t>(kept_.size() - 1);
    }
    const std::uint32_t place = kept_free_.back();
    kept_free_.pop_back();
    kept_[place] = std::move(buffer);
    return place;
}

void Volume::Driver::Host::acquire_buffer(std::uint64_t token, std::size_t bytes) {
    io::spawn(gate, driver->run_buffer(this, token, bytes));
}

io::Task<void> Volume::Driver::run_buffer(Host* host, std::uint64_t token, std::size_t bytes) {
    const auto pool = payloads();
    CHECK(pool.has_value(), "address space for payloads");
    io::Buffer buffer = co_await (*pool)->acquire(bytes);
    Done done{.kind = Done::Kind::kBuffer, .host = host, .token = token};
    done.buffer.bytes = buffer.span();
    done.buffer.handle = keep_buffer(std::move(buffer));
    push_done(std::move(done));
}

void Volume::Driver::Host::release_buffer(std::uint32_t handle) {
    driver->kept_[handle].release();
    driver->kept_free_.push_back(handle);
}

void Volume::Driver::Host::propose(const replication::Proposal& next) {
    driver->learn_homes(next.next);
    proposal = next;
    ++proposals;
    io::spawn(gate, driver->run_propose(this));
}

io::Task<void> Volume::Driver::run_propose(Host* host) {
    const std::uint64_t mine = host->proposals;
    replication::Proposal proposal = *host->proposal;
    auto proposing = authority_->propose(std::move(proposal));
    const auto outcome = co_await proposing;
    if (mine != host->proposals) co_return;  // another one was sent since
    if (outcome) learn_homes(outcome->current);
    if (outcome) retired_ = !accepted(outcome->verdict) && outcome->current.number == 0;
    step([&] {
        if (outcome) {
            host->node.on_outcome(outcome->verdict, &outcome->current);
        } else {
            host->node.on_outcome(fail(outcome.error()), nullptr);
        }
    });
}

void Volume::Driver::Host::ask_authority() { io::spawn(gate, driver->run_ask(this)); }

io::Task<void> Volume::Driver::run_ask(Host* host) {
    const auto record = co_await authority_->current(config_.id);
    if (record && *record) learn_homes(**record);
    step([&] {
        if (record && *record) {
            host->node.on_current(&**record);
        } else {
            host->node.on_current(fail(Errc::kTimedOut, "ask the authority"));
        }
    });
}

void Volume::Driver::Host::start_timer(replication::TimerKind kind, std::uint32_t milliseconds) {
    driver->reactor_->start_timer(&timers[static_cast<std::size_t>(kind)],
                                  io::Clock::now() + std::chrono::milliseconds(milliseconds));
}

void Volume::Driver::Host::notice(const replication::Notice& notice) { driver->on_notice(notice); }

}  // namespace ublkd::volume
