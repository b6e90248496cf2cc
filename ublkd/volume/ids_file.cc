#include "ublkd/volume/ids_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "ublkd/base/fd.h"

namespace ublkd::volume {
namespace {

constexpr std::size_t kBytes = sizeof(replication::AppliedIds::Table);

std::string prefix_of(VolumeId volume) { return "ids-" + volume.to_string() + "-"; }

/// Takes the room of all of it, also of a file that has it already: then this changes nothing.
Result<void> make_room(int fd) {
    struct stat found{};
    const bool known = fstat(fd, &found) == 0 && static_cast<std::size_t>(found.st_size) == kBytes;
    if (!known && ftruncate(fd, 0) != 0) return fail_errno(errno, "make the file of applied ids");
    if (const int error = posix_fallocate(fd, 0, kBytes); error != 0)
        return fail_errno(error, "make room for the file of applied ids");
    return {};
}

Result<void*> map_file(const std::string& path) {
    const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "open the file of applied ids");
    TRY(make_room(file.get()));
    void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) return fail_errno(errno, "map the file of applied ids");
    return memory;
}

}  // namespace

Result<IdsFile> IdsFile::open(const std::string& run_folder, VolumeId volume, ReplicaId replica) {
    void* memory = nullptr;
    IdsFile file;
    if (run_folder.empty()) {
        memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return fail_errno(errno, "memory for applied ids");
    } else {
        file.path_ = run_folder + "/" + prefix_of(volume) + replica.to_string();
        TRY_ASSIGN(memory, map_file(file.path_));
    }
    file.table_ = static_cast<replication::AppliedIds::Table*>(memory);
    return file;
}

void IdsFile::remove_all(const std::string& run_folder, VolumeId volume) {
    const std::string prefix = prefix_of(volume);
    std::error_code ignored;  // what stays goes with the boot
    for (const auto& entry : std::filesystem::directory_iterator(run_folder, ignored)) {
        if (entry.path().filename().string().starts_with(prefix))
            std::filesystem::remove(entry.path(), ignored);
    }
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
