#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "metadata/place.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/names.h"
#include "ublkd/daemon/pools.h"
#include "ublkd/daemon/system.h"
#include "ublkd/front/ublk/process_guard.h"

namespace ublkd::daemon {

using api::ApiResult;
using api::refuse;
using metadata::PoolRecord;
using metadata::PoolState;
using metadata::Transaction;

namespace {

// How long one waits for a disk; what has not ended then is finished by finish_changes().
constexpr auto kSiteLimit = std::chrono::seconds(10);
constexpr auto kMakeLimit = std::chrono::seconds(20);

/// A link at which `path` ends for who looks, since what it names does not exist.
std::filesystem::path first_dangling(const std::filesystem::path& path) {
    std::error_code error;
    std::filesystem::path there;
    for (const auto& part : path) {
        there /= part;
        if (std::filesystem::exists(there, error)) continue;
        return std::filesystem::is_symlink(there, error) ? there : std::filesystem::path();
    }
    return {};
}

/// `path` without links, dots and a slash at the end; what does not exist yet stays as it is
/// written. Also behind a link into a file system that is not mounted now.
std::string canonical(const std::string& path) {
    constexpr int kLinksMax = 40;  // as the kernel has it
    std::error_code error;
    auto made = std::filesystem::weakly_canonical(path, error);
    for (int i = 0; i < kLinksMax && !error; ++i) {
        const auto link = first_dangling(made);
        if (link.empty()) break;
        const auto target = std::filesystem::read_symlink(link, error);
        const auto behind = made.lexically_relative(link);
        made = std::filesystem::weakly_canonical(link.parent_path() / target / behind, error);
    }
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
                "{} holds a pool that this daemon does not know, of another installation or of a "
                "former one: give another folder, or, if nothing in it is needed, remove it first",
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

/// A pool that is there already.
struct Known {
    std::string path;
    std::string id;
};

/// The whole path for a new pool. Asks the disk below it.
ApiResult<std::string> check_path(const std::string& given, const std::vector<Known>& pools) {
    const std::string path = canonical(given);
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
    struct stat status{};
    const bool is_there = stat(path.c_str(), &status) == 0;
    if (is_there && !S_ISDIR(status.st_mode))
        return refuse("InvalidParameterValue", fmt::format("{} is not a folder", path));
    if (!is_there && errno == ENAMETOOLONG) {
        return refuse("InvalidParameterValue",
                      fmt::format("a name in a pool's path has at most 255 bytes; '{}' was given",
                                  api::shown(path)));
    }
    for (const Known& known : pools) {
        if (known.path == path)
            return refuse("AlreadyExists",
                          fmt::format("{} is the pool {} already", path, known.id));
        if (path.starts_with(known.path + "/"))
            return refuse("InvalidParameterValue",
                          fmt::format("{} lies in the pool {}: a pool is a folder of its own", path,
                                      known.path));
        if (known.path.starts_with(path + "/"))
            return refuse(
                "InvalidParameterValue",
                fmt::format("the pool {} lies in {}: give another folder, for nothing else",
                            known.path, path));
    }
    const std::string parent = std::filesystem::path(path).parent_path().string();
    if (stat(parent.c_str(), &status) != 0)
        return refuse("InvalidParameterValue",
                      fmt::format("{} does not exist: make it first", parent));
    if (const auto free = store::Pool::check_free(path); !free)
        return refuse(code_not_created(free.error()), why_not_created(free.error(), path));
    return path;
}

}  // namespace

/// A pool that a request adds or removes: finish_changes() leaves it alone meanwhile.
class Pools::Change {
  public:
    Change(Pools* pools, PoolId pool) : pools_(pools), pool_(pool) {
        const std::lock_guard lock(pools_->mutex_);
        mine_ = pools_->requested_.insert(pool_).second;
    }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;
    ~Change() {
        if (!mine_) return;
        const std::lock_guard lock(pools_->mutex_);
        pools_->requested_.erase(pool_);
    }
    /// False where another request is about it.
    bool is_mine() const { return mine_; }

  private:
    Pools* pools_;
    PoolId pool_;
    bool mine_ = false;
};

Pools::EntryRef Pools::changing(const PoolRecord& record) {
    const std::lock_guard lock(mutex_);
    EntryRef& found = changing_[record.id];
    if (!found) found = std::make_shared<Entry>(record);
    return found;
}

void Pools::put_in_service(const EntryRef& entry, std::shared_ptr<store::Pool> pool) {
    {
        const std::lock_guard state(entry->mutex);
        entry->pool = std::move(pool);
    }
    const std::lock_guard lock(mutex_);
    changing_.erase(entry->record.id);
    entries_[entry->record.id] = entry;
}

Result<void> Pools::finish_adding(const PoolRecord& record, std::chrono::milliseconds limit) {
    const EntryRef entry = changing(record);
    auto opened = entry->work.ask(limit, [path = record.path] { return open_pool(path); });
    if (!opened && opened.error().code == Errc::kTimedOut) return fail(opened.error());
    const bool is_it = opened && (*opened)->id() == record.id;
    if (is_it) {
        TRY(set_state(record.id, PoolState::kAvailable));
        put_in_service(entry, std::move(*opened));
        return {};
    }
    TRY(store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto stored, tx.get<PoolRecord>(record.id));
        if (!stored) return {};
        return tx.erase(*stored);
    }));
    const std::lock_guard lock(mutex_);
    changing_.erase(record.id);
    return {};
}

Result<void> Pools::finish_removing(const PoolRecord& record, std::chrono::milliseconds limit) {
    const EntryRef entry = changing(record);
    TRY(entry->work.ask(limit, [path = record.path, id = record.id]() -> Result<void> {
        const auto opened = store::Pool::open(path);
        if (!opened || (*opened)->id() != id) return {};
        const auto destroyed = (*opened)->destroy();
        if (!destroyed)
            log::warn("the folder of the removed pool {} stays: {}", path,
                      to_string(destroyed.error()));
        return {};
    }));
    TRY(store_->write([&](Transaction& tx) -> Result<void> {
        TRY_ASSIGN(const auto replicas,
                   tx.list<metadata::ReplicaRecord>(metadata::where("pool", record.id)));
        for (const auto& replica : replicas) {
            TRY(tx.erase(replica));
        }
        TRY_ASSIGN(const auto stored, tx.get<PoolRecord>(record.id));
        if (!stored) return {};
        return tx.erase(*stored);
    }));
    const std::lock_guard lock(mutex_);
    changing_.erase(record.id);
    return {};
}

void Pools::finish_changes() { finish_changes_within(kMakeLimit); }

/// `limit`: of all together. What has been begun goes on at its disk after that.
void Pools::finish_changes_within(std::chrono::milliseconds limit) {
    using std::chrono::duration_cast;
    using std::chrono::milliseconds;
    const auto deadline = Clock::now() + limit;
    const auto records = store_->list<PoolRecord>();
    for (const PoolRecord& record : records ? *records : std::vector<PoolRecord>()) {
        const bool adding = record.state == PoolState::kAdding;
        if (!adding && record.state != PoolState::kRemoving) continue;
        const Change change(this, record.id);
        if (!change.is_mine()) continue;
        const auto left = duration_cast<milliseconds>(deadline - Clock::now());
        if (left <= milliseconds::zero()) return;
        const auto done = adding ? finish_adding(record, left) : finish_removing(record, left);
        if (!done) log::warn("pool {}: {}", record.path, to_string(done.error()));
    }
}

namespace {

ApiResult<void> check_request(const api::AddPoolRequest& request) {
    if (!is_printable(request.path) || request.path.size() > kMaxPathBytes) {
        return refuse("InvalidParameterValue",
                      fmt::format("a pool's path has at most {} printable bytes; '{}' was given",
                                  kMaxPathBytes, api::shown(request.path)));
    }
    const bool printable = std::ranges::all_of(
        request.domain, [](char c) { return static_cast<unsigned char>(c) > 0x20 && c != 0x7f; });
    if (request.domain.size() > store::kMaxDomainBytes || !printable) {
        return refuse(
            "InvalidParameterValue",
            fmt::format(
                "a domain has at most {} printable characters without blanks; '{}' was given",
                store::kMaxDomainBytes, api::shown(request.domain)));
    }
    return {};
}

}  // namespace

ApiResult<Pools::Site> Pools::look_at_site(const api::AddPoolRequest& request) {
    std::vector<Known> known;
    for (const EntryRef& entry : all())
        known.push_back({entry->record.path, entry->record.id.to_string()});
    DiskThread disk("pool-site");  // which one is below the path is not known yet
    auto answer =
        disk.call(kSiteLimit,
                  [given = request.path, domain = request.domain,
                   pools = std::move(known)]() -> ApiResult<Site> {
                      API_TRY_ASSIGN(auto path, check_path(given, pools));
                      if (!domain.empty()) return Site{path, domain};
                      auto found = domain_of(existing_part(path));
                      if (!found)
                          return refuse(found.error(), "cannot tell the disk below " + path);
                      return Site{path, *found};
                  });
    if (!answer)
        return refuse("RequestTimeout",
                      fmt::format("the disk of {} does not answer", api::shown(request.path)));
    return std::move(*answer);
}

/// The pool at `path`, as it is written, where it is missing or failed. Asks no disk.
Pools::EntryRef Pools::in_trouble_at(const std::string& path) {
    std::string wanted = std::filesystem::path(path).lexically_normal().string();
    while (wanted.size() > 1 && wanted.ends_with('/')) wanted.pop_back();
    for (const EntryRef& entry : all()) {
        const std::lock_guard lock(entry->mutex);
        if (entry->record.path == wanted && (!entry->pool || entry->failed)) return entry;
    }
    return nullptr;
}

/// The same for `path` by whatever links. That asks disks; one that does not answer has no pool.
Pools::EntryRef Pools::in_trouble_behind(const std::string& path) {
    if (auto entry = in_trouble_at(path)) return entry;
    DiskThread disk("pool-site");
    const auto resolved = disk.call(kSiteLimit, [path] { return canonical(path); });
    return resolved ? in_trouble_at(*resolved) : nullptr;
}

/// What a pool was made with stays.
ApiResult<void> Pools::check_same(const EntryRef& entry, const api::AddPoolRequest& request) {
    const PoolRecord& known = entry->record;
    const bool same =
        (request.domain.empty() || request.domain == known.domain) &&
        (request.limit_bytes == 0 || request.limit_bytes == known.size_bytes.value_or(0)) &&
        (!request.buffered || known.buffered);
    if (same) return {};
    return refuse(
        "InvalidParameterValue",
        fmt::format("{} is the pool {} already, in the failure domain '{}': to put it back "
                    "give the folder alone; for another one run 'ebs-cli pool remove {}' "
                    "first",
                    known.path, known.id.to_string(), known.domain, known.path));
}

ApiResult<api::PoolView> Pools::put_back(const EntryRef& entry) {
    {
        const std::lock_guard lock(entry->mutex);
        entry->next_probe = {};
    }
    const bool came_back = comes_back(entry);
    const auto view = view_of(entry);
    if (view.state != "ok")
        return refuse(
            "AlreadyExists",
            fmt::format("{} is the pool {} already, and it is {}: {}. Where its disk is gone for "
                        "good: 'ebs-cli pool remove {}', then add a new one",
                        view.path, view.id, view.state, view.message, view.path));
    if (came_back) {
        tell_back(entry);
        put_back_ = true;
        came_back_();
    }
    return view;
}

ApiResult<api::PlanView> Pools::plan_pool(const api::AddPoolRequest& request) {
    API_TRY(check_request(request));
    if (const auto entry = in_trouble_behind(request.path)) {
        API_TRY(check_same(entry, request));
        return api::PlanView{{fmt::format("put the pool {} in {} back",
                                          entry->record.id.to_string(), entry->record.path)}};
    }
    API_TRY_ASSIGN(const auto site, look_at_site(request));
    return api::PlanView{{fmt::format(
        "make a pool in {} in the failure domain '{}'{}", site.path, site.domain,
        request.limit_bytes == 0 ? ""
                                 : fmt::format(" of at most {} MiB", request.limit_bytes / kMiB))}};
}

ApiResult<api::PoolView> Pools::add_pool(const api::AddPoolRequest& request) {
    return add_pool_to(identity_->host(), request);
}

ApiResult<api::PoolView> Pools::add_pool_to(HostId host, const api::AddPoolRequest& request) {
    API_TRY(check_request(request));
    if (const auto entry = in_trouble_behind(request.path)) {
        API_TRY(check_same(entry, request));
        return put_back(entry);
    }
    API_TRY_ASSIGN(const auto site, look_at_site(request));
    PoolRecord record;
    record.id = PoolId::random();
    record.host = host;
    record.path = site.path;
    record.domain = site.domain;
    record.buffered = request.buffered;
    record.state = PoolState::kAdding;
    record.created_ms = metadata::now_ms();
    if (request.limit_bytes != 0) record.size_bytes = request.limit_bytes;
    const std::string& path = record.path;
    const Change change(this, record.id);
    const auto stored = store_->write([&](Transaction& tx) {
        record.revision = 0;
        return tx.put(record);
    });
    if (!stored && stored.error().code == Errc::kExists)
        return refuse("AlreadyExists", path + " is a pool already");
    if (!stored) return refuse(stored.error(), "cannot store the pool");
    (void)faults::hit("daemon.pool_add.after_intent");

    const EntryRef entry = changing(record);
    const store::PoolConfig config{record.id, record.domain, request.limit_bytes, request.buffered};
    auto made =
        entry->work.ask(kMakeLimit, [path, config]() -> Result<std::shared_ptr<store::Pool>> {
            if (const int error = faults::hit("daemon.pool.create"))
                return fail_errno(error, "make a pool");
            auto created = store::Pool::create(path, config);
            if (!created) return fail(created.error());
            return std::shared_ptr<store::Pool>(std::move(*created));
        });
    if (!made && made.error().code == Errc::kTimedOut) {
        // Whatever becomes of it when the disk answers: it goes again.
        if (const auto undone = set_state(record.id, PoolState::kRemoving); !undone)
            log::warn("pool {}: {}", path, to_string(undone.error()));
        return refuse("RequestTimeout",
                      fmt::format("the disk of {} does not answer: the pool is not added", path));
    }
    if (!made) {
        if (const auto undone = finish_adding(record, kMakeLimit); !undone)
            log::warn("pool {}: {}", path, to_string(undone.error()));
        return refuse(code_not_created(made.error()), why_not_created(made.error(), path));
    }
    (void)faults::hit("daemon.pool_add.after_folder");
    if (const auto done = set_state(record.id, PoolState::kAvailable); !done) {
        made->reset();
        if (const auto undone = finish_removing(record, kMakeLimit); !undone)
            log::warn("pool {}: {}", path, to_string(undone.error()));
        return refuse(done.error(), "cannot store the pool");
    }
    put_in_service(entry, std::move(*made));
    events_->add("pool.added", record.id.to_string(),
                 fmt::format("pool {} in the failure domain '{}'", path, record.domain));
    return view_of(entry);
}

namespace {

std::unexpected<api::ApiError> is_changing(const std::string& name) {
    return refuse("IncorrectState", fmt::format("pool {} is being added or removed", name));
}

std::unexpected<api::ApiError> has_users(const PoolRecord& pool, const std::string& users) {
    return refuse(
        "PoolInUse",
        fmt::format("pool {} has replicas of {}: 'ebs-cli pool drain' moves them to other pools",
                    pool.path, users));
}

/// What becomes of the volume of a lost replica that is given up.
std::string left_of(Transaction& tx, VolumeId volume) {
    const auto record = tx.get<metadata::VolumeRecord>(volume);
    const auto membership = tx.get<metadata::MembershipRecord>(volume);
    if (!record || !*record || !membership || !*membership || !(*membership)->membership) return "";
    return fmt::format(": it keeps {} of {} replicas, until another pool takes one",
                       (*membership)->membership->members.size(), (*record)->replica_count);
}

}  // namespace

/// The pool's replicas that go with it, since they are lost: they would have returned; `users`:
/// whose others lie there.
Result<void> Pools::find_given_up(Transaction& tx, PoolId pool,
                                  std::vector<metadata::ReplicaRecord>& given_up,
                                  std::string& users) {
    users.clear();
    given_up.clear();
    TRY_ASSIGN(const auto replicas,
               tx.list<metadata::ReplicaRecord>(metadata::where("pool", pool)));
    for (const auto& replica : replicas) {
        TRY_ASSIGN(const auto record, tx.get<metadata::MembershipRecord>(replica.volume));
        const bool frozen = record && record->frozen;  // it may be a member in truth (R16)
        if (replica.state == metadata::ReplicaState::kRemoving && !frozen) continue;
        if (replica.state == metadata::ReplicaState::kLost && !frozen) {
            given_up.push_back(replica);
            continue;
        }
        users += (users.empty() ? "" : ", ") + replica.volume.to_string();
    }
    if (!users.empty()) return fail(Errc::kBusy, "the pool has replicas");
    return {};
}

ApiResult<api::PlanView> Pools::plan_pool_removal(const std::string& name) {
    API_TRY_ASSIGN(const auto found, find_pool(store_, name));
    if (!find(found.id)) return is_changing(name);
    std::string users;
    api::PlanView plan;
    const auto looked = store_->read([&](Transaction& tx) -> Result<void> {
        std::vector<metadata::ReplicaRecord> given_up;
        TRY(find_given_up(tx, found.id, given_up, users));
        plan.steps = {fmt::format("remove {} in {}", found.id.to_string(), found.path)};
        for (const auto& replica : given_up)
            plan.steps.push_back(fmt::format("give up {}, a lost replica of {}{}",
                                             replica.id.to_string(), replica.volume.to_string(),
                                             left_of(tx, replica.volume)));
        return {};
    });
    if (!users.empty()) return has_users(found, users);
    if (!looked) return refuse(looked.error(), "cannot look up the pool's replicas");
    return plan;
}

ApiResult<void> Pools::remove_pool(const std::string& name) {
    API_TRY_ASSIGN(const auto found, find_pool(store_, name));
    const Change change(this, found.id);
    if (!change.is_mine()) return is_changing(name);
    const auto entry = find(found.id);
    if (!entry) return is_changing(name);
    return carry_out_removal(entry);
}

ApiResult<void> Pools::carry_out_removal(const EntryRef& entry) {
    const PoolRecord& found = entry->record;
    const std::lock_guard turn(entry->turn);
    std::string users;
    std::vector<metadata::ReplicaRecord> given_up;
    const auto marked = store_->write([&](Transaction& tx) -> Result<void> {
        TRY(find_given_up(tx, found.id, given_up, users));
        TRY_ASSIGN(auto record, tx.get<PoolRecord>(found.id));
        if (!record) return fail(Errc::kNotFound, "the pool's record");
        for (const auto& replica : given_up) {
            TRY(metadata::give_up(tx, replica));
        }
        record->state = PoolState::kRemoving;
        return tx.put(*record);
    });
    if (!users.empty()) return has_users(found, users);
    if (!marked) return refuse(marked.error(), "cannot remove the pool");
    for (const auto& replica : given_up)
        events_->add("member.given-up", replica.volume.to_string(),
                     fmt::format("{} in {}: its pool is removed", replica.id.to_string(),
                                 found.id.to_string()));
    {
        const std::lock_guard lock(mutex_);
        entries_.erase(found.id);
        changing_[found.id] = entry;
    }
    (void)faults::hit("daemon.pool_remove.after_intent");
    if (auto pool = taken_from(entry)) {
        (void)entry->work.ask(kMakeLimit, [pool = std::move(pool)]() -> Result<void> {
            TRY_ASSIGN(const auto replicas, pool->replicas());
            for (const auto& replica : replicas) (void)pool->remove_replica(replica.id);
            return pool->destroy();
        });
    }
    (void)faults::hit("daemon.pool_remove.after_folder");
    if (const auto done = finish_removing(found, kMakeLimit); !done)
        return refuse(
            done.error(),
            fmt::format("pool {} is removed, but not all of it could be done; that is tried again",
                        found.path));
    events_->add("pool.removed", found.id.to_string(), fmt::format("pool {}", found.path));
    return {};
}

void Pools::forget_all() {
    for (const EntryRef& entry : all()) {
        if (auto pool = taken_from(entry))
            (void)entry->work.ask(kMakeLimit, [pool = std::move(pool)] { return pool->destroy(); });
    }
    const std::lock_guard lock(mutex_);
    entries_.clear();
    changing_.clear();
}

}  // namespace ublkd::daemon
