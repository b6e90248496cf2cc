// What a node of the core asks of its driver. Each call returns at once and never calls back into
// the node: the answer comes later through the node's input of the same name. The daemon's driver
// is ublkd/volume, the tests' a simulation.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ublkd/replication/membership.h"
#include "ublkd/replication/message.h"

namespace ublkd::replication {

/// R11: a member that was lost, and what its replica must hold to be brought back by a map.
struct LostMember {
    ReplicaId replica;         // none: a free place
    std::uint64_t number = 0;  // of the record without it
    std::uint64_t through =
        0;  // R10: activity bits were cleared for what this mark says is durable
    friend bool operator==(const LostMember&, const LostMember&) = default;
};
inline constexpr std::size_t kMaxLost = kMaxMembers - 1;
/// Those for which this replica keeps a map of all that may differ (64 KiB units).
using LostMembers = std::array<LostMember, kMaxLost>;

/// One request to the node's own disk; its result comes by Node::on_disk(token, ...). kFlush and
/// kCut have no range. kCut: what the disk holds is preserved under `cut`, durably, whatever is
/// written later; once more under the same name: anew.
struct DiskRequest {
    std::uint64_t token = 0;
    OpKind kind{};
    bool fua = false;
    bool keep_allocated = false;
    Range range{};
    std::span<const std::byte> data{};  // kWrite
    std::span<std::byte> into{};        // kRead
    std::uint64_t cut = 0;              // kCut
};

/// A change of the superblock, durable when Node::on_stored(token, ...) is called.
struct StoreRequest {
    std::uint64_t token = 0;
    const Membership* record = nullptr;  // nullptr: forget it (the replica is copied as a whole)
    bool keep_record = false;            // leave number and record as they are
    /// R16: the newest record that is known here and has this replica not among its members;
    /// nullptr: there is none any more.
    const Membership* left_by = nullptr;
    const std::optional<Proposal>* pending = nullptr;  // nullptr: as it is; an empty one clears it
    bool in_sync = false;  // write this boot's id; otherwise none, so that the replica counts as
                           // out of sync (R9)
    std::optional<std::uint64_t> durable_through{};  // R10
    /// Where an entry is another one than before, its map begins as a copy of the activity map at
    /// this call, and gets each change that begins after it.
    LostMembers lost{};
};

enum class TimerKind : std::uint8_t {
    kAuthority,  // ask or propose again
    kFull,       // try again what found no space
    kBits,       // R10: clear activity bits
    kCopy,       // the next copy, by the rate limit
    kProbe,      // R9: ask again who did not restart
    kFailover,   // R6: a secondary waits no longer for the answers to its questions
    kPing,       // R6: a primary waits no longer for its clients' answers
    kCut,        // R18: changes wait no longer
};
inline constexpr std::size_t kTimerKinds = 8;

struct BufferRef {
    std::span<std::byte> bytes{};
    std::uint32_t handle = 0;  // for release_buffer
};

/// For status and people; nothing in the protocol depends on it.
struct Notice {
    enum class Kind : std::uint8_t {
        kRecord,    // a record was stored: `record`
        kServing,   // this node serves as primary
        kLost,      // `replica` leaves, or gave up joining: `cause`
        kLetGo,     // `replica` leaves, as it was told to
        kJoined,    // `replica` is a member now; `done` bytes were copied, `by_map` or all
        kTrouble,   // `text`
        kFailover,  // this secondary takes over from `replica`: `text` says why
    };
    Kind kind{};
    ReplicaId replica{};
    Error cause{Errc::kIo};
    const Membership* record = nullptr;
    bool by_map = false;
    std::uint64_t done = 0;
    const char* text = "";
};

class Effects {
  public:
    virtual ~Effects() = default;
    virtual void send(const Message& message) = 0;
    virtual void disk(const DiskRequest& request) = 0;
    virtual void store(const StoreRequest& request) = 0;
    /// Whether `range` begins with data or with a hole, and how far: Node::on_extent.
    virtual void extent(std::uint64_t token, Range range) = 0;
    /// The own activity map now, and clearing bits of it (R10; nobody waits for it): first the
    /// superblock says that bits are cleared through the mark `through`.
    virtual RegionSet activity() = 0;
    virtual void clear_activity(const RegionSet& regions, std::uint64_t through) = 0;
    /// R10: what was flushed is durable through `through`, in the superblock: Node::on_marked.
    virtual void mark(std::uint64_t through) = 0;
    /// R11: the map of a lost member that stands in the superblock.
    virtual UnitSet dirty(ReplicaId lost) = 0;
    /// Memory for one payload of 1 to 512 KiB: Node::on_buffer.
    virtual void acquire_buffer(std::uint64_t token, std::size_t bytes) = 0;
    virtual void release_buffer(std::uint32_t handle) = 0;
    /// To the authority: Node::on_outcome, Node::on_current.
    virtual void propose(const Proposal& proposal) = 0;
    virtual void ask_authority() = 0;
    /// Node::on_timer(kind) after `milliseconds`, in place of one of the kind that runs.
    virtual void start_timer(TimerKind kind, std::uint32_t milliseconds) = 0;
    virtual void notice(const Notice& notice) = 0;
};

}  // namespace ublkd::replication
