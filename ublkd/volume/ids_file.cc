#include "ublkd/volume/ids_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace ublkd::volume {
namespace {

constexpr std::size_t kBytes = sizeof(replication::AppliedIds::Table);

Result<void*> map_file(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return fail_errno(errno, "open the file of applied ids");
    struct stat found{};
    const bool known = fstat(fd, &found) == 0 && static_cast<std::size_t>(found.st_size) == kBytes;
    if (!known && (ftruncate(fd, 0) != 0 || ftruncate(fd, kBytes) != 0)) {
        const int error = errno;
        ::close(fd);
        return fail_errno(error, "make the file of applied ids");
    }
    void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const int error = errno;
    ::close(fd);
    if (memory == MAP_FAILED) return fail_errno(error, "map the file of applied ids");
    return memory;
}

}  // namespace

Result<IdsFile> IdsFile::open(const std::string& path) {
    void* memory = nullptr;
    if (path.empty()) {
        memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return fail_errno(errno, "memory for applied ids");
    } else {
        TRY_ASSIGN(memory, map_file(path));
    }
    IdsFile file;
    file.table_ = static_cast<replication::AppliedIds::Table*>(memory);
    file.path_ = path;
    return file;
}

IdsFile::IdsFile(IdsFile&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)), path_(std::move(other.path_)) {}

IdsFile& IdsFile::operator=(IdsFile&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(path_, other.path_);
    return *this;
}

void IdsFile::remove() const {
    if (!path_.empty()) (void)unlink(path_.c_str());
}

IdsFile::~IdsFile() {
    if (table_ != nullptr) munmap(table_, kBytes);
}

}  // namespace ublkd::volume
