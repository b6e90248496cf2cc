// A file or block device on a reactor: O_DIRECT reads and writes of whole buffers, with the errors
// as Results. Short transfers are continued here, so a caller sees all bytes or an error. Owner:
// one object on one reactor; close() (or the destructor, which closes synchronously) comes after
// the last request has ended.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "ublkd/base/result.h"
#include "ublkd/io/reactor.h"

namespace ublkd::io {

struct OpenOptions {
    bool create = false;  // O_CREAT; with `exclusive` also O_EXCL
    bool exclusive = false;
    bool read_only = false;
    bool direct = true;  // O_DIRECT: buffers and offsets aligned to File::alignment_bytes()
    unsigned mode = 0600;
};

class File {
  public:
    /// Opens synchronously (start-up, control path). Errors: the errno's Errc; kUnsupported where
    /// O_DIRECT is refused.
    static Result<File> open(Reactor& reactor, const std::string& path,
                             const OpenOptions& options = {});
    /// The same for a thread that may block, instead of the reactor's; there, start() comes before
    /// the first request.
    static Result<File> open_elsewhere(Reactor& reactor, const std::string& path,
                                       const OpenOptions& options = {});
    void start();
    File() = default;
    File(File&& other) noexcept;
    File& operator=(File&& other) noexcept;
    ~File();

    /// Fills `into` from `offset_bytes`. kIo with errno; kCorrupt where the file ends before.
    Task<Result<void>> read(std::uint64_t offset_bytes, std::span<std::byte> into);
    /// Writes all of `from`. kIo, kNoSpace.
    Task<Result<void>> write(std::uint64_t offset_bytes, std::span<const std::byte> from);
    /// Durable afterwards. An error means that earlier writes may be lost: never tried again
    /// (replication R14).
    Task<Result<void>> sync();
    /// fallocate(2) with `mode` (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    /// FALLOC_FL_ZERO_RANGE...).
    Task<Result<void>> allocate(int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes);

    bool is_open() const { return ref_.fd >= 0; }
    FdRef ref() const { return ref_; }
    Reactor& reactor() const { return *reactor_; }
    /// What O_DIRECT needs of offsets and buffers: 512 or 4096; 1 for a buffered file. Source:
    /// statx(2) STATX_DIOALIGN.
    std::uint32_t alignment_bytes() const { return alignment_bytes_; }
    Result<std::uint64_t> size_bytes() const;  // of a block device too
    void close_now() noexcept;

  private:
    Reactor* reactor_ = nullptr;
    FdRef ref_;
    std::uint32_t alignment_bytes_ = 1;
};

}  // namespace ublkd::io
