#include "ublkd/volume/driver.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {
namespace {

using replication::OpKind;

constexpr std::size_t kPayloadBytes = 16 * kMiB;  // of private copies under way, as address space
constexpr std::uint64_t kProgressBytes = 64 * kMiB;
constexpr std::chrono::seconds kWatchTick{1};

}  // namespace

Volume::Driver::Driver(io::Reactor* reactor, io::BufferPool* buffers, VolumeConfig config,
                       replication::AuthorityClient* authority, VolumeEvents* events)
    : reactor_(reactor),
      buffers_(buffers),
      config_(std::move(config)),
      authority_(authority),
      events_(events) {
    geometry_.size_bytes = config_.size_bytes;
    geometry_.logical_block_bytes = config_.logical_block_bytes;
    geometry_.volatile_write_cache = config_.durability == Durability::kFlush;
    client_.emplace(config_.id, random_u64(), this);
    watch_timer_.driver = this;
    watch_timer_.on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        static_cast<WatchTimer*>(fired)->driver->look_at_disks();
    };
}

Volume::Driver::~Driver() {
    CHECK(hosts_.empty(), "stop() comes before a volume is destroyed");
    reactor_->cancel_timer(&watch_timer_);
}

// ---- requests and messages

void Volume::Driver::submit(Waiting& request) {
    request.on_done = [](replication::ClientRequest* done) noexcept {
        auto* const self = static_cast<Waiting*>(done);
        self->done = true;
        if (self->waiter) io::make_ready(self->waiter);
    };
    client_->submit(request);
    pump();
}

void Volume::Driver::send_to_node(const replication::Message& message) {
    messages_.push(replication::Message(message));
}

void Volume::Driver::push_done(Done done) {
    done_.push(std::move(done));
    pump();
}

void Volume::Driver::pump() {
    if (pumping_) return;
    pumping_ = true;
    while (!messages_.empty() || !done_.empty()) {
        while (!messages_.empty()) {
            const replication::Message message = messages_.pop();
            deliver(message);
        }
        if (!done_.empty()) {
            Done done = done_.pop();
            deliver(done);
        }
    }
    pumping_ = false;
}

void Volume::Driver::deliver(const replication::Message& message) {
    if (!message.to) {
        client_->on_message(message);
        return;
    }
    if (Host* const host = find(message.to); host != nullptr) {
        host->node.on_message(message);
        return;
    }
    // No such replica here (any more).
    if (message.type == replication::MessageType::kRequest) {
        replication::Message answer;
        answer.type = replication::MessageType::kMoved;
        answer.volume = message.volume;
        answer.token = message.token;
        client_->on_message(answer);
    } else if (Host* const sender = find(message.from); sender != nullptr) {
        sender->node.on_peer_lost(message.to,
                                  Error{Errc::kNotFound, 0, "the replica is not there"});
    }
}

void Volume::Driver::deliver(Done& done) {
    switch (done.kind) {
        case Done::Kind::kDisk:
            done.host->node.on_disk(done.token, done.result);
            break;
        case Done::Kind::kStored:
            done.host->node.on_stored(done.token, done.result);
            break;
        case Done::Kind::kExtent: {
            Result<block::Extent> extent = done.extent;
            if (!done.result) extent = fail(done.result.error());
            done.host->node.on_extent(done.token, extent);
            break;
        }
        case Done::Kind::kBuffer:
            done.host->node.on_buffer(done.token, done.buffer);
            break;
    }
}

Volume::Driver::Host* Volume::Driver::find(ReplicaId replica) const {
    for (const auto& host : hosts_) {
        if (host->place.member.replica == replica) return host.get();
    }
    return nullptr;
}

Volume::Driver::Host* Volume::Driver::serving() const {
    Host* found = nullptr;
    for (const auto& host : hosts_) {
        if (host->node.role() != replication::Role::kServing) continue;
        if (found == nullptr || host->node.number() > found->node.number()) found = host.get();
    }
    return found;
}

// ---- what nodes tell

void Volume::Driver::on_notice(const replication::Notice& notice) {
    using Kind = replication::Notice::Kind;
    switch (notice.kind) {
        case Kind::kRecord:
            on_record(*notice.record);
            break;
        case Kind::kServing:
            client_->set_record(*notice.record, true);
            serving_.set();
            wake_maintenance();
            break;
        case Kind::kLost: {
            replication::Member member{.replica = notice.replica, .host = {}, .pool = {}};
            if (const Host* const lost = find(notice.replica); lost != nullptr)
                member = lost->place.member;
            for (const ReplicaPlace& place : config_.replicas) {
                if (place.member.replica == notice.replica) member = place.member;
            }
            std::erase_if(
                lost_, [&](const Lost& known) { return known.member.replica == notice.replica; });
            lost_.push_back(Lost{member, notice.cause});
            log::warn("volume {}: replica {} is lost: {}", config_.id.to_string(),
                      notice.replica.to_string(), to_string(notice.cause));
            if (events_ != nullptr) events_->member_lost(config_.id, member, notice.cause);
            wake_maintenance();
            break;
        }
        case Kind::kCopied: {
            const bool much =
                notice.done < last_progress_ || notice.done - last_progress_ >= kProgressBytes;
            if (events_ != nullptr && (much || notice.done == notice.total)) {
                last_progress_ = notice.done;
                events_->sync_progress(config_.id, notice.replica, notice.done, notice.total);
            }
            break;
        }
        case Kind::kJoined:
            std::erase_if(
                lost_, [&](const Lost& known) { return known.member.replica == notice.replica; });
            if (events_ != nullptr) events_->sync_finished(config_.id, notice.replica);
            wake_maintenance();
            break;
        case Kind::kTrouble:
            log::warn("volume {}: {}", config_.id.to_string(), notice.text);
            if (events_ != nullptr) events_->trouble(config_.id, notice.text);
            break;
    }
}

void Volume::Driver::on_record(const replication::Membership& record) {
    const bool newer = !client_->record() || record.number > client_->record()->number;
    client_->set_record(record, false);
    if (!newer) return;
    wanted_ = std::max(wanted_, record.members.size());
    if (events_ != nullptr) events_->membership_changed(config_.id, record);
    wake_maintenance();  // who is no member any more is told there
}

// ---- effects

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
            .durable_changes = owner->config_.durability == Durability::kWrite},
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
    change.number = request.record == nullptr ? 0 : request.record->number;
    change.record = store::RecordBytes();
    if (request.record != nullptr)
        change.record = store::RecordBytes(replication::encode(*request.record));
    if (request.pending != nullptr) {
        change.pending = store::ProposalBytes();
        if (*request.pending)
            change.pending = store::ProposalBytes(replication::encode(**request.pending));
    }
    change.boot_id = request.in_sync ? driver->config_.boot_id : store::BootId{};
    io::spawn(gate, driver->run_store(this, request.token, change));
}

io::Task<void> Volume::Driver::run_store(Host* host, std::uint64_t token,
                                         store::SuperblockChange change) {
    Done done{.kind = Done::Kind::kStored, .host = host, .token = token};
    faults::hit("volume.before_store");
    const std::uint64_t begun = host->watch.begin();
    watch_disks();
    done.result = co_await host->replica->update_superblock(change);
    host->watch.end(begun);
    push_done(std::move(done));
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

replication::RegionSet Volume::Driver::Host::activity() {
    replication::RegionSet regions;
    const store::Bitmap& map = replica->activity();
    for (std::uint64_t bit = map.find_set(0); bit < map.size(); bit = map.find_set(bit + 1))
        regions.push_back(static_cast<std::uint32_t>(bit));
    return regions;
}

void Volume::Driver::Host::clear_activity(const replication::RegionSet& regions) {
    to_clear.insert(to_clear.end(), regions.begin(), regions.end());
    if (!std::exchange(clearing, true)) io::spawn(gate, driver->run_clear(this));
}

io::Task<void> Volume::Driver::run_clear(Host* host) {
    const std::uint64_t begun = host->watch.begin();
    watch_disks();
    while (!host->to_clear.empty()) {
        const replication::RegionSet regions = std::exchange(host->to_clear, {});
        const auto cleared = co_await host->replica->clear_activity(regions);
        if (!cleared) break;  // the bits stay: more is copied than needed
    }
    host->watch.end(begun);
    host->clearing = false;
}

Result<io::BufferPool*> Volume::Driver::payloads() {
    if (!payloads_) {
        TRY_ASSIGN(payloads_, io::BufferPool::create(kPayloadBytes, false));
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
    step([&] {
        if (outcome) {
            host->node.on_outcome(outcome->verdict, &outcome->current);
        } else {
            host->node.on_outcome(fail(outcome.error()), nullptr);
        }
    });
}

void Volume::Driver::Host::ask_authority() { io::spawn(gate, driver->run_ask(this)); }

void Volume::Driver::set_on_full(OnFull on_full) {
    config_.on_full = on_full;
    step([&] {
        for (const auto& host : hosts_) host->node.set_wait_on_full(on_full == OnFull::kWait);
    });
}

io::Task<void> Volume::Driver::run_ask(Host* host) {
    const auto record = co_await authority_->current(config_.id);
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
