#include "ublkd/store/pool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <thread>

#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/base/units.h"
#include "ublkd/store/file_system.h"

namespace ublkd::store {
namespace {

// docs/format-replica.md, "pool".
constexpr std::size_t kPoolBytes = kSectorBytes;
constexpr std::array kMagic{std::byte{'U'}, std::byte{'B'}, std::byte{'L'}, std::byte{'K'},
                            std::byte{'D'}, std::byte{'P'}, std::byte{'L'}, std::byte{'\n'}};
constexpr std::uint32_t kPoolVersion = 1;
constexpr std::size_t kPoolVersionAt = 8;
constexpr std::size_t kPoolChecksumAt = 12;
constexpr std::size_t kIdAt = 16;
constexpr std::size_t kCapAt = 24;
constexpr std::size_t kFlagsAt = 32;
constexpr std::size_t kDomainLengthAt = 36;
constexpr std::size_t kDomainAt = 64;
constexpr std::uint32_t kFlagBuffered = 1;
static_assert(kDomainAt + kMaxDomainBytes <= kPoolBytes);

using PoolBytes = std::array<std::byte, kPoolBytes>;

PoolBytes encode(const PoolConfig& config) {
    PoolBytes bytes{};
    std::byte* const at = bytes.data();
    std::memcpy(at, kMagic.data(), kMagic.size());
    store_le<std::uint32_t>(at + kPoolVersionAt, kPoolVersion);
    store_le<std::uint64_t>(at + kIdAt, config.id.value());
    store_le<std::uint64_t>(at + kCapAt, config.size_cap_bytes);
    store_le<std::uint32_t>(at + kFlagsAt, config.buffered ? kFlagBuffered : 0);
    store_le<std::uint16_t>(at + kDomainLengthAt, static_cast<std::uint16_t>(config.domain.size()));
    std::memcpy(at + kDomainAt, config.domain.data(), config.domain.size());
    store_le<std::uint32_t>(at + kPoolChecksumAt, crc32c(bytes));  // its own field is still zero
    return bytes;
}

Result<PoolConfig> decode(std::span<const std::byte> bytes) {
    if (bytes.size() != kPoolBytes || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0)
        return fail(Errc::kCorrupt, "pool file: magic");
    PoolBytes copy;
    std::ranges::copy(bytes, copy.begin());
    store_le<std::uint32_t>(copy.data() + kPoolChecksumAt, 0);
    const std::byte* const at = bytes.data();
    if (load_le<std::uint32_t>(at + kPoolChecksumAt) != crc32c(copy))
        return fail(Errc::kCorrupt, "pool file: checksum");
    if (load_le<std::uint32_t>(at + kPoolVersionAt) != kPoolVersion)
        return fail(Errc::kUnsupported, "pool file: format version");
    const auto flags = load_le<std::uint32_t>(at + kFlagsAt);
    if ((flags & ~kFlagBuffered) != 0) return fail(Errc::kUnsupported, "pool file: unknown flag");
    PoolConfig config;
    config.id = PoolId(load_le<std::uint64_t>(at + kIdAt));
    config.size_cap_bytes = load_le<std::uint64_t>(at + kCapAt);
    config.buffered = (flags & kFlagBuffered) != 0;
    const std::size_t domain_bytes = load_le<std::uint16_t>(at + kDomainLengthAt);
    if (!config.id || domain_bytes > kMaxDomainBytes)
        return fail(Errc::kCorrupt, "pool file: contradicts itself");
    config.domain.assign(reinterpret_cast<const char*>(at + kDomainAt), domain_bytes);
    return config;
}

/// kUnsupported where files in `folder` cannot be opened with O_DIRECT.
Result<void> probe_direct(const std::string& folder) {
    if (const int error = faults::hit("store.probe_direct"))
        return fail(error == EINVAL ? Errc::kUnsupported : Errc::kIo,
                    "the pool's file system has no O_DIRECT", error);
    const std::string path = folder + "/probe" + fs::kMaking;
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_DIRECT, 0600);
    const int error = errno;
    if (fd >= 0) ::close(fd);
    ::unlink(path.c_str());  // some file systems make the file and refuse then
    if (fd >= 0) return {};
    if (error == EINVAL)
        return fail(Errc::kUnsupported, "the pool's file system has no O_DIRECT", error);
    return fail_errno(error, "probe the pool's file system");
}

std::string replicas_folder(const std::string& folder) { return folder + "/replicas"; }
std::string pool_file(const std::string& folder) { return folder + "/pool"; }

Result<void> write_pool_file(const std::string& folder, const PoolConfig& config) {
    const auto bytes = encode(config);
    return write_file_durably(pool_file(folder),
                              {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, 0600);
}

std::string without_slash(std::string folder) {
    while (folder.size() > 1 && folder.back() == '/') folder.pop_back();
    return folder;
}

Result<Fd> lock_pool(const std::string& folder) {
    const std::string path = folder + "/lock";
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "open the pool's lock");
    struct flock whole{};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    // Of the open file, not of the process: a second open in the same daemon is refused as well.
    if (::fcntl(file.get(), F_OFD_SETLK, &whole) == 0) return file;
    if (errno == EAGAIN || errno == EACCES)
        return fail(Errc::kBusy, "the pool is in use by another daemon");
    return fail_errno(errno, "lock the pool");
}

bool ends_with_mark(const std::string& name) {
    return name.ends_with(fs::kMaking) || name.ends_with(fs::kRemoving);
}

}  // namespace

std::uint64_t PoolSpace::available_bytes() const {
    if (cap_bytes == 0) return file_system_free_bytes;
    return std::min(file_system_free_bytes,
                    cap_bytes > allocated_bytes ? cap_bytes - allocated_bytes : 0);
}

Pool::Pool(std::string folder, PoolConfig config, Fd lock)
    : folder_(std::move(folder)),
      config_(std::move(config)),
      lock_(std::move(lock)),
      budget_(std::make_shared<AllocationBudget>(config_.size_cap_bytes)) {
    // Now: a file system that has failed may answer no question about what is open on it.
    struct stat opened{};
    if (::fstat(lock_.get(), &opened) == 0) {
        opened_device_ = opened.st_dev;
        opened_inode_ = opened.st_ino;
    }
}

Result<void> Pool::check_free(const std::string& folder) {
    if (!fs::exists(folder)) return {};
    std::error_code error;
    if (std::filesystem::is_regular_file(pool_file(folder), error))
        return fail(Errc::kExists, "there is a pool already");
    std::vector<std::string> names;
    TRY_ASSIGN(names, fs::list(folder));
    // mkfs leaves lost+found at the root of a file system of its own.
    std::erase(names, "lost+found");
    if (!names.empty()) return fail(Errc::kBusy, "the folder is not empty");
    return {};
}

Result<std::unique_ptr<Pool>> Pool::create(const std::string& given, const PoolConfig& wanted) {
    const std::string folder = without_slash(given);
    if (folder.empty()) return fail(Errc::kInvalidArgument, "a pool needs a folder");
    if (wanted.domain.size() > kMaxDomainBytes)
        return fail(Errc::kInvalidArgument, "name of the failure domain");
    PoolConfig config = wanted;
    if (!config.id) config.id = PoolId::random();
    TRY(check_free(folder));
    const bool made = !fs::exists(folder);
    if (made) {
        TRY(fs::make_folder(folder));
    }
    const auto undo = [&](const Error& error) {
        ::rmdir(replicas_folder(folder).c_str());
        ::unlink((folder + "/lock").c_str());
        if (made) ::rmdir(folder.c_str());
        return fail(error);
    };
    if (!config.buffered) {
        if (const auto direct = probe_direct(folder); !direct) return undo(direct.error());
    }
    auto lock = lock_pool(folder);
    if (!lock) return lock.error().code == Errc::kBusy ? fail(lock.error()) : undo(lock.error());
    std::unique_ptr<Pool> pool(new Pool(folder, config, std::move(*lock)));
    if (const auto folders = fs::make_folder(replicas_folder(folder)); !folders)
        return undo(folders.error());
    // The pool exists from the moment that its file has its name.
    if (const auto written = write_pool_file(folder, config); !written)
        return undo(written.error());
    if (const auto synced = sync_folder(parent_of(folder)); !synced) {
        ::unlink(pool_file(folder).c_str());
        return undo(synced.error());
    }
    return pool;
}

Result<std::unique_ptr<Pool>> Pool::open(const std::string& given, std::uint32_t lock_wait_ms) {
    const std::string folder = without_slash(given);
    if (!fs::exists(pool_file(folder))) return fail(Errc::kNotFound, "no pool in this folder");
    constexpr std::uint32_t kStepMs = 20;
    Result<Fd> lock = lock_pool(folder);
    for (std::uint32_t waited_ms = 0;
         !lock && lock.error().code == Errc::kBusy && waited_ms < lock_wait_ms;
         waited_ms += kStepMs) {
        std::this_thread::sleep_for(std::chrono::milliseconds(kStepMs));
        lock = lock_pool(folder);
    }
    if (!lock) return fail(lock.error());
    std::unique_ptr<Pool> pool(new Pool(folder, PoolConfig{}, std::move(*lock)));
    TRY_ASSIGN(const std::string file, read_file(pool_file(folder), kPoolBytes));
    TRY_ASSIGN(pool->config_, decode(std::as_bytes(std::span(file))));
    pool->budget_->set_cap_bytes(pool->config_.size_cap_bytes);
    if (!pool->config_.buffered) {
        TRY(probe_direct(folder));
    }
    TRY(pool->sweep());
    return pool;
}

/// Deletes what was half made or half removed, and counts what the replicas have allocated.
Result<void> Pool::sweep() {
    const std::string parent = replicas_folder(folder_);
    std::vector<std::string> names;
    TRY_ASSIGN(names, fs::list(parent));
    for (const std::string& name : names) {
        const std::string path = parent + "/" + name;
        if (ends_with_mark(name)) {
            TRY(fs::remove_flat_folder(path));
            continue;
        }
        const auto id = ReplicaId::parse(name);
        struct stat info{};
        if (id && ::stat((path + "/data").c_str(), &info) == 0)
            budget_->set_share(*id, static_cast<std::uint64_t>(info.st_blocks) * 512);
    }
    return {};
}

Result<PoolSpace> Pool::space() const {
    struct statvfs info{};
    if (::statvfs(folder_.c_str(), &info) != 0) return fail_errno(errno, "space of the pool");
    PoolSpace space;
    space.file_system_bytes = info.f_blocks * info.f_frsize;
    space.file_system_free_bytes = info.f_bavail * info.f_frsize;
    space.cap_bytes = budget_->cap_bytes();
    space.allocated_bytes = budget_->used_bytes();
    return space;
}

Result<bool> Pool::is_in_place() const {
    struct stat there{};
    if (::stat((folder_ + "/lock").c_str(), &there) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return false;
        return fail_errno(errno, "look at the pool's lock");
    }
    return opened_device_ == there.st_dev && opened_inode_ == there.st_ino;
}

std::string Pool::replica_folder(ReplicaId id) const {
    return replicas_folder(folder_) + "/" + id.to_string();
}

Result<std::vector<ReplicaEntry>> Pool::replicas() const {
    std::vector<std::string> names;
    TRY_ASSIGN(names, fs::list(replicas_folder(folder_)));
    std::vector<ReplicaEntry> entries;
    for (const std::string& name : names) {
        if (const auto id = ReplicaId::parse(name))
            entries.push_back(ReplicaEntry{*id, replica_folder(*id)});
    }
    return entries;
}

Result<void> Pool::remove_replica(ReplicaId id) {
    const std::string path = replica_folder(id);
    if (!fs::exists(path)) return {};
    TRY_ASSIGN(Fd lock, fs::lock_folder(path));
    const bool renamed = ::rename(path.c_str(), (path + fs::kRemoving).c_str()) == 0;
    lock.close();
    if (!renamed) return fail_errno(errno, "remove replica");
    // Gone for good before anything of it is deleted; what is left after a crash is swept.
    TRY(sync_folder(replicas_folder(folder_)));
    budget_->forget(id);
    return fs::remove_flat_folder(path + fs::kRemoving);
}

Result<void> Pool::destroy() {
    std::vector<ReplicaEntry> left;
    TRY_ASSIGN(left, replicas());
    if (!left.empty()) return fail(Errc::kBusy, "the pool has replicas");
    if (::unlink(pool_file(folder_).c_str()) != 0) return fail_errno(errno, "delete pool file");
    ::rmdir(replicas_folder(folder_).c_str());
    ::unlink((folder_ + "/lock").c_str());
    ::rmdir(folder_.c_str());
    return sync_folder(parent_of(folder_));
}

}  // namespace ublkd::store
