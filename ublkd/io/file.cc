#include "ublkd/io/file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace ublkd::io {
namespace {

// Debian 12's glibc has statx but not this mask (Linux 6.1, include/uapi/linux/stat.h).
#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x00002000U
#endif

constexpr auto kBusyPause = std::chrono::milliseconds(1);

/// struct statx of Linux 6.1: the two words after stx_mnt_id are stx_dio_mem_align and
/// stx_dio_offset_align.
std::uint32_t direct_alignment(int fd) {
    struct statx info{};
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) != 0) return 4096;
    if ((info.stx_mask & STATX_DIOALIGN) == 0) return 4096;
    std::uint32_t offset_align = 0;
    constexpr std::size_t kOffsetAlignAt = 0x9c;
    __builtin_memcpy(&offset_align, reinterpret_cast<const char*>(&info) + kOffsetAlignAt,
                     sizeof offset_align);
    if (offset_align == 512 || offset_align == 1024 || offset_align == 2048) return 512;
    return 4096;
}

}  // namespace

Result<File> File::open(Reactor& reactor, const std::string& path, const OpenOptions& options) {
    TRY_ASSIGN(File file, open_elsewhere(reactor, path, options));
    file.start();
    return file;
}

Result<File> File::open_elsewhere(Reactor& reactor, const std::string& path,
                                  const OpenOptions& options) {
    int flags = O_CLOEXEC | (options.read_only ? O_RDONLY : O_RDWR);
    if (options.create) flags |= O_CREAT;
    if (options.exclusive) flags |= O_EXCL;
    if (options.direct) flags |= O_DIRECT;
    const int fd = ::open(path.c_str(), flags, options.mode);
    if (fd < 0) {
        if (errno == EINVAL && options.direct)
            return fail(Errc::kUnsupported, "open with O_DIRECT", EINVAL);
        return fail_errno(errno, "open");
    }
    File file;
    file.reactor_ = &reactor;
    file.ref_.fd = fd;
    file.alignment_bytes_ = options.direct ? direct_alignment(fd) : 1;
    return file;
}

void File::start() { ref_ = reactor_->register_fd(ref_.fd); }

File::File(File&& other) noexcept
    : reactor_(std::exchange(other.reactor_, nullptr)),
      ref_(std::exchange(other.ref_, FdRef{})),
      alignment_bytes_(other.alignment_bytes_) {}

File& File::operator=(File&& other) noexcept {
    if (this != &other) {
        close_now();
        reactor_ = std::exchange(other.reactor_, nullptr);
        ref_ = std::exchange(other.ref_, FdRef{});
        alignment_bytes_ = other.alignment_bytes_;
    }
    return *this;
}

File::~File() { close_now(); }

void File::close_now() noexcept {
    if (ref_.fd < 0) return;
    reactor_->unregister_fd(ref_);
    ::close(ref_.fd);
    ref_ = FdRef{};
}

Task<Result<void>> File::read(std::uint64_t offset_bytes, std::span<std::byte> into) {
    while (!into.empty()) {
        const int got = co_await reactor_->read(ref_, into, offset_bytes);
        if (got == -EINTR) continue;
        if (got == -EAGAIN) {  // the kernel is short of something; the ring goes on meanwhile
            co_await reactor_->sleep_for(kBusyPause);
            continue;
        }
        if (got < 0) co_return fail_errno(-got, "read");
        // O_DIRECT goes on at aligned offsets alone: a transfer that ends elsewhere ended at the
        // end of the file.
        if (got == 0 || static_cast<std::uint32_t>(got) % alignment_bytes_ != 0)
            co_return fail(Errc::kCorrupt, "read past the end of the file");
        into = into.subspan(static_cast<std::size_t>(got));
        offset_bytes += static_cast<std::uint64_t>(got);
    }
    co_return Result<void>{};
}

Task<Result<void>> File::write(std::uint64_t offset_bytes, std::span<const std::byte> from) {
    while (!from.empty()) {
        const int put = co_await reactor_->write(ref_, from, offset_bytes);
        if (put == -EINTR) continue;
        if (put == -EAGAIN) {
            co_await reactor_->sleep_for(kBusyPause);
            continue;
        }
        if (put < 0) co_return fail_errno(-put, "write");
        if (put == 0) co_return fail(Errc::kIo, "write: no byte was taken");
        from = from.subspan(static_cast<std::size_t>(put));
        offset_bytes += static_cast<std::uint64_t>(put);
    }
    co_return Result<void>{};
}

Task<Result<void>> File::sync() {
    const int result = co_await reactor_->fdatasync(ref_);
    if (result < 0) co_return fail_errno(-result, "fdatasync");
    co_return Result<void>{};
}

Task<Result<void>> File::allocate(int mode, std::uint64_t offset_bytes,
                                  std::uint64_t length_bytes) {
    for (;;) {
        const int result = co_await reactor_->fallocate(ref_, mode, offset_bytes, length_bytes);
        if (result == -EINTR) continue;
        if (result < 0) co_return fail_errno(-result, "fallocate");
        co_return Result<void>{};
    }
}

Result<std::uint64_t> File::size_bytes() const {
    struct stat info{};
    if (fstat(ref_.fd, &info) != 0) return fail_errno(errno, "fstat");
    if (S_ISBLK(info.st_mode)) {
        std::uint64_t bytes = 0;
        if (ioctl(ref_.fd, BLKGETSIZE64, &bytes) != 0) return fail_errno(errno, "BLKGETSIZE64");
        return bytes;
    }
    return static_cast<std::uint64_t>(info.st_size);
}

}  // namespace ublkd::io
