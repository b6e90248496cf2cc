#include "ublkd/volume/driver.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/replication/questions.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {
namespace {

constexpr std::uint64_t kOwnRoute = UINT64_MAX;  // of own_client_'s; no link gives it

}  // namespace

Volume::Driver::Driver(io::Reactor* reactor, io::BufferPool* buffers, VolumeConfig config,
                       replication::AuthorityClient* authority, VolumeEvents* events)
    : reactor_(reactor),
      buffers_(buffers),
      config_(std::move(config)),
      authority_(authority),
      events_(events),
      own_client_({.volume = config_.id, .client_start = random_u64()}, &own_effects_) {
    geometry_.size_bytes = config_.size_bytes;
    geometry_.logical_block_bytes = config_.logical_block_bytes;
    geometry_.volatile_write_cache = config_.durability == Durability::kFlush;
    client_timer_.driver = this;
    client_timer_.on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        Driver* const driver = static_cast<ClientTimer*>(fired)->driver;
        driver->step([driver] { driver->client_->on_timer(); });
    };
    watch_timer_.driver = this;
    watch_timer_.on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        static_cast<WatchTimer*>(fired)->driver->look_at_disks();
    };
}

/// The session of an attachment goes on where a process before left it (R9): its guest's writes
/// were acknowledged under the loss count that was kept. Errors: the errno's of the run folder.
Result<void> Volume::Driver::make_client(AttachmentId attachment) {
    replication::ClientConfig client{.volume = config_.id, .client_start = random_u64()};
    RunFile losses;
    if (config_.cluster) client.deadline_ms = config_.cluster->deadline_ms;
    if (attachment) {
        client.attachment = attachment;
        TRY_ASSIGN(losses, RunFile::losses_of(config_.run_dir, config_.id, attachment));
        if (!faults::rule_off("rule.losses_kept"))
            client.losses = losses.as<KeptLosses>()->sent_plus_one - 1;
    }
    client_.emplace(client, this);
    losses_file_ = std::move(losses);
    return {};
}

/// A client of another attachment is another client.
Result<void> Volume::Driver::set_attachment(AttachmentId attachment, Retries of_former) {
    CHECK(links_.has_value(), "a volume of several hosts");
    if (client_->open() > 0) return fail(Errc::kBusy, "requests of a former attachment are open");
    const std::optional<replication::Membership> record = client_->record();
    if (of_former == Retries::kNone) losses_file_.remove();
    TRY(make_client(attachment));
    reactor_->cancel_timer(&client_timer_);
    config_.cluster->attachment = attachment;
    links_->set_attachment(attachment);
    if (record) client_->set_record(*record, false);
    ask_authority();  // the record that has it: its first request need not find that out
    return {};
}

Volume::Driver::~Driver() {
    CHECK(hosts_.empty(), "stop() comes before a volume is destroyed");
    reactor_->cancel_timer(&watch_timer_);
    reactor_->cancel_timer(&client_timer_);
}

// ---- requests and messages

void Volume::Driver::submit(replication::Client& client, Waiting& request) {
    request.on_done = [](replication::ClientRequest* done) noexcept {
        auto* const self = static_cast<Waiting*>(done);
        self->done = true;
        if (self->waiter) io::make_ready(self->waiter);
    };
    client.submit(request);
    pump();
}

void Volume::Driver::OwnEffects::send_to_node(const replication::Message& message) {
    replication::Message own = message;
    own.route = kOwnRoute;
    driver->messages_.push(std::move(own));
}

void Volume::Driver::send_to_node(const replication::Message& message) {
    if (auto* const kept = losses_file_.as<KeptLosses>();
        kept != nullptr && message.type == replication::MessageType::kRequest)
        kept->sent_plus_one = message.losses + 1;
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
    using replication::MessageType;
    const bool answer = replication::is_answer(message.type);
    if (message.route == kOwnRoute && answer) {
        own_client_.on_message(message);
    } else if (message.route != 0 && answer) {
        links_->answer(message);
    } else if (Host* const host = find(message.to); host != nullptr) {
        host->node.on_message(message);
    } else if (!message.to && (message.type != MessageType::kPing || is_ours(message))) {
        client_->on_message(message);
    } else if (message.route == 0 && (elsewhere(message.to) || !message.to)) {
        send_elsewhere(message);
    } else if (message.route == kOwnRoute && elsewhere(message.to)) {
        refuse(message, "the primary is on another host", &own_client_);
    } else {
        deliver_to_nobody(message);
    }
}

/// No such replica or client is here (any more): who asked is told.
void Volume::Driver::deliver_to_nobody(const replication::Message& message) {
    using replication::MessageType;
    const bool of_client =
        message.type == MessageType::kRequest || message.type == MessageType::kFailover;
    if (!of_client && !replication::answer_of(message.type)) return;
    replication::Message answer =
        of_client ? replication::moved(message) : replication::no_answer(message);
    answer.route = message.route;
    if (answer.route == kOwnRoute) {
        own_client_.on_message(answer);
    } else if (answer.route != 0) {
        links_->answer(answer);
    } else if (Host* const sender = find(message.from); sender != nullptr) {
        sender->node.on_message(answer);
        sender->node.on_peer_lost(message.to,
                                  Error{Errc::kNotFound, 0, "the replica is not there"});
    } else if (!message.from) {
        client_->on_message(answer);
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
        case Done::Kind::kMarked:
            done.host->node.on_marked(done.token, done.result);
            break;
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
            tell_clients(*notice.record, true);
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
        case Kind::kJoined:
            std::erase_if(
                lost_, [&](const Lost& known) { return known.member.replica == notice.replica; });
            if (events_ != nullptr) events_->sync_finished(config_.id, notice.replica, notice.done);
            wake_maintenance();
            break;
        case Kind::kLetGo:
            break;  // the record without it tells
        case Kind::kFailover:
            log::warn("volume {}: takes over from replica {}, which {}", config_.id.to_string(),
                      notice.replica.to_string(), notice.text);
            break;
        case Kind::kTrouble:
            log::warn("volume {}: {}", config_.id.to_string(), notice.text);
            if (events_ != nullptr) events_->trouble(config_.id, notice.text);
            break;
    }
}

void Volume::Driver::on_record(const replication::Membership& record) {
    learn_homes(record);
    tell_clients(record, false);
    if (record.number <= told_number_) return;
    told_number_ = record.number;
    wanted_ = std::max(wanted_, record.members.size());
    if (events_ != nullptr) events_->membership_changed(config_.id, record);
    wake_maintenance();  // who is no member any more is told there
}

void Volume::Driver::tell_clients(const replication::Membership& record, bool serves) {
    client_->set_record(record, serves);
    own_client_.set_record(record, serves);
}

void Volume::Driver::try_disks(PoolId pool) {
    for (const auto& host : hosts_) {
        if (host->place.member.pool == pool) io::spawn(host->gate, try_disk(host.get()));
    }
}

io::Task<void> Volume::Driver::try_disk(Host* host) {
    const std::uint64_t begun = host->watch.begin();
    watch_disks();
    const auto written = co_await host->replica->update_superblock(store::SuperblockChange{});
    host->watch.end(begun);
    Host* const primary = serving();
    if (written || primary == nullptr) co_return;
    const ReplicaId replica = host->place.member.replica;
    const Error cause = written.error();
    step([&] { primary->node.on_peer_lost(replica, cause); });
}

void Volume::Driver::set_on_full(OnFull on_full) {
    config_.on_full = on_full;
    step([&] {
        for (const auto& host : hosts_) host->node.set_wait_on_full(on_full == OnFull::kWait);
    });
}

}  // namespace ublkd::volume
