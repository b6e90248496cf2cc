#include "ublkd/store/real_disk.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/store/broken_disk.h"
#include "ublkd/store/file_system.h"

namespace ublkd::store {

Result<void> RealDiskFile::try_lock() {
    if (::flock(file_.ref().fd, LOCK_EX | LOCK_NB) == 0) return {};
    if (errno == EWOULDBLOCK)
        return fail(Errc::kBusy, "the replica is still written to by another process");
    return fail_errno(errno, "lock file");
}

Result<void> RealDiskFile::set_size(std::uint64_t size_bytes) {
    if (::ftruncate(file_.ref().fd, static_cast<off_t>(size_bytes)) != 0)
        return fail_errno(errno, "set size of file");
    return {};
}

Result<Range> RealDiskFile::next_data(std::uint64_t from_bytes) const {
    const off_t begin = ::lseek(file_.ref().fd, static_cast<off_t>(from_bytes), SEEK_DATA);
    if (begin < 0 && errno == ENXIO) {
        std::uint64_t end = 0;
        TRY_ASSIGN(end, size_bytes());
        return Range{end, 0};
    }
    if (begin < 0)
        return fail(errno == EINVAL ? Errc::kUnsupported : Errc::kIo, "find data in file", errno);
    const off_t end = ::lseek(file_.ref().fd, begin, SEEK_HOLE);
    if (end < 0)
        return fail(errno == EINVAL ? Errc::kUnsupported : Errc::kIo, "find hole in file", errno);
    return Range{static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(end - begin)};
}

namespace {

io::Task<Result<void>> broken(int error) {
    co_return fail_errno(error, "a disk that a test fails");
}

}  // namespace

io::Task<Result<void>> RealDiskFile::read(std::uint64_t offset_bytes, std::span<std::byte> into) {
    if (const int error = broken_.error()) return broken(error);
    return file_.read(offset_bytes, into);
}

io::Task<Result<void>> RealDiskFile::write(std::uint64_t offset_bytes,
                                           std::span<const std::byte> from, Durability durability) {
    if (const int error = broken_.error()) return broken(error);
    return durability == Durability::kCached ? file_.write(offset_bytes, from)
                                             : write_durable(offset_bytes, from);
}

io::Task<Result<void>> RealDiskFile::sync() {
    if (const int error = broken_.error()) return broken(error);
    return file_.sync();
}

io::Task<Result<void>> RealDiskFile::write_durable(std::uint64_t offset_bytes,
                                                   std::span<const std::byte> from) {
    const io::FdRef ref = file_.ref();
    while (!from.empty()) {
        io_uring_sqe sqe;
        std::memset(&sqe, 0, sizeof sqe);
        io_uring_prep_write(&sqe, ref.fd, from.data(), static_cast<unsigned>(from.size()),
                            offset_bytes);
        sqe.rw_flags = RWF_DSYNC;
        if (ref.registered >= 0) {
            sqe.fd = ref.registered;
            sqe.flags |= IOSQE_FIXED_FILE;
        }
        const int put = co_await file_.reactor().raw(sqe);
        if (put == -EINTR || put == -EAGAIN) continue;
        if (put < 0) co_return fail_errno(-put, "write durably");
        if (put == 0) co_return fail(Errc::kNoSpace, "write durably");
        from = from.subspan(static_cast<std::size_t>(put));
        offset_bytes += static_cast<std::uint64_t>(put);
    }
    co_return Result<void>{};
}

io::Task<Result<void>> RealDiskFile::zero(ZeroMode mode, Range range) {
    if (const int error = broken_.error()) return broken(error);
    const int flags = FALLOC_FL_KEEP_SIZE |
                      (mode == ZeroMode::kPunch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    return file_.allocate(flags, range.offset_bytes, range.length_bytes);
}

RealDiskFolder::RealDiskFolder(io::Reactor& reactor, std::string path)
    : reactor_(&reactor), path_(std::move(path)) {}

std::string RealDiskFolder::folder() const { return making_ ? path_ + fs::kMaking : path_; }

Result<void> RealDiskFolder::try_lock() {
    TRY_ASSIGN(lock_, fs::lock_folder(folder()));
    return {};
}

Result<std::unique_ptr<DiskFile>> RealDiskFolder::open(const char* name, OpenMode mode) {
    const io::OpenOptions options{
        .create = mode.create, .exclusive = mode.create, .direct = mode.direct};
    const std::string path = folder() + "/" + name;
    const BrokenDisk broken(parent_of(parent_of(path_)));
    if (const int error = broken.error()) return fail_errno(error, "a disk that a test fails");
    io::File file;
    TRY_ASSIGN(file, io::File::open_elsewhere(*reactor_, path, options));
    return std::unique_ptr<DiskFile>(new RealDiskFile(std::move(file), broken));
}

Result<void> RealDiskFolder::begin_making() {
    if (fs::exists(path_)) return fail(Errc::kExists, "make replica");
    TRY(fs::make_folder(path_ + fs::kMaking));
    making_ = true;
    return {};
}

Result<void> RealDiskFolder::publish() {
    CHECK(making_, "publish() follows begin_making()");
    TRY(sync_folder(path_ + fs::kMaking));
    if (const int error = faults::hit("store.publish")) return fail_errno(error, "publish replica");
    if (::rename((path_ + fs::kMaking).c_str(), path_.c_str()) != 0)
        return fail_errno(errno, "publish replica");
    making_ = false;
    return sync_folder(parent_of(path_));
}

void RealDiskFolder::abandon() noexcept {
    // What cannot be deleted now is swept when the pool is opened next.
    if (making_) (void)fs::remove_flat_folder(path_ + fs::kMaking);
    making_ = false;
}

}  // namespace ublkd::store
