// What a volume keeps in the run folder, in mapped files: it outlives the process, and the boot
// ends it as it ends the requests that could be sent again. Without a run folder: in memory alone.
// A file's room is taken when it is made, so that a full run folder is an error then, and no SIGBUS
// later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/replication/applied_ids.h"

namespace ublkd::volume {

/// R8, of a replica. It is that of an in-sync member from the moment at which `of_member` is set
/// on: one that was made anew knows nothing of what its replica has applied.
struct KeptIds {
    replication::AppliedIds::Table table;
    std::uint64_t of_member;
};

/// R9, of an attachment: the loss count that its requests were sent with, plus one; 0: none was.
struct KeptLosses {
    std::uint64_t sent_plus_one;
};

class RunFile {
  public:
    RunFile() = default;
    RunFile(RunFile&& other) noexcept;
    RunFile& operator=(RunFile&& other) noexcept;
    ~RunFile();

    /// Opens the file, or makes it, of zeroes; also where it has another size. Errors: the errno's.
    static Result<RunFile> ids_of(const std::string& run_folder, VolumeId volume,
                                  ReplicaId replica);
    static Result<RunFile> losses_of(const std::string& run_folder, VolumeId volume,
                                     AttachmentId attachment);
    /// Deletes all files of a volume that is deleted.
    static void remove_all(const std::string& run_folder, VolumeId volume);

    template <class Content>
    Content* as() const {
        return static_cast<Content*>(memory_);
    }
    /// Of no run folder: nothing was ever in it that could be gone.
    bool in_memory() const { return path_.empty(); }
    /// Deletes the file: who it is of is gone, or nothing is sent again.
    void remove() const;

  private:
    static Result<RunFile> open(const std::string& run_folder, const std::string& name,
                                std::size_t bytes);

    void* memory_ = nullptr;
    std::size_t bytes_ = 0;
    std::string path_;
};

}  // namespace ublkd::volume
