#include "ublkd/daemon/pools.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/system.h"
#include "ublkd/front/ublk/process_guard.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::PoolRecord;
using metadata::PoolState;
using metadata::Transaction;

namespace {

/// `path` without links, dots and a slash at the end; what does not exist yet stays as it is
/// written.
std::string canonical(const std::string& path) {
    std::error_code error;
    auto made = std::filesystem::weakly_canonical(path, error);
    std::string text = (error ? std::filesystem::path(path).lexically_normal() : made).string();
    while (text.size() > 1 && text.ends_with('/')) text.pop_back();
    return text;
}

/// The nearest folder of `path` that exists.
std::string existing_part(std::filesystem::path path) {
    std::error_code error;
    while (path.has_relative_path() && !std::filesystem::exists(path, error))
        path = path.parent_path();
    return path.string();
}

/// Leaves room for the names of a replica's files.
constexpr std::size_t kMaxPathBytes = 3072;

std::string why_not_created(const Error& error, const std::string& path) {
    switch (error.code) {
        case Errc::kUnsupported:
            return fmt::format(
                "{} is on a file system without O_DIRECT; take another, or --buffered for trying "
                "out ({})",
                path, to_string(error));
        case Errc::kBusy:
            return fmt::format(
                "{} is not empty, or in use by another daemon: give a new or empty folder ({})",
                path, to_string(error));
        case Errc::kExists:
            return fmt::format(
                "{} holds a pool already, of another installation or of a former one: remove it or "
                "give another folder",
                path);
        case Errc::kNotFound:
            return fmt::format("cannot make {}: its parent folder does not exist", path);
        default:
            return fmt::format("cannot make a pool in {}: {}", path, to_string(error));
    }
}

std::string code_not_created(const Error& error) {
    switch (error.code) {
        case Errc::kUnsupported:
            return "UnsupportedOperation";
        case Errc::kBusy:
            return "PoolInUse";
        case Errc::kExists:
            return "AlreadyExists";
        case Errc::kNotFound:
            return "InvalidParameterValue";
        default:
            return std::string(api::code_of(error.code));
    }
}

}  // namespace

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

Result<void> Pools::set_state(PoolRecord& record, PoolState state) {
    TRY_ASSIGN(record, store_->write_for<PoolRecord>([&](Transaction& tx) -> Result<PoolRecord> {
        TRY_ASSIGN(auto stored, tx.get<PoolRecord>(record.id));
        if (!stored) return fail(Errc::kNotFound, "the pool's record");
        stored->state = state;
        TRY(tx.put(*stored));
        return *stored;
    }));
    return {};
}

void Pools::open_entry(Entry& entry) {
    auto opened = store::Pool::open(entry.record.path);
    if (opened && (*opened)->id() != entry.record.id) {
        entry.trouble = fmt::format("{} holds another pool, {}", entry.record.path,
                                    (*opened)->id().to_string());
        return;
    }
    if (!opened) {
        entry.trouble = to_string(opened.error());
        return;
    }
    entry.pool = std::move(*opened);
    entry.trouble.clear();
}

Result<void> Pools::finish_adding(PoolRecord record) {
    auto opened = store::Pool::open(record.path);
    if (opened && (*opened)->id() == record.id) {
        TRY(set_state(record, PoolState::kAvailable));
        auto entry = std::make_shared<Entry>();
        entry->record = record;
        entry->pool = std::move(*opened);
        const std::lock_guard lock(mutex_);
        entries_[record.id] = entry;
        return {};
    }
    return store_->write([&](Transaction& tx) { return tx.erase(record); });
}

Result<void> Pools::finish_removing(const PoolRecord& record) {
    auto opened = store::Pool::open(record.path);
    if (opened && (*opened)->id() == record.id) {
        const auto destroyed = (*opened)->destroy();
        if (!destroyed)
            log::warn("the folder of the removed pool {} stays: {}", record.path,
                      to_string(destroyed.error()));
    }
    return store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto replicas,
                   tx.list<metadata::ReplicaRecord>(metadata::where("pool", record.id)));
        for (const auto& replica : replicas) {
            TRY(tx.erase(replica));
        }
        TRY_ASSIGN(const auto stored, tx.get<PoolRecord>(record.id));
        if (!stored) return {};
        return tx.erase(*stored);
    });
}

Result<void> Pools::open_all(HostId host) {
    TRY_ASSIGN(const auto records, store_->list<PoolRecord>(metadata::where("host", host)));
    for (const PoolRecord& record : records) {
        if (record.state == PoolState::kAdding) {
            TRY(finish_adding(record));
        } else if (record.state == PoolState::kRemoving) {
            TRY(finish_removing(record));
        } else {
            auto entry = std::make_shared<Entry>();
            entry->record = record;
            entry->failed = record.state == PoolState::kFailed;
            open_entry(*entry);
            if (!entry->pool)
                log::warn("pool {} in {} is missing: {}", record.id.to_string(), record.path,
                          entry->trouble);
            const std::lock_guard lock(mutex_);
            entries_[record.id] = entry;
        }
    }
    return {};
}

void Pools::finish_removals() {
    const auto left = store_->list<PoolRecord>(metadata::where("state", PoolState::kRemoving));
    for (const PoolRecord& record : left ? *left : std::vector<PoolRecord>()) {
        {
            const std::lock_guard lock(mutex_);
            if (removing_.contains(record.id)) continue;
        }
        if (const auto done = finish_removing(record); !done)
            log::warn("pool {}: {}", record.path, to_string(done.error()));
    }
}

bool Pools::probe_failed(Entry& entry) {
    const auto now = Clock::now();
    if (now < entry.next_probe) return false;
    const std::string file = entry.record.path + "/probe";
    const auto written = write_file_durably(file, std::string(4096, 'p'), 0600);
    const auto removed = written ? remove_file_durably(file) : written;
    if (!removed) {
        entry.backoff = std::min<Clock::duration>(entry.backoff * 2, std::chrono::minutes(10));
        entry.next_probe = now + entry.backoff;
        return false;
    }
    if (!set_state(entry.record, PoolState::kAvailable)) return false;
    entry.failed = false;
    entry.trouble.clear();
    return true;
}

bool Pools::probe() {
    bool came_back = false;
    for (const EntryRef& entry : all()) {
        const std::lock_guard lock(entry->mutex);
        const bool was_missing = !entry->pool;
        if (was_missing) open_entry(*entry);
        const bool back =
            (was_missing && entry->pool) || (entry->failed && entry->pool && probe_failed(*entry));
        if (!back) continue;
        came_back = true;
        events_->add("pool.recovered", entry->record.id.to_string(),
                     fmt::format("pool {} is back", entry->record.path));
    }
    return came_back;
}

void Pools::mark_failed(PoolId pool, const Error& cause) {
    const auto entry = find(pool);
    if (!entry) return;
    const std::lock_guard lock(entry->mutex);
    if (!entry->failed) entry->backoff = std::chrono::seconds(30);
    entry->failed = true;
    entry->next_probe = Clock::now() + entry->backoff;
    entry->trouble = to_string(cause);
    if (const auto stored = set_state(entry->record, PoolState::kFailed); !stored) {
        log::warn("pool {}: {}", pool.to_string(), to_string(stored.error()));
    }
    events_->add("pool.failed", pool.to_string(),
                 fmt::format("pool {}: {}", entry->record.path, entry->trouble));
}

std::vector<UsablePool> Pools::usable() {
    std::vector<UsablePool> found;
    for (const EntryRef& entry : all()) {
        const std::lock_guard lock(entry->mutex);
        if (!entry->pool || entry->failed || entry->record.state != PoolState::kAvailable) continue;
        const auto space = entry->pool->space();
        if (!space) continue;
        found.push_back({entry->record.id, entry->record.domain, space->available_bytes()});
    }
    std::ranges::sort(found, [](const UsablePool& a, const UsablePool& b) {
        return std::pair(b.available_bytes, a.id) < std::pair(a.available_bytes, b.id);
    });
    return found;
}

std::optional<volume::ReplicaPlace> Pools::place(PoolId pool, ReplicaId replica) {
    const auto entry = find(pool);
    if (!entry) return std::nullopt;
    const std::lock_guard lock(entry->mutex);
    volume::ReplicaPlace place;
    place.member = {replica, entry->record.host, pool};
    place.folder = fmt::format("{}/replicas/{}", entry->record.path, replica.to_string());
    place.direct = !entry->record.buffered;
    if (entry->pool) place.budget = entry->pool->budget();
    return place;
}

std::string Pools::domain_of_pool(PoolId pool) {
    const auto entry = find(pool);
    return entry ? entry->record.domain : std::string();
}

std::string Pools::trouble_of(PoolId pool) {
    const auto entry = find(pool);
    if (!entry) return "its pool is not known";
    const std::lock_guard lock(entry->mutex);
    if (entry->pool && !entry->failed) return "";
    return fmt::format("its pool {} is {}: {}", entry->record.path,
                       entry->pool ? "failed" : "missing", entry->trouble);
}

Result<void> Pools::remove_replica(PoolId pool, ReplicaId replica) {
    const auto entry = find(pool);
    if (!entry) return {};
    const std::lock_guard lock(entry->mutex);
    if (!entry->pool) return fail(Errc::kClosed, "the replica's pool is missing");
    return entry->pool->remove_replica(replica);
}

Result<void> Pools::remove_replica_anywhere(ReplicaId replica) {
    bool missing = false;
    for (const EntryRef& entry : all()) {
        const std::lock_guard lock(entry->mutex);
        if (!entry->pool) {
            missing = true;
            continue;
        }
        std::error_code error;
        if (std::filesystem::exists(entry->pool->replica_folder(replica), error))
            return entry->pool->remove_replica(replica);
        if (error) missing = true;
    }
    if (missing) return fail(Errc::kClosed, "a pool that may hold the replica is missing");
    return {};
}

ApiResult<std::string> Pools::check_request(const api::AddPoolRequest& request) {
    if (!is_printable(request.path) || request.path.size() > kMaxPathBytes) {
        return refuse("InvalidParameterValue",
                      fmt::format("a pool's path has at most {} printable bytes; '{}' was given",
                                  kMaxPathBytes, api::shown(request.path)));
    }
    const std::string path = canonical(request.path);
    if (const auto place = front::ublk::check_not_on_ublk(path); !place) {
        return refuse(
            "InvalidParameterValue",
            place.error().code == Errc::kConflict
                ? fmt::format("the host has mounted something at {} that this daemon, which has "
                              "mounts of its own, does not see: start ublkd again",
                              path)
                : fmt::format("{} is on a ublk device: a pool there could wait for itself", path));
    }
    if (path == "/") return refuse("InvalidParameterValue", "a pool is a folder of its own, not /");
    const bool printable = std::ranges::all_of(
        request.domain, [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7f; });
    if (request.domain.size() > store::kMaxDomainBytes || !printable) {
        return refuse(
            "InvalidParameterValue",
            fmt::format(
                "a domain has at most {} printable characters without blanks; '{}' was given",
                store::kMaxDomainBytes, api::shown(request.domain)));
    }
    struct stat status{};
    const bool is_there = stat(path.c_str(), &status) == 0;
    if (is_there && !S_ISDIR(status.st_mode))
        return refuse("InvalidParameterValue", fmt::format("{} is not a folder", path));
    if (!is_there && errno == ENAMETOOLONG) {
        return refuse("InvalidParameterValue",
                      fmt::format("a name in a pool's path has at most 255 bytes; '{}' was given",
                                  api::shown(path)));
    }
    for (const EntryRef& entry : all()) {
        if (entry->record.path == path)
            return refuse("AlreadyExists", fmt::format("{} is the pool {} already", path,
                                                       entry->record.id.to_string()));
        if (path.starts_with(entry->record.path + "/"))
            return refuse("InvalidParameterValue",
                          fmt::format("{} lies in the pool {}: a pool is a folder of its own", path,
                                      entry->record.path));
    }
    const std::string parent = std::filesystem::path(path).parent_path().string();
    if (stat(parent.c_str(), &status) != 0)
        return refuse("InvalidParameterValue",
                      fmt::format("{} does not exist: make it first", parent));
    if (const auto free = store::Pool::check_free(path); !free)
        return refuse(code_not_created(free.error()), why_not_created(free.error(), path));
    return path;
}

ApiResult<api::PlanView> Pools::plan_pool(const api::AddPoolRequest& request) {
    API_TRY_ASSIGN(const auto path, check_request(request));
    std::string domain = request.domain;
    if (domain.empty()) {
        const auto found = domain_of(existing_part(path));
        if (!found) return refuse(found.error(), "cannot tell the disk below " + path);
        domain = *found;
    }
    return api::PlanView{{fmt::format(
        "make a pool in {} in the failure domain '{}'{}", path, domain,
        request.limit_bytes == 0 ? ""
                                 : fmt::format(" of at most {} MiB", request.limit_bytes / kMiB))}};
}

ApiResult<api::PoolView> Pools::add_pool(const api::AddPoolRequest& request) {
    return add_pool_to(identity_->host(), request);
}

ApiResult<api::PoolView> Pools::add_pool_to(HostId host, const api::AddPoolRequest& request) {
    API_TRY_ASSIGN(const auto path, check_request(request));
    PoolRecord record;
    record.id = PoolId::random();
    record.host = host;
    record.path = path;
    record.buffered = request.buffered;
    record.state = PoolState::kAdding;
    record.created_ms = metadata::now_ms();
    if (request.limit_bytes != 0) record.size_bytes = request.limit_bytes;
    record.domain = request.domain;
    if (record.domain.empty()) {
        const auto found = domain_of(existing_part(path));
        if (!found) return refuse(found.error(), "cannot tell the disk below " + path);
        record.domain = *found;
    }
    const auto stored = store_->write([&](Transaction& tx) { return tx.put(record); });
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists", path + " is a pool already");
    if (!stored) return refuse(stored.error(), "cannot store the pool");
    (void)faults::hit("daemon.pool_add.after_intent");

    auto made = store::Pool::create(
        path, {record.id, record.domain, request.limit_bytes, request.buffered});
    if (!made) {
        if (const auto undone = finish_adding(record); !undone)
            log::warn("pool {}: {}", path, to_string(undone.error()));
        return refuse(code_not_created(made.error()), why_not_created(made.error(), path));
    }
    (void)faults::hit("daemon.pool_add.after_folder");
    if (const auto done = set_state(record, PoolState::kAvailable); !done) {
        made->reset();
        if (const auto undone = finish_removing(record); !undone)
            log::warn("pool {}: {}", path, to_string(undone.error()));
        return refuse(done.error(), "cannot store the pool");
    }
    auto entry = std::make_shared<Entry>();
    entry->record = record;
    entry->pool = std::move(*made);
    {
        const std::lock_guard lock(mutex_);
        entries_[record.id] = entry;
    }
    events_->add("pool.added", record.id.to_string(),
                 fmt::format("pool {} in the failure domain '{}'", path, record.domain));
    return view_of(entry);
}

api::PoolView Pools::view_of(const EntryRef& entry) {
    const auto replicas =
        store_->list<metadata::ReplicaRecord>(metadata::where("pool", entry->record.id));
    const std::lock_guard lock(entry->mutex);
    api::PoolView view;
    const PoolRecord& record = entry->record;
    view.id = record.id.to_string();
    view.host_id = record.host.to_string();
    view.path = record.path;
    view.domain = record.domain;
    view.limit_bytes = record.size_bytes.value_or(0);
    view.buffered = record.buffered;
    view.create_time_ms = record.created_ms;
    view.message = entry->trouble;
    view.state = !entry->pool ? "missing" : entry->failed ? "failed" : "ok";
    if (replicas) view.replicas = static_cast<unsigned>(replicas->size());
    if (!entry->pool) return view;
    if (const auto space = entry->pool->space()) {
        view.used_bytes = space->allocated_bytes;
        view.free_bytes = space->available_bytes();
        view.total_bytes = space->cap_bytes != 0 ? space->cap_bytes : space->file_system_bytes;
    }
    return view;
}

ApiResult<std::vector<api::PoolView>> Pools::pools() {
    std::vector<api::PoolView> views;
    for (const EntryRef& entry : all()) views.push_back(view_of(entry));
    std::ranges::sort(views, {}, [](const api::PoolView& view) {
        return std::pair(view.create_time_ms, view.id);
    });
    return views;
}

ApiResult<api::PoolView> Pools::pool(const std::string& name) {
    API_TRY_ASSIGN(const auto record, find_pool(store_, name));
    const auto entry = find(record.id);
    if (!entry)
        return refuse("IncorrectState", fmt::format("pool {} is being added or removed", name));
    return view_of(entry);
}

ApiResult<void> Pools::remove_pool(const std::string& name) {
    API_TRY_ASSIGN(const auto found, find_pool(store_, name));
    const auto entry = find(found.id);
    if (!entry)
        return refuse("IncorrectState", fmt::format("pool {} is being added or removed", name));
    {
        const std::lock_guard lock(mutex_);
        if (!removing_.insert(found.id).second)
            return refuse("IncorrectState", fmt::format("pool {} is being removed", name));
    }
    auto removed = carry_out_removal(found, entry);
    const std::lock_guard lock(mutex_);
    removing_.erase(found.id);
    return removed;
}

ApiResult<void> Pools::carry_out_removal(const PoolRecord& found, const EntryRef& entry) {
    std::string users;
    const auto marked = store_->write([&](Transaction& tx) -> Result<void> {
        users.clear();
        TRY_ASSIGN(const auto replicas,
                   tx.list<metadata::ReplicaRecord>(metadata::where("pool", found.id)));
        for (const auto& replica : replicas) {
            if (replica.state == metadata::ReplicaState::kRemoving) continue;
            users += (users.empty() ? "" : ", ") + replica.volume.to_string();
        }
        if (!users.empty()) return fail(Errc::kBusy, "the pool has replicas");
        TRY_ASSIGN(auto record, tx.get<PoolRecord>(found.id));
        if (!record) return fail(Errc::kNotFound, "the pool's record");
        record->state = PoolState::kRemoving;
        return tx.put(*record);
    });
    if (!users.empty())
        return refuse(
            "PoolInUse",
            fmt::format("pool {} has replicas of {}: delete them, or add another pool first",
                        found.path, users));
    if (!marked) return refuse(marked.error(), "cannot remove the pool");
    {
        const std::lock_guard lock(mutex_);
        entries_.erase(found.id);
    }
    (void)faults::hit("daemon.pool_remove.after_intent");
    {
        const std::lock_guard lock(entry->mutex);
        if (entry->pool) {
            if (const auto replicas = entry->pool->replicas()) {
                for (const auto& replica : *replicas) (void)entry->pool->remove_replica(replica.id);
            }
            if (const auto destroyed = entry->pool->destroy(); !destroyed) {
                log::warn("the folder of the removed pool {} stays: {}", found.path,
                          to_string(destroyed.error()));
            }
            entry->pool.reset();
        }
    }
    (void)faults::hit("daemon.pool_remove.after_folder");
    if (const auto done = finish_removing(found); !done)
        return refuse(
            done.error(),
            fmt::format("pool {} is removed, but this could not be stored; that is tried again",
                        found.path));
    events_->add("pool.removed", found.id.to_string(), fmt::format("pool {}", found.path));
    return {};
}

void Pools::forget_all() {
    for (const EntryRef& entry : all()) {
        const std::lock_guard lock(entry->mutex);
        if (entry->pool) (void)entry->pool->destroy();
        entry->pool.reset();
    }
    const std::lock_guard lock(mutex_);
    entries_.clear();
}

}  // namespace ublkd::daemon
