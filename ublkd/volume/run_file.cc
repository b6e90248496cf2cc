#include "ublkd/volume/run_file.h"

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

std::string ids_prefix(VolumeId volume) { return "ids-" + volume.to_string() + "-"; }
std::string losses_prefix(VolumeId volume) { return "losses-" + volume.to_string() + "-"; }

/// Takes the room of all of it, also of a file that has it already: then this changes nothing.
Result<void> make_room(int fd, std::size_t bytes) {
    struct stat found{};
    const bool known = fstat(fd, &found) == 0 && static_cast<std::size_t>(found.st_size) == bytes;
    if (!known && ftruncate(fd, 0) != 0) return fail_errno(errno, "make a file of the run folder");
    if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0)
        return fail_errno(error, "make room for a file of the run folder");
    return {};
}

Result<void*> map_file(const std::string& path, std::size_t bytes) {
    const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "open a file of the run folder");
    TRY(make_room(file.get(), bytes));
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (memory == MAP_FAILED) return fail_errno(errno, "map a file of the run folder");
    return memory;
}

}  // namespace

Result<RunFile> RunFile::open(const std::string& run_folder, const std::string& name,
                              std::size_t bytes) {
    RunFile file;
    file.bytes_ = bytes;
    if (run_folder.empty()) {
        void* const memory =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return fail_errno(errno, "memory for what a volume keeps");
        file.memory_ = memory;
    } else {
        file.path_ = run_folder + "/" + name;
        TRY_ASSIGN(file.memory_, map_file(file.path_, bytes));
    }
    return file;
}

Result<RunFile> RunFile::ids_of(const std::string& run_folder, VolumeId volume, ReplicaId replica) {
    return open(run_folder, ids_prefix(volume) + replica.to_string(), sizeof(KeptIds));
}

Result<RunFile> RunFile::losses_of(const std::string& run_folder, VolumeId volume,
                                   AttachmentId attachment) {
    return open(run_folder, losses_prefix(volume) + attachment.to_string(), sizeof(KeptLosses));
}

void RunFile::remove_all(const std::string& run_folder, VolumeId volume) {
    const std::string ids = ids_prefix(volume);
    const std::string losses = losses_prefix(volume);
    std::error_code ignored;  // what stays goes with the boot
    for (const auto& entry : std::filesystem::directory_iterator(run_folder, ignored)) {
        const std::string name = entry.path().filename().string();
        if (name.starts_with(ids) || name.starts_with(losses))
            std::filesystem::remove(entry.path(), ignored);
    }
}

RunFile::RunFile(RunFile&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      bytes_(other.bytes_),
      path_(std::move(other.path_)) {}

RunFile& RunFile::operator=(RunFile&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    std::swap(path_, other.path_);
    return *this;
}

void RunFile::remove() const {
    if (!path_.empty()) (void)unlink(path_.c_str());
}

RunFile::~RunFile() {
    if (memory_ != nullptr) munmap(memory_, bytes_);
}

}  // namespace ublkd::volume
