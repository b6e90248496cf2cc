#include "ublkd/daemon/pools.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <thread>
#include <utility>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/system.h"
#include "ublkd/store/broken_disk.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::PoolRecord;
using metadata::PoolState;
using metadata::Transaction;

namespace {

// How long one waits for a disk.
constexpr auto kLookLimit = std::chrono::seconds(1);
constexpr auto kProbeLimit = std::chrono::seconds(2);
constexpr auto kOpenLimit = std::chrono::seconds(8);   // another daemon may be dying for 5 of them
constexpr auto kStartLimit = std::chrono::seconds(2);  // of all changes, before volumes come back
constexpr auto kRemoveLimit = std::chrono::seconds(10);  // of a replica's files, which may be large

/// An unmounted folder says nothing of what is in the pool.
Result<void> check_in_place(const store::Pool& pool) {
    TRY_ASSIGN(const bool in_place, pool.is_in_place());
    if (!in_place) return fail(Errc::kClosed, "the pool's file system is not mounted");
    return {};
}

}  // namespace

Pools::Entry::Entry(const PoolRecord& given)
    : record(given), looks("pool-look"), work("pool-work") {}

std::vector<Pools::EntryRef> Pools::all() {
    const std::lock_guard lock(mutex_);
    std::vector<EntryRef> found;
    for (const auto& [id, entry] : entries_) found.push_back(entry);
    return found;
}

Pools::EntryRef Pools::find(PoolId pool) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(pool);
    return found == entries_.end() ? nullptr : found->second;
}

std::shared_ptr<store::Pool> Pools::pool_of(const EntryRef& entry) {
    const std::lock_guard lock(entry->mutex);
    return entry->pool;
}

std::shared_ptr<store::Pool> Pools::taken_from(const EntryRef& entry) {
    const std::lock_guard lock(entry->mutex);
    return std::exchange(entry->pool, nullptr);
}

Result<void> Pools::set_state(PoolId pool, PoolState state) {
    return store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto stored, tx.get<PoolRecord>(pool));
        if (!stored) return fail(Errc::kNotFound, "the pool's record");
        stored->state = state;
        return tx.put(*stored);
    });
}

Result<std::shared_ptr<store::Pool>> Pools::open_pool(const std::string& path) {
    auto opened = store::Pool::open(path);
    if (!opened) return fail(opened.error());
    return std::shared_ptr<store::Pool>(std::move(*opened));
}

void Pools::open_entry(const EntryRef& entry) {
    auto opened =
        entry->work.ask(kOpenLimit, [path = entry->record.path] { return open_pool(path); });
    const std::lock_guard lock(entry->mutex);
    if (opened && (*opened)->id() != entry->record.id) {
        entry->trouble = fmt::format("{} holds another pool, {}", entry->record.path,
                                     (*opened)->id().to_string());
        return;
    }
    if (!opened) {
        entry->trouble = to_string(opened.error());
        return;
    }
    entry->pool = std::move(*opened);
    if (!entry->failed) entry->trouble.clear();
}

Result<void> Pools::open_all(HostId host) {
    TRY_ASSIGN(const auto records, store_->list<PoolRecord>(metadata::where("host", host)));
    std::vector<EntryRef> opened;
    std::vector<std::jthread> threads;
    for (const PoolRecord& record : records) {
        if (record.state == PoolState::kAdding || record.state == PoolState::kRemoving) continue;
        opened.push_back(std::make_shared<Entry>(record));
        opened.back()->failed = record.state == PoolState::kFailed;
        threads.emplace_back([entry = opened.back()] { open_entry(entry); });
    }
    finish_changes_within(kStartLimit);  // the rest is Repair's
    threads.clear();
    for (const EntryRef& entry : opened) {
        if (!pool_of(entry))
            log::warn("pool {} in {} is missing: {}", entry->record.id.to_string(),
                      entry->record.path, entry->trouble);
        const std::lock_guard lock(mutex_);
        entries_[entry->record.id] = entry;
    }
    learn(host);
    return {};
}

/// Whether a failed pool is what was opened. Where it was mounted again, or is not mounted, what
/// lies there now is opened, and it need not wait for its time: it is not the disk that failed just
/// now.
bool Pools::is_in_place(const EntryRef& entry) {
    auto pool = pool_of(entry);
    if (!pool) return false;
    const auto in_place =
        entry->work.ask(kProbeLimit, [pool]() -> Result<bool> { return pool->is_in_place(); });
    if (!in_place) return false;
    if (*in_place) return true;
    pool.reset();
    // There: the last one to leave a file system that has been unmounted may wait for its disk.
    (void)entry->work.ask(kProbeLimit, [old = taken_from(entry)]() mutable -> Result<void> {
        old.reset();
        return {};
    });
    open_entry(entry);
    const std::lock_guard lock(entry->mutex);
    entry->next_probe = {};
    return entry->pool != nullptr;
}

bool Pools::passes_probe(const EntryRef& entry) {
    unsigned failures = 0;
    std::shared_ptr<store::Pool> pool;
    {
        const std::lock_guard lock(entry->mutex);
        if (!entry->pool || !entry->failed || Clock::now() < entry->next_probe) return false;
        failures = entry->failures;
        pool = entry->pool;
    }
    const auto written = entry->work.ask(kProbeLimit, [pool]() -> Result<void> {
        if (const int error = faults::hit("daemon.pool.probe"))
            return fail_errno(error, "write the probe");
        if (const int error = store::BrokenDisk(pool->folder()).error())
            return fail_errno(error, "write the probe");
        const std::string file = pool->folder() + "/probe";
        TRY(write_file_durably(file, std::string(4096, 'p'), 0600));
        return remove_file_durably(file);
    });
    if (!written || !set_state(entry->record.id, PoolState::kAvailable)) {
        const std::lock_guard lock(entry->mutex);
        if (!written) entry->trouble = to_string(written.error());
        entry->backoff = std::min(entry->backoff * 2, kLongestBackoff);
        entry->next_probe = Clock::now() + entry->backoff;
        return false;
    }
    const std::lock_guard lock(entry->mutex);
    if (entry->failures != failures) return false;  // it failed again meanwhile
    entry->failed = false;
    entry->came_back = Clock::now();
    entry->trouble.clear();
    return true;
}

bool Pools::comes_back(const EntryRef& entry) {
    const std::lock_guard turn(entry->turn);
    if (find(entry->record.id) != entry) return false;  // it is being removed
    if (!pool_of(entry)) {
        open_entry(entry);
        const std::lock_guard lock(entry->mutex);
        if (!entry->pool) return false;
        if (!entry->failed) return true;
    }
    {
        const std::lock_guard lock(entry->mutex);
        if (!entry->failed) return false;
    }
    return is_in_place(entry) && passes_probe(entry);
}

void Pools::tell_back(const EntryRef& entry) {
    events_->add("pool.recovered", entry->record.id.to_string(),
                 fmt::format("pool {} is back", entry->record.path));
}

bool Pools::probe() {
    bool came_back = put_back_.exchange(false);
    for (const EntryRef& entry : all()) {
        if (comes_back(entry)) {
            came_back = true;
            tell_back(entry);
        }
        (void)space_of(entry);  // trouble_of() knows then whether the disk answers
    }
    return came_back;
}

void Pools::mark_failed(PoolId pool, const Error& cause) {
    const auto entry = find(pool);
    if (!entry) return;
    {
        const std::lock_guard lock(entry->mutex);
        const auto now = Clock::now();
        // R5: one that fails soon after it came back waits longer each time.
        if (!entry->failed)
            entry->backoff = entry->came_back && now - *entry->came_back < kLongestBackoff
                                 ? std::min(entry->backoff * 2, kLongestBackoff)
                                 : kFirstBackoff;
        entry->failed = true;
        ++entry->failures;
        entry->next_probe = now + entry->backoff;
        entry->trouble = to_string(cause);
    }
    if (const auto stored = set_state(pool, PoolState::kFailed); !stored)
        log::warn("pool {}: {}", pool.to_string(), to_string(stored.error()));
    events_->add("pool.failed", pool.to_string(),
                 fmt::format("pool {}: {}", entry->record.path, to_string(cause)));
}

/// nullopt where it is missing, or its disk does not answer.
std::optional<store::PoolSpace> Pools::space_of(const EntryRef& entry) {
    const auto pool = pool_of(entry);
    if (!pool) return std::nullopt;
    const auto space = entry->looks.ask(kLookLimit, [pool]() -> Result<store::PoolSpace> {
        if (const int error = faults::hit("daemon.pool.look")) return fail_errno(error, "look");
        return pool->space();
    });
    return space ? std::optional(*space) : std::nullopt;
}

std::vector<UsablePool> Pools::usable() {
    std::vector<UsablePool> found;
    for (const EntryRef& entry : all()) {
        {
            const std::lock_guard lock(entry->mutex);
            if (entry->failed) continue;
        }
        if (is_draining(entry->record.id)) continue;
        const auto pool = pool_of(entry);
        const auto space = space_of(entry);
        if (pool && space)
            found.push_back({entry->record.id, entry->record.domain, space->available_bytes(),
                             pool->file_system(), entry->record.host});
    }
    std::ranges::sort(found, [](const UsablePool& a, const UsablePool& b) {
        return std::pair(b.available_bytes, a.id) < std::pair(a.available_bytes, b.id);
    });
    const std::lock_guard lock(mutex_);
    for (const auto& [id, record] : others_) {
        if (record.state == PoolState::kAvailable && !record.draining)
            found.push_back({id, record.domain, 0, 0, record.host});
    }
    return found;
}

void Pools::learn(HostId self) {
    const auto records = store_->list<PoolRecord>();
    if (!records) return;  // what was known stays
    std::map<PoolId, PoolRecord> others;
    std::set<PoolId> draining;
    for (const auto& record : *records) {
        if (record.host != self) others.emplace(record.id, record);
        if (record.draining) draining.insert(record.id);
    }
    const std::lock_guard lock(mutex_);
    others_ = std::move(others);
    draining_ = std::move(draining);
}

std::set<PoolId> Pools::draining() {
    const std::lock_guard lock(mutex_);
    return draining_;
}

bool Pools::is_draining(PoolId pool) {
    const std::lock_guard lock(mutex_);
    return draining_.contains(pool);
}

std::optional<PoolRecord> Pools::find_other(PoolId pool) {
    const std::lock_guard lock(mutex_);
    const auto found = others_.find(pool);
    return found == others_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<volume::ReplicaPlace> Pools::place(PoolId pool, ReplicaId replica) {
    const auto entry = find(pool);
    volume::ReplicaPlace place;
    if (!entry) {
        auto other = find_other(pool);
        if (!other) {  // another host may have made it just now
            learn(identity_->host());
            other = find_other(pool);
        }
        if (!other) return std::nullopt;
        place.member = {replica, other->host, pool};
        return place;
    }
    place.member = {replica, entry->record.host, pool};
    place.folder = fmt::format("{}/replicas/{}", entry->record.path, replica.to_string());
    place.direct = !entry->record.buffered;
    place.worker = entry->worker;
    if (const auto opened = pool_of(entry)) place.budget = opened->budget();
    return place;
}

std::uint64_t Pools::available_bytes(PoolId pool) {
    const auto entry = find(pool);
    const auto space = entry ? space_of(entry) : std::nullopt;
    return space ? space->available_bytes() : 0;
}

std::string Pools::domain_of_pool(PoolId pool) {
    const auto entry = find(pool);
    if (entry) return entry->record.domain;
    const auto other = find_other(pool);
    return other ? other->domain : std::string();
}

HostId Pools::host_of_pool(PoolId pool) {
    if (const auto entry = find(pool)) return entry->record.host;
    const auto other = find_other(pool);
    return other ? other->host : HostId();
}

bool Pools::may_come_back(PoolId pool) {
    return !is_draining(pool) && (find(pool) != nullptr || find_other(pool).has_value());
}

bool Pools::is_missing(PoolId pool) {
    const auto entry = find(pool);
    if (!entry) return false;
    const std::lock_guard lock(entry->mutex);
    return entry->pool == nullptr;
}

std::string Pools::trouble_of(PoolId pool) {
    const auto entry = find(pool);
    if (!entry) return find_other(pool) ? "" : "its pool is not known";
    const std::lock_guard lock(entry->mutex);
    if (!entry->pool || entry->failed)
        return fmt::format("its pool {} is {}: {}", entry->record.path,
                           entry->pool ? "failed" : "missing", entry->trouble);
    return entry->looks.is_late() ? fmt::format("its pool {} does not answer", entry->record.path)
                                  : "";
}

Result<ReplicaLook> Pools::look(PoolId pool, ReplicaId replica) {
    const auto entry = find(pool);
    if (!entry && find_other(pool)) return ReplicaLook{.is_there = true};  // its host knows
    const auto opened = entry ? pool_of(entry) : nullptr;
    if (!opened) return fail(Errc::kClosed, "the replica's pool is missing");
    return entry->looks.ask(kLookLimit, [opened, replica]() -> Result<ReplicaLook> {
        if (const int error = faults::hit("daemon.pool.look")) return fail_errno(error, "look");
        TRY(check_in_place(*opened));
        const std::string folder = opened->replica_folder(replica);
        ReplicaLook look;
        struct stat status{};
        look.is_there = stat((folder + "/superblock").c_str(), &status) == 0;
        if (!look.is_there && errno != ENOENT) return fail_errno(errno, "look at a replica");
        if (stat((folder + "/data").c_str(), &status) == 0)
            look.allocated_bytes = static_cast<std::uint64_t>(status.st_blocks) * 512;
        return look;
    });
}

Result<void> Pools::remove_replica(PoolId pool, ReplicaId replica) {
    const auto entry = find(pool);
    if (!entry && find_other(pool)) return fail(Errc::kClosed, "the pool is another host's");
    if (!entry) return {};
    const auto opened = pool_of(entry);
    if (!opened) return fail(Errc::kClosed, "the replica's pool is missing");
    return entry->work.ask(kRemoveLimit, [opened, replica]() -> Result<void> {
        if (const int error = faults::hit("daemon.pool.remove_replica"))
            return fail_errno(error, "remove replica");
        TRY(check_in_place(*opened));
        return opened->remove_replica(replica);
    });
}

Result<void> Pools::remove_replica_anywhere(ReplicaId replica) {
    std::optional<Error> missing;
    for (const EntryRef& entry : all()) {
        const auto opened = pool_of(entry);
        const auto removed =
            opened
                ? entry->work.ask(
                      kRemoveLimit,
                      [opened, replica]() -> Result<bool> {
                          TRY(check_in_place(*opened));
                          std::error_code error;
                          if (!std::filesystem::exists(opened->replica_folder(replica), error)) {
                              if (error) return fail(Errc::kIo, "look for a replica");
                              return false;
                          }
                          TRY(opened->remove_replica(replica));
                          return true;
                      })
                : Result<bool>(fail(Errc::kClosed, "a pool that may hold the replica is missing"));
        if (removed && *removed) return {};
        if (!removed) missing = removed.error();
    }
    if (missing) return fail(*missing);
    return {};
}

/// The ids of other pools that have the same free space. Asks no disk.
std::vector<std::string> Pools::others_on_its_file_system(const EntryRef& entry) {
    std::vector<std::string> ids;
    const auto pool = pool_of(entry);
    if (!pool) return ids;
    for (const EntryRef& other : all()) {
        const auto opened = other == entry ? nullptr : pool_of(other);
        if (opened && opened->file_system() == pool->file_system())
            ids.push_back(other->record.id.to_string());
    }
    return ids;
}

api::PoolView Pools::view_of(const EntryRef& entry) {
    const PoolRecord& record = entry->record;
    const auto space = space_of(entry);
    api::PoolView view = view_of_record(record);
    view.shares_space_with = others_on_its_file_system(entry);
    if (space) {
        view.used_bytes = space->allocated_bytes;
        view.free_bytes = space->available_bytes();
        view.total_bytes = space->cap_bytes != 0 ? space->cap_bytes : space->file_system_bytes;
    }
    const std::lock_guard lock(entry->mutex);
    view.message = entry->trouble;
    view.state = !entry->pool ? "missing" : entry->failed ? "failed" : "ok";
    if (view.state == "ok" && entry->looks.is_late()) {
        view.state = "failed";
        view.message = "its disk does not answer";
    }
    view.warning = mount_warning_of(record.path);
    return view;
}

/// Of another host's pool: what that has stored, as far as it answers.
api::PoolView Pools::view_of_other(const PoolRecord& record, bool answers) {
    api::PoolView view = view_of_record(record);
    view.measured = false;
    view.state = !answers ? "away" : record.state == PoolState::kFailed ? "failed" : "ok";
    if (!answers)
        view.message = fmt::format("host {} does not answer", view.host_name);
    else if (record.state == PoolState::kFailed)
        view.message = fmt::format("'ebs-cli pool list' at host {} says why", view.host_name);
    return view;
}

api::PoolView Pools::view_of_record(const PoolRecord& record) {
    const auto replicas = store_->list<metadata::ReplicaRecord>(metadata::where("pool", record.id));
    const auto host = store_->get<metadata::HostRecord>(record.host);
    using enum metadata::ReplicaState;
    api::PoolView view;
    if (host && *host) view.host_name = (*host)->name;
    view.id = record.id.to_string();
    view.host_id = record.host.to_string();
    view.path = record.path;
    view.domain = record.domain;
    view.limit_bytes = record.size_bytes.value_or(0);
    view.buffered = record.buffered;
    view.create_time_ms = record.created_ms;
    if (replicas) {
        view.replicas = static_cast<unsigned>(replicas->size());
        view.lost_replicas = static_cast<unsigned>(
            std::ranges::count_if(*replicas, [](const metadata::ReplicaRecord& replica) {
                return replica.state == kLost || replica.state == kReturning;
            }));
    }
    view.draining = is_draining(record.id);
    if (view.draining && replicas) view.left_bytes = volumes_bytes(*replicas);
    return view;
}

/// The sizes of the volumes whose replicas these are: the same at each host.
std::uint64_t Pools::volumes_bytes(const std::vector<metadata::ReplicaRecord>& replicas) {
    std::uint64_t bytes = 0;
    for (const auto& replica : replicas) {
        const auto volume = store_->get<metadata::VolumeRecord>(replica.volume);
        if (volume && *volume) bytes += (*volume)->size_bytes;
    }
    return bytes;
}

std::vector<api::PoolView> Pools::own_pools() {
    std::vector<api::PoolView> views;
    for (const EntryRef& entry : all()) views.push_back(view_of(entry));
    api::sort_by_age(views);
    return views;
}

ApiResult<std::vector<api::PoolView>> Pools::pools() {
    const auto records = store_->list<PoolRecord>();
    if (!records) return refuse(records.error(), "cannot list the pools");
    learn(identity_->host());
    std::map<HostId, bool> answer;
    std::vector<api::PoolView> others;
    for (const PoolRecord& record : *records) {
        if (record.host == identity_->host()) continue;
        if (!answer.contains(record.host)) answer[record.host] = answers_(record.host);
        others.push_back(view_of_other(record, answer[record.host]));
    }
    std::ranges::sort(others, {}, [](const api::PoolView& view) {
        return std::tuple(view.host_name, view.create_time_ms, view.id);
    });
    auto views = own_pools();
    views.insert(views.end(), others.begin(), others.end());
    return views;
}

ApiResult<api::PoolView> Pools::pool(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_pool(store_, name));
    learn(identity_->host());
    const auto entry = find(record.id);
    if (entry) return view_of(entry);
    if (record.host == identity_->host())
        return refuse("IncorrectState", fmt::format("pool {} is being added or removed", name));
    return view_of_other(record, answers_(record.host));
}

}  // namespace ublkd::daemon
