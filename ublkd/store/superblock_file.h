// The file `superblock` of a replica: reads the two copies, writes updates alternately and durably,
// one after another in order of call. Owner: the replica's store, on its reactor.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "ublkd/io/aligned_memory.h"
#include "ublkd/io/sync.h"
#include "ublkd/store/disk_file.h"
#include "ublkd/store/superblock.h"

namespace ublkd::store {

inline constexpr std::uint64_t kSuperblockFileBytes = 2 * kSuperblockBytes;

class SuperblockFile {
  public:
    explicit SuperblockFile(std::unique_ptr<DiskFile> file);
    SuperblockFile(const SuperblockFile&) = delete;
    SuperblockFile& operator=(const SuperblockFile&) = delete;

    DiskFile* file() const { return file_.get(); }
    /// Writes both copies of a new replica, into a file of kSuperblockFileBytes.
    io::Task<Result<void>> format(Superblock first);
    /// The newer valid copy. Errors: kCorrupt (none is valid), kUnsupported (one is of another
    /// format version), kIo.
    io::Task<Result<void>> load(ReplicaId incarnation);

    /// The newest durable state.
    const Superblock& current() const { return current_.value; }
    /// Durable when it has ended. On an error current() stays what it was; on disk it is that, or
    /// the change. After one other than kNoSpace nothing is written any more (R14).
    io::Task<Result<void>> update(SuperblockChange change);
    /// False after load() where one of the copies could not be read.
    bool both_copies_valid() const { return both_copies_valid_; }
    std::uint64_t writes() const { return writes_; }

  private:
    io::Task<Result<void>> write_copy(const SuperblockCopy* from, std::uint32_t copy);

    std::unique_ptr<DiskFile> file_;
    io::AlignedMemory page_;
    SuperblockCopy current_;
    io::Semaphore turn_{1};
    std::optional<Error> failed_;
    bool both_copies_valid_ = true;
    std::uint64_t writes_ = 0;
};

}  // namespace ublkd::store
