#include "ublkd/daemon/host_health.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <cerrno>

#include "ublkd/base/units.h"

namespace ublkd::daemon {
namespace {

/// A transaction takes a few pages of the database, and as many of its log.
constexpr std::uint64_t kLeastFreeBytes = 256 * kKiB;

}  // namespace

std::string state_trouble(const Core& core) {
    const std::string& folder = core.configuration->state_dir;
    // After a sync that the disk failed every transaction fails, until the daemon is started again.
    const auto read = core.store->read([](metadata::Transaction&) { return Result<void>(); });
    if (!read) return fmt::format("the metadata in {}: {}", folder, to_string(read.error()));
    struct statvfs space{};
    if (statvfs(folder.c_str(), &space) != 0)
        return fmt::format("{} cannot be read: {}", folder,
                           to_string(error_from_errno(errno, "statvfs")));
    if (space.f_bavail * space.f_frsize < kLeastFreeBytes)
        return fmt::format("{} is full: I/O goes on, changes are refused until it has room",
                           folder);
    return "";
}

}  // namespace ublkd::daemon
