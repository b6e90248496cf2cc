// What a host has seen of etcd, in a small file of its state folder, so that an older state is told
// from a newer one over restarts too: the cluster's id, the revision of the last state, and a
// checksum of it. And who this host is to etcd. One line of text, written in place, which a kill
// survives, and a power cut may take the last of: an older one does no harm, it is only less
// strict. A lock on it keeps a second daemon of the same folder out. Not thread-safe. Owner:
// EtcdRows.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "ublkd/base/fd.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

class EtcdSeen {
  public:
    struct Mark {
        std::uint64_t client = 0;
        std::uint64_t cluster = 0;   // 0: none was seen
        std::uint64_t revision = 0;  // of the state; 0: none was seen
        std::uint32_t checksum = 0;  // of its text
    };

    /// "": kept in memory alone. kBusy: another process has it open. kCorrupt: not ours.
    static Result<EtcdSeen> open(const std::string& path);

    const Mark& mark() const { return mark_; }
    void see(std::uint64_t cluster, std::uint64_t revision, std::string_view state_text);
    static std::uint32_t checksum_of(std::string_view state_text);

  private:
    EtcdSeen(Fd file, Mark mark) : file_(std::move(file)), mark_(mark) {}
    Result<void> write();

    Fd file_;
    Mark mark_;
};

}  // namespace ublkd::metadata
