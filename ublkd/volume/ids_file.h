// The table of applied ids (R8) of one replica in a file of the run folder, mapped: it outlives the
// process, and the boot ends it as it ends the requests that could be sent again. Without a run
// folder: in memory alone.
#pragma once

#include <string>

#include "ublkd/base/result.h"
#include "ublkd/replication/applied_ids.h"

namespace ublkd::volume {

class IdsFile {
  public:
    /// Opens or makes `path` ("": memory). A file of another size is made anew. Errors: the
    /// errno's.
    static Result<IdsFile> open(const std::string& path);
    IdsFile() = default;
    IdsFile(IdsFile&& other) noexcept;
    IdsFile& operator=(IdsFile&& other) noexcept;
    ~IdsFile();
    replication::AppliedIds::Table* table() const { return table_; }
    /// Deletes the file: its replica is no member any more.
    void remove() const;

  private:
    replication::AppliedIds::Table* table_ = nullptr;
    std::string path_;
};

}  // namespace ublkd::volume
