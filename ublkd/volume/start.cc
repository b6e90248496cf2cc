// Starting and stopping a volume, and bringing replicas in: which stores are opened, and what their
// nodes are told.
#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {
namespace {

using replication::Membership;
using replication::Role;

void remove_folder(const std::string& folder) {
    std::error_code ignored;  // best effort: what is left is swept when its pool is opened
    std::filesystem::remove_all(folder, ignored);
}

replication::NodeStart node_start(const store::ReplicaStore& replica, const store::BootId& boot,
                                  std::optional<Membership> record,
                                  std::optional<replication::Proposal> pending, bool first_record) {
    replication::NodeStart start;
    const store::Superblock& superblock = replica.superblock();
    // In this boot a damaged copy is that of a failed disk: the mark that put it out may have been
    // in it.
    const bool whole =
        replica.both_superblocks_valid() || faults::rule_off("rule.both_superblocks");
    const bool known =
        record.has_value() && whole && (superblock.clean || superblock.boot_id == boot);
    // Made, named in the volume's first record, and never written: as empty as the others.
    const bool never_written = !record && superblock.clean && first_record;
    start.in_sync = known || never_written;
    start.record = std::move(record);
    start.pending = std::move(pending);
    return start;
}

}  // namespace

io::Task<Result<void>> Volume::create(io::Reactor* reactor, io::BufferPool* buffers,
                                      VolumeConfig config,
                                      replication::AuthorityClient* authority) {
    Membership record;
    record.volume = config.id;
    record.number = 1;
    for (const ReplicaPlace& place : config.replicas) record.members.push_back(place.member);
    if (!record.members.empty()) record.primary = record.members.front().replica;
    CO_TRY(replication::validate(record));
    std::vector<std::string> made;
    Result<void> result;
    for (const ReplicaPlace& place : config.replicas) {
        const store::ReplicaConfig replica{
            .volume = config.id,
            .incarnation = place.member.replica,
            .size_bytes = config.size_bytes,
            .direct = place.direct,
            .boot_id = config.boot_id,
            .number = record.number,
            .record = store::RecordBytes(replication::encode(record))};
        const store::StoreOptions options{.budget = place.budget, .worker = place.worker};
        auto making = store::ReplicaStore::create(reactor, buffers, place.folder, replica, options);
        const auto store = co_await making;
        if (!store) {
            result = fail(store.error());
            break;
        }
        made.push_back(place.folder);
    }
    if (result) {
        faults::hit("volume.before_first_record");
        replication::Proposal proposal{record.primary, 0, record};
        auto proposing = authority->propose(std::move(proposal));
        const auto outcome = co_await proposing;
        if (!outcome) {
            result = fail(outcome.error());
        } else if (!replication::accepted(outcome->verdict)) {
            result = fail(Errc::kConflict, "the volume has a membership already");
        }
    }
    if (!result) {
        for (const std::string& folder : made) remove_folder(folder);
    }
    co_return result;
}

io::Task<Result<void>> Volume::Driver::start() {
    const auto asked = co_await authority_->current(config_.id);
    if (!asked) co_return fail(asked.error());
    if (!*asked) co_return fail(Errc::kNotFound, "the volume has no membership");
    const Membership record = **asked;
    wanted_ = std::max(config_.replicas.size(), record.members.size());
    std::vector<ReplicaId> missing;
    Result<void> result = co_await open_members(&record, &missing);
    // R4: a proposal that was not settled when the process died may add a member: it is needed as
    // well.
    const std::vector<Membership> pending = pending_records();
    for (std::size_t i = 0; i < pending.size() && result; ++i)
        result = co_await open_members(&pending[i], &missing);
    faults::hit("volume.opened");
    if (result) result = begin(record, missing);
    if (!result) {
        co_await close_hosts();
        co_return result;
    }
    const bool serves =
        co_await reactor_->wait_until(&serving_, io::Clock::now() + config_.start_limit);
    if (serves) co_return result;
    // As after a crash here: what is proposed and not answered is stored with the members (R4).
    const Error error{Errc::kTimedOut, 0, why_not_serving()};
    stopping_ = true;
    co_await background_.close();
    co_await close_hosts();
    co_return fail(error);
}

const char* Volume::Driver::why_not_serving() const {
    for (const auto& host : hosts_) {
        if (host->node.authority_failures() > 0)
            return "the authority does not answer (R4), and no member may serve before it has";
    }
    return "no member has become primary (R7)";
}

io::Task<Result<void>> Volume::Driver::open_members(const Membership* record,
                                                    std::vector<ReplicaId>* missing) {
    for (const replication::Member& member : record->members) {
        const bool known =
            std::find(missing->begin(), missing->end(), member.replica) != missing->end();
        if (known || find(member.replica) != nullptr) continue;
        const auto place = std::find_if(
            config_.replicas.begin(), config_.replicas.end(),
            [&](const ReplicaPlace& at) { return at.member.replica == member.replica; });
        if (place == config_.replicas.end()) {
            missing->push_back(member.replica);
            continue;
        }
        const store::StoreOptions options{.budget = place->budget, .worker = place->worker};
        auto opening = store::ReplicaStore::open(reactor_, buffers_, place->folder, options);
        auto opened = co_await opening;
        if (!opened) {
            if (opened.error().code == Errc::kBusy) co_return fail(opened.error());
            log::warn("volume {}: replica {}: {}", config_.id.to_string(),
                      member.replica.to_string(), to_string(opened.error()));
            missing->push_back(member.replica);
            continue;
        }
        const store::Superblock& superblock = (*opened)->superblock();
        if (superblock.volume != config_.id || superblock.size_bytes != config_.size_bytes)
            co_return fail(Errc::kCorrupt,
                           "a replica of another volume or size in the place of a member");
        if (superblock.number > record->number)
            co_return fail(Errc::kStale, "a replica knows a greater number than the authority");
        CO_TRY(add_host(*place, std::move(*opened), record->number == 1));
    }
    if (hosts_.empty()) co_return fail(Errc::kIo, "no member's replica can be opened");
    co_return Result<void>{};
}

std::vector<Membership> Volume::Driver::pending_records() const {
    std::vector<Membership> records;
    for (const auto& host : hosts_) {
        const auto pending =
            replication::decode_proposal(host->replica->superblock().pending.span());
        if (pending) records.push_back(pending->next);
    }
    return records;
}

Result<void> Volume::Driver::add_host(const ReplicaPlace& place,
                                      std::unique_ptr<store::ReplicaStore> store,
                                      bool first_record) {
    TRY_ASSIGN(IdsFile ids, IdsFile::open(config_.run_dir, config_.id, place.member.replica));
    const store::Superblock& superblock = store->superblock();
    std::optional<Membership> record;
    if (superblock.number != 0) {
        TRY_ASSIGN(record, replication::decode_membership(superblock.record.span()));
    }
    std::optional<replication::Proposal> pending;
    if (!superblock.pending.empty()) {
        TRY_ASSIGN(pending, replication::decode_proposal(superblock.pending.span()));
    }
    const auto start =
        node_start(*store, config_.boot_id, std::move(record), std::move(pending), first_record);
    hosts_.push_back(std::make_unique<Host>(this, place, std::move(store), std::move(ids)));
    hosts_.back()->node.start(start);
    return {};
}

Result<void> Volume::Driver::begin(const Membership& record,
                                   const std::vector<ReplicaId>& missing) {
    client_->set_record(record, false);
    Host* const primary = find(record.primary);
    Host* heir = nullptr;
    if (primary == nullptr) {
        for (const auto& host : hosts_) {
            if (heir == nullptr && host->node.in_sync()) heir = host.get();
        }
        // Nobody may choose among replicas that restarted without their primary: that is an
        // operator's force.
        if (heir == nullptr)
            return fail(Errc::kIo, "the primary is gone and no other member is in sync");
    }
    step([&] {
        for (const auto& host : hosts_) {
            if (host.get() != primary && host.get() != heir) host->node.begin(record, missing);
        }
        if (primary != nullptr) {
            primary->node.begin(record, missing);
        } else {
            heir->node.replace_primary(record, missing);
        }
    });
    return {};
}

io::Task<Result<void>> Volume::Driver::add_replica(ReplicaPlace place) {
    Host* const primary = serving();
    if (primary == nullptr) co_return fail(Errc::kBusy, "the volume does not serve yet");
    const Membership& record = *primary->node.record();
    if (record.has(place.member.replica)) co_return fail(Errc::kExists, "the replica is a member");
    if (record.members.size() >= replication::kMaxMembers)
        co_return fail(Errc::kExhausted, "three members");
    if (primary->node.joining() || find(place.member.replica) != nullptr)
        co_return fail(Errc::kBusy, "a replica is joining already");
    const store::ReplicaConfig config{.volume = config_.id,
                                      .incarnation = place.member.replica,
                                      .size_bytes = config_.size_bytes,
                                      .direct = place.direct,
                                      .boot_id = {},
                                      .number = 0,
                                      .record = {}};
    const store::StoreOptions options{.budget = place.budget, .worker = place.worker};
    auto opening = store::ReplicaStore::create(reactor_, buffers_, place.folder, config, options);
    auto opened = co_await opening;
    if (!opened && opened.error().code == Errc::kExists) {
        // An interrupted call left it: it is copied from the start.
        auto again = store::ReplicaStore::open(reactor_, buffers_, place.folder, options);
        opened = co_await again;
    }
    if (!opened) co_return fail(opened.error());
    const store::Superblock& superblock = (*opened)->superblock();
    if (superblock.volume != config_.id || superblock.size_bytes != config_.size_bytes)
        co_return fail(Errc::kCorrupt, "a replica of another volume or size in its place");
    // The primary may have changed meanwhile.
    Host* const now = serving();
    if (now == nullptr || now->node.joining() || find(place.member.replica) != nullptr || stopping_)
        co_return fail(Errc::kBusy, "the membership is being changed");
    std::erase_if(lost_,
                  [&](const Lost& known) { return known.member.replica == place.member.replica; });
    CO_TRY(add_host(place, std::move(*opened), false));
    std::erase_if(config_.replicas, [&](const ReplicaPlace& known) {
        return known.member.replica == place.member.replica;
    });
    config_.replicas.push_back(place);
    bool added = false;
    step([&] { added = now->node.add(place.member); });
    if (!added) {
        wake_maintenance();  // closes it again
        co_return fail(Errc::kBusy, "the membership is being changed");
    }
    co_return Result<void>{};
}

// ---- looking after those that are no members

void Volume::Driver::wake_maintenance() {
    woken_ = true;
    if (stopping_ || maintaining_) return;
    maintaining_ = true;
    io::spawn(background_, maintain());
}

io::Task<void> Volume::Driver::maintain() {
    while (woken_ && !stopping_) {
        woken_ = false;
        co_await reactor_->yield();  // not from inside of a step
        while (!stopping_ && look_after_hosts()) co_await reactor_->yield();
        Host* out = nullptr;
        for (const auto& host : hosts_) {
            const Host* const primary = serving();
            const bool member =
                primary == nullptr || primary->node.record()->has(host->place.member.replica);
            const bool joining =
                primary != nullptr && primary->node.joining() == host->place.member.replica;
            if (!member && !joining) out = host.get();
        }
        if (out != nullptr && !stopping_) {
            out->ids_file.remove();
            co_await close_host(out);
            woken_ = true;
        }
    }
    maintaining_ = false;
}

/// True where something was done that may make more possible.
bool Volume::Driver::look_after_hosts() {
    Host* const primary = serving();
    if (primary == nullptr) return false;
    const Membership record = *primary->node.record();
    for (const auto& host : hosts_) {
        const ReplicaId replica = host->place.member.replica;
        if (host.get() == primary || record.has(replica) || primary->node.joining() == replica)
            continue;
        if (host->node.role() != Role::kOut && host->node.number() < record.number) {
            step([&] { host->node.on_current(&record); });
            if (host->node.role() == Role::kOut) return true;
        }
    }
    return false;
}

/// Its node takes no part any more: waits for what its disk and its peers still have to answer,
/// then closes its store.
io::Task<void> Volume::Driver::close_host(Host* host) {
    step([&] { host->node.stop(); });
    while (host->node.open_ops() > 0 || comparing_ > 0)
        co_await reactor_->sleep_for(std::chrono::milliseconds(2));
    co_await host->gate.close();
    std::erase_if(hosts_, [&](const std::unique_ptr<Host>& known) { return known.get() == host; });
}

/// All nodes end before the first store is closed: they still answer each other.
io::Task<void> Volume::Driver::quiesce_hosts() {
    step([&] {
        for (const auto& host : hosts_) host->node.stop();
    });
    const auto busy = [](const std::unique_ptr<Host>& host) { return host->node.open_ops() > 0; };
    while (std::any_of(hosts_.begin(), hosts_.end(), busy))
        co_await reactor_->sleep_for(std::chrono::milliseconds(2));
}

io::Task<void> Volume::Driver::close_hosts() {
    co_await quiesce_hosts();
    while (!hosts_.empty()) co_await close_host(hosts_.back().get());
}

// ---- stopping

io::Task<Result<void>> Volume::Driver::flush_all() {
    Waiting request;
    request.kind = replication::OpKind::kFlush;
    co_await submitted(request);
    co_return request.result;
}

io::Task<Result<void>> Volume::Driver::stop(Retries retries) {
    CHECK(!stopping_, "a volume is stopped once");
    co_await gate_.close();
    stopping_ = true;
    co_await background_.close();
    Host* const primary = serving();
    if (primary != nullptr && primary->node.joining()) {
        const ReplicaId joining = primary->node.joining();
        step([&] {
            primary->node.on_peer_lost(joining, Error{Errc::kCancelled, 0, "the volume stops"});
        });
    }
    Result<void> result = co_await flush_all();
    faults::hit("volume.before_clean");
    if (result) result = co_await mark_clean();
    if (result && retries == Retries::kNone) {
        for (const auto& host : hosts_) host->ids_file.remove();
    }
    co_await close_hosts();
    co_return result;
}

/// Everything is durable on all members: their bits are cleared, unless a copy of R7 is still to be
/// done, and they are marked, so that the next start finds them in sync in whatever boot.
io::Task<Result<void>> Volume::Driver::mark_clean() {
    Host* const primary = serving();
    if (primary == nullptr || primary->node.self_failed())
        co_return fail(Errc::kIo, "no primary to stop in order");
    const Membership record = *primary->node.record();
    const bool equal = primary->node.regions_to_copy() == 0 && !primary->node.proposing();
    co_await quiesce_hosts();
    Result<void> result;
    for (const auto& host : hosts_) {
        if (!record.has(host->place.member.replica)) continue;
        if (equal) {
            const replication::RegionSet regions = host->activity();
            const auto cleared = co_await host->replica->clear_activity(regions);
            if (!cleared) result = fail(cleared.error());
        }
        const auto marked = co_await host->replica->mark_clean();
        if (!marked) result = fail(marked.error());
        faults::hit("volume.marked_clean");
    }
    co_return result;
}

}  // namespace ublkd::volume
