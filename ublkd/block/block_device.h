// THE interface of every layer that stores or forwards blocks: a volume, a replica's store, a local
// disk, a snapshot. Front ends know nothing else. Each public call checks state, range, alignment
// and flags once, here, then calls its do_ twin, and checks what that gave; so implementations see
// valid requests alone.
//
// Contract (the kernel's for a disk with a volatile write cache): a completed write is seen by
// every read that starts afterwards; it is durable once a flush that started after its completion
// has ended, or at once with `fua`. Requests may run side by side; overlapping ones give one of the
// possible orders, the same on every replica. A failed write leaves each sector old or new.
// Discarded and zeroed ranges read as zeroes. Unit of atomicity: one sector of 512 bytes.
//
// Thread: the device's reactor. Memory passed in stays valid until the Task has ended. See
// docs/block.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/base/units.h"
#include "ublkd/io/task.h"

namespace ublkd::block {

struct Geometry {
    std::uint64_t size_bytes = 0;                      // multiple of logical_block_bytes
    std::uint32_t logical_block_bytes = kSectorBytes;  // offsets and lengths are multiples of it
    std::uint32_t physical_block_bytes = kPageBytes;   // what is written without read-modify-write
    std::uint32_t max_io_bytes = kMaxIoBytes;          // of one read or write
    std::uint64_t max_range_bytes = kGiB;              // of one discard or write_zeroes
    bool volatile_write_cache = true;                  // flush() has something to do
    bool read_only = false;
};

/// Names a request over retries and restarts (replication R8): the same pair is applied once. {0,
/// 0}: not to be retried.
struct RequestId {
    std::uint64_t client_start = 0;  // drawn when the client (front end instance) started
    std::uint64_t sequence = 0;      // 1, 2, ... in it
    friend constexpr auto operator<=>(const RequestId&, const RequestId&) = default;
};

struct WriteOptions {
    bool fua = false;  // durable before it completes
    RequestId id{};
};

struct ZeroOptions {
    bool fua = false;
    bool keep_allocated = false;  // do not give the space back (NBD NO_HOLE, kernel NOUNMAP)
    bool fast_only =
        false;  // kUnsupported at once where it would cost as much as writing (NBD FAST_ZERO)
    RequestId id{};
};

/// One extent of block_status(): `allocated` false: a hole that reads as zeroes.
struct Extent {
    std::uint64_t length_bytes = 0;
    bool allocated = true;
    bool zero = false;  // known to read as zeroes
};

class BlockDevice {
  public:
    BlockDevice() = default;
    BlockDevice(const BlockDevice&) = delete;
    BlockDevice& operator=(const BlockDevice&) = delete;
    virtual ~BlockDevice() = default;

    virtual const Geometry& geometry() const = 0;

    /// Fills `into` from `offset_bytes`. Errors: kInvalidArgument (range or alignment), kIo,
    /// kCorrupt, kClosed, kTimedOut.
    io::Task<Result<void>> read(std::uint64_t offset_bytes, std::span<std::byte> into);
    /// Writes `data` at `offset_bytes`; 1 logical block to max_io_bytes. Errors: as read, and
    /// kNoSpace, kReadOnly.
    io::Task<Result<void>> write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                 WriteOptions options);
    /// All writes that completed before this call are durable when it has ended.
    io::Task<Result<void>> flush();
    /// Reads as zeroes afterwards; gives space back where it can. Not more than max_range_bytes.
    io::Task<Result<void>> discard(Range range, WriteOptions options);
    /// Reads as zeroes afterwards. kUnsupported only with fast_only.
    io::Task<Result<void>> write_zeroes(Range range, ZeroOptions options);
    /// Extents that cover `range` from its start, in order; at least one, perhaps not all of it,
    /// and never more than it. Not more than `max_extents`.
    io::Task<Result<std::vector<Extent>>> block_status(Range range, std::size_t max_extents);

  protected:
    virtual io::Task<Result<void>> do_read(std::uint64_t offset_bytes,
                                           std::span<std::byte> into) = 0;
    virtual io::Task<Result<void>> do_write(std::uint64_t offset_bytes,
                                            std::span<const std::byte> data,
                                            WriteOptions options) = 0;
    virtual io::Task<Result<void>> do_flush() = 0;
    virtual io::Task<Result<void>> do_discard(Range range, WriteOptions options) = 0;
    virtual io::Task<Result<void>> do_write_zeroes(Range range, ZeroOptions options) = 0;
    virtual io::Task<Result<std::vector<Extent>>> do_block_status(Range range,
                                                                  std::size_t max_extents) = 0;

  private:
    Result<void> check_range(Range range, std::uint64_t max_bytes) const;
    Result<void> check_change(Range range, std::uint64_t max_bytes) const;
};

}  // namespace ublkd::block
