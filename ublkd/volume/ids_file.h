// The table of applied ids (R8) of one replica in a file of the run folder, mapped: it outlives the
// process, and the boot ends it as it ends the requests that could be sent again. Without a run
// folder: in memory alone. The file's room is taken when it is made, so that a full run folder is
// an error then, and no SIGBUS later.
#pragma once

#include <string>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/replication/applied_ids.h"

namespace ublkd::volume {

class IdsFile {
  public:
    /// Opens or makes the file of `replica` in `run_folder` ("": memory). A file of another size is
    /// made anew. Errors: the errno's.
    static Result<IdsFile> open(const std::string& run_folder, VolumeId volume, ReplicaId replica);
    /// Deletes all files of a volume that is deleted.
    static void remove_all(const std::string& run_folder, VolumeId volume);
    IdsFile() = default;
    IdsFile(IdsFile&& other) noexcept;
    IdsFile& operator=(IdsFile&& other) noexcept;
    ~IdsFile();
    replication::AppliedIds::Table* table() const { return table_; }
    /// Deletes the file: its replica is no member any more, or nothing is sent again.
    void remove() const;

  private:
    replication::AppliedIds::Table* table_ = nullptr;
    std::string path_;
};

}  // namespace ublkd::volume
