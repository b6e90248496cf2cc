// The files of one replica as the store sees them: a seam of one virtual call per request, below
// which the crash tests put a recorder (tests/crash) and the daemon the real files (real_disk.h).
// Everything that the store does to a disk goes through here: reads, writes, flushes, holes.
//
// Contract of a file, which the store's safety rests on: a write is in one of the states old or new
// for each 512-byte sector until it is durable; it is durable when a sync() that began after its
// end has ended, or at its own end with kDurable. Owner: one ReplicaStore, on its reactor's thread.
//
// What is no coroutine here may block on the disk as long as it likes, and is called on a thread
// for that (ReplicaStore::Impl::blocking()).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "ublkd/base/result.h"
#include "ublkd/base/units.h"
#include "ublkd/io/task.h"

namespace ublkd::store {

enum class Durability : std::uint8_t { kCached, kDurable };

class DiskFile {
  public:
    DiskFile() = default;
    DiskFile(const DiskFile&) = delete;
    DiskFile& operator=(const DiskFile&) = delete;
    virtual ~DiskFile() = default;

    /// Takes the file for this store alone: kBusy while another one has it, or while writes of a
    /// process that died are still under way in the kernel (they keep its lock), so that none can
    /// land on top of ours.
    virtual Result<void> try_lock() = 0;
    /// On the reactor, after open() and before the first request.
    virtual void start() = 0;
    /// What offsets, lengths and memory must be aligned to: 512 or 4096 with O_DIRECT, 1 without.
    virtual std::uint32_t alignment_bytes() const = 0;
    virtual Result<std::uint64_t> size_bytes() const = 0;
    /// Grows or cuts the file (while it is made).
    virtual Result<void> set_size(std::uint64_t size_bytes) = 0;
    /// The first part at or after `from_bytes` that may hold data (SEEK_DATA); an empty range at
    /// the end where there is none. What lies before it reads as zeroes. Errors: kUnsupported where
    /// the file system cannot tell.
    virtual Result<Range> next_data(std::uint64_t from_bytes) const = 0;

    /// Fills `into`. kIo; kCorrupt where the file ends before.
    virtual io::Task<Result<void>> read(std::uint64_t offset_bytes, std::span<std::byte> into) = 0;
    /// Writes all of `from`. kIo, kNoSpace.
    virtual io::Task<Result<void>> write(std::uint64_t offset_bytes,
                                         std::span<const std::byte> from,
                                         Durability durability) = 0;
    /// All writes that have ended are durable afterwards. An error is final (R14).
    virtual io::Task<Result<void>> sync() = 0;
    /// Makes the range read as zeroes: gives its space back (kPunch), or keeps it allocated
    /// (kKeep). kUnsupported where the file system cannot; then nothing was changed. Durable like a
    /// write.
    enum class ZeroMode : std::uint8_t { kPunch, kKeep };
    virtual io::Task<Result<void>> zero(ZeroMode mode, Range range) = 0;
};

/// The folder of one replica.
class DiskFolder {
  public:
    DiskFolder() = default;
    DiskFolder(const DiskFolder&) = delete;
    DiskFolder& operator=(const DiskFolder&) = delete;
    virtual ~DiskFolder() = default;

    /// Takes the replica for this store alone; before anything in it is read or written. kBusy
    /// while another store, or a process that is still dying, has it.
    virtual Result<void> try_lock() = 0;
    /// The file `name` of the folder; `create`: it must not be there yet.
    struct OpenMode {
        bool create = false;
        bool direct = true;
    };
    virtual Result<std::unique_ptr<DiskFile>> open(const char* name, OpenMode mode) = 0;
    /// Begins a new replica: files are made under another name until publish() has made all of it
    /// durable. kExists.
    virtual Result<void> begin_making() = 0;
    virtual Result<void> publish() = 0;
    /// Gives up what begin_making() began.
    virtual void abandon() noexcept = 0;
};

}  // namespace ublkd::store
