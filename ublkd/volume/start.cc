// Starting a volume: which stores are opened, and what their nodes are told.
#include <algorithm>
#include <utility>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/volume/host.h"
#include "ublkd/volume/kept_aside.h"

namespace ublkd::volume {
namespace {

using replication::Membership;

constexpr std::size_t kLinkBytes = 64 * kMiB;  // as address space

/// `ids_known`: its table is there (R8). Without it a change that comes again would be applied over
/// a later one. `retried`: so it might, also after a clean stop.
replication::NodeStart node_start(const store::ReplicaStore& replica, const store::BootId& boot,
                                  bool ids_known, bool retried, std::optional<Membership> record,
                                  std::optional<replication::Proposal> pending, bool first_record) {
    replication::NodeStart start;
    const store::Superblock& superblock = replica.superblock();
    // In this boot a damaged copy is that of a failed disk: the mark that put it out may have been
    // in it.
    const bool whole =
        replica.both_superblocks_valid() || faults::rule_off("rule.both_superblocks");
    const bool clean = superblock.clean && (ids_known || !retried);
    const bool known =
        record.has_value() && whole && (clean || (superblock.boot_id == boot && ids_known));
    // Made, named in the volume's first record, and never written: as empty as the others.
    const bool never_written = !record && superblock.clean && first_record;
    start.in_sync = known || never_written;
    start.durable_through = superblock.durable_through;
    start.cleared_through = superblock.cleared_through;
    for (std::size_t i = 0; i < start.lost.size(); ++i)
        start.lost[i] = {superblock.lost[i].replica, superblock.lost[i].number,
                         superblock.lost[i].through};
    start.record = std::move(record);
    start.pending = std::move(pending);
    return start;
}

/// Whether a member that could not be opened is lost with its disk. What this process has too
/// little of (open files, memory), may not do or does not know (a newer format) says nothing of
/// the replica: the start fails, and a later one finds it in sync.
bool is_lost(const Error& error) {
    if (faults::rule_off("rule.shortage_is_no_loss")) return error.code != Errc::kBusy;
    switch (error.code) {
        case Errc::kNotFound:
        case Errc::kIo:
        case Errc::kCorrupt:
        case Errc::kReadOnly:  // as ext4 becomes when its disk fails
        case Errc::kTimedOut:
            return true;
        default:
            return false;
    }
}

}  // namespace

io::Task<Result<void>> Volume::Driver::start() {
    CO_TRY(make_client(config_.cluster ? config_.cluster->attachment : AttachmentId()));
    const auto asked = co_await authority_->current(config_.id);
    if (!asked) co_return fail(asked.error());
    if (!*asked) co_return fail(Errc::kNotFound, "the volume has no membership");
    const Membership record = **asked;
    wanted_ = std::max(config_.replicas.size(), record.members.size());
    if (config_.cluster) {
        CO_TRY(open_links());
    }
    learn_homes(record);
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
    if (elsewhere(record.primary)) co_return result;  // its client finds who serves
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
        if (known || find(member.replica) != nullptr || elsewhere(member.replica)) continue;
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
            if (!is_lost(opened.error())) co_return fail(opened.error());
            log::warn("volume {}: replica {}: {}", config_.id.to_string(),
                      member.replica.to_string(), to_string(opened.error()));
            missing->push_back(member.replica);
            continue;
        }
        const store::Superblock& superblock = (*opened)->superblock();
        if (superblock.volume != config_.id || superblock.size_bytes != config_.size_bytes)
            co_return fail(Errc::kCorrupt,
                           "a replica of another volume or size in the place of a member");
        // R16: a store that was restored from a backup, and is behind.
        std::uint64_t left = 0;
        if (!superblock.left_by.empty()) {
            CO_TRY_ASSIGN(const Membership newer,
                          replication::decode_membership(superblock.left_by.span()));
            left = newer.number;
        }
        if (std::max(superblock.number, left) > record->number &&
            !faults::rule_off("rule.older_store"))
            co_return fail(Errc::kStale, "a replica knows a greater number than the authority");
        CO_TRY_ASSIGN(RunFile ids,
                      RunFile::ids_of(config_.run_dir, config_.id, place->member.replica));
        CO_TRY(co_await restore_ids(*place, superblock, ids.as<KeptIds>()));
        CO_TRY(add_host(*place, std::move(*opened), std::move(ids), record->number == 1));
    }
    if (hosts_.empty() && !links_) co_return fail(Errc::kIo, "no member's replica can be opened");
    co_return Result<void>{};
}

/// What a clean stop has put aside, where a boot has ended since.
io::Task<Result<void>> Volume::Driver::restore_ids(const ReplicaPlace& place,
                                                   const store::Superblock& superblock,
                                                   KeptIds* ids) {
    if (!superblock.clean || superblock.number == 0 || ids->of_member != 0)
        co_return Result<void>{};
    CO_TRY_ASSIGN(const Membership record,
                  replication::decode_membership(superblock.record.span()));
    if (!others_may_retry(record)) co_return Result<void>{};
    const auto restored = co_await take_aside(reactor_, place.folder, &ids->table);
    if (restored) {
        ids->of_member = 1;
    } else {
        log::warn("volume {}: replica {} has lost what it knew of applied changes: {}",
                  config_.id.to_string(), place.member.replica.to_string(),
                  to_string(restored.error()));
    }
    co_return Result<void>{};
}

Result<void> Volume::Driver::open_links() {
    // Of its own: what came stays until it is answered, and that waits for the other pools.
    TRY_ASSIGN(link_buffers_, io::BufferPool::create(kLinkBytes));
    LinksConfig links;
    links.own = peer::Hello{.cluster = config_.cluster->id,
                            .host = config_.cluster->self,
                            .volume = config_.id,
                            .boot_id = config_.boot_id,
                            .attachment = config_.cluster->attachment};
    links.limits = peer::Limits{.volume = config_.id, .volume_bytes = config_.size_bytes};
    links.connect = config_.cluster->connect;
    links_.emplace(reactor_, link_buffers_.get(), std::move(links), this);
    return {};
}

std::vector<Membership> Volume::Driver::pending_records() {
    std::vector<Membership> records;
    for (const auto& host : hosts_) {
        const auto pending =
            replication::decode_proposal(host->replica->superblock().pending.span());
        if (pending) {
            learn_homes(pending->next);
            records.push_back(pending->next);
        }
    }
    return records;
}

Result<void> Volume::Driver::add_host(const ReplicaPlace& place,
                                      std::unique_ptr<store::ReplicaStore> store, RunFile ids,
                                      bool first_record) {
    const store::Superblock& superblock = store->superblock();
    std::optional<Membership> record;
    if (superblock.number != 0) {
        TRY_ASSIGN(record, replication::decode_membership(superblock.record.span()));
    }
    std::optional<replication::Proposal> pending;
    if (!superblock.pending.empty()) {
        TRY_ASSIGN(pending, replication::decode_proposal(superblock.pending.span()));
    }
    KeptIds* const kept = ids.as<KeptIds>();
    const bool ids_known =
        kept->of_member != 0 || ids.in_memory() || faults::rule_off("rule.ids_of_this_boot");
    const bool retried = record && others_may_retry(*record);
    const auto start = node_start(*store, config_.boot_id, ids_known, retried, std::move(record),
                                  std::move(pending), first_record);
    if (start.in_sync) kept->of_member = 1;
    hosts_.push_back(std::make_unique<Host>(this, place, std::move(store), std::move(ids)));
    hosts_.back()->node.start(start);
    return {};
}

Result<void> Volume::Driver::begin(const Membership& record,
                                   const std::vector<ReplicaId>& missing) {
    tell_clients(record, false);
    told_number_ = record.number;
    Host* const primary = find(record.primary);
    Host* heir = nullptr;
    if (primary == nullptr && !elsewhere(record.primary)) {
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
        } else if (heir != nullptr) {
            heir->node.replace_primary(record, missing);
        }
    });
    return {};
}

}  // namespace ublkd::volume
