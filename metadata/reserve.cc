#include "metadata/reserve.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ublkd/base/fd.h"
#include "ublkd/base/units.h"

namespace ublkd::metadata {
namespace {

constexpr off_t kStepBytes = 64 * kKiB;
constexpr off_t kReserveBytes = 64 * kStepBytes;  // what the log may add to the database file

}  // namespace

void keep_reserve(const std::string& path) {
    struct stat info{};
    if (stat(path.c_str(), &info) == 0 && info.st_size >= kReserveBytes) return;
    const Fd file(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return;
    off_t bytes = kReserveBytes;
    while (bytes > 0 && posix_fallocate(file.get(), 0, bytes) != 0) bytes -= kStepBytes;
    // What a try that failed has allocated goes back.
    if (ftruncate(file.get(), bytes) != 0 || bytes == 0) (void)unlink(path.c_str());
}

bool release_reserve(const std::string& path) { return unlink(path.c_str()) == 0; }

}  // namespace ublkd::metadata
