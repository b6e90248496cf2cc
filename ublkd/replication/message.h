// What clients and members say to each other. In one process a message is handed over as this
// struct; a later peer protocol encodes the same fields. Every message names the volume, sender and
// receiver (replica incarnations; none for a client) and the number (R1); requests carry the id of
// R8. Plain values; see docs/replication.md.
//
// Memory: `data` and `into` belong to the asking side and stay valid until the answer to `token`
// has come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/base/units.h"
#include "ublkd/block/block_device.h"
#include "ublkd/replication/applied_ids.h"
#include "ublkd/replication/membership.h"

namespace ublkd::replication {

/// Regions of the activity map (4 MiB each), by index, ascending.
using RegionSet = std::vector<std::uint32_t>;
/// Units of a dirty map (64 KiB each), the same way.
using UnitSet = std::vector<std::uint32_t>;

enum class OpKind : std::uint8_t {
    kRead,
    kWrite,
    kDiscard,
    kZero,
    kFlush,
    kHold,       // keeps writes off a range (a shared lock) until kRelease: for comparing members
    kMakeEqual,  // R14: writes the primary's content of a range to all other members, durably
    kCut,        // R18: preserve what is there now, under `cut`; changes wait until kRelease
    kCutHolds,   // R18: is it so that no change has been answered since the cut `cut`?
};
constexpr bool is_change(OpKind kind) {
    return kind == OpKind::kWrite || kind == OpKind::kDiscard || kind == OpKind::kZero;
}

enum class MessageType : std::uint8_t {
    kRequest,     // client -> primary: kind, range, data or into, id
    kAnswer,      // the result of a request
    kMoved,       // not served here, or asked under an old number: `record` says where to ask
    kRelease,     // client -> primary: ends the kHold or kCut `token`
    kReplicate,   // primary -> member: apply this change (or flush); mark_only: its data came by a
                  // copy, note the id. ids: `range` is a piece of the change, and this is what to
                  // note of it afterwards
    kReplicated,  // applied, or why not
    kConfirm,     // R2: is `number` still yours?
    kConfirmed,
    kAdopt,    // R7 (2): close, drain, store `record`; with takeover: answer with your activity map
    kAdopted,  // in_sync: not restarted in another boot (R9); regions: with takeover, by_map, or
               // joined
    kProbe,    // R9: an out-of-sync primary asks whether a member is in sync
    kProbed,
    kTakeOver,  // R9: be primary in my place; regions unused
    kCopy,      // content of the primary for `range`; without data: zeroes. check: answer with the
                // checksum on disk. ids: what is noted of the range where the content is from (R8);
                // id: forget that one
    kCopied,
    kFetch,  // R14: read `range` into `into`. check: answer also what is noted of it (R8)
    kFetched,
    kMark,  // R10: what was flushed so far is durable through the mark `through`; store it
    kMarked,
    kClear,    // R10: regions whose writes are durable on all members, as all have marked
    kExamine,  // R12: what does a replica hold that is to be brought back?
    kExamined,
    kFinish,  // R12: all is copied: flush, note the ids, mark yourself in sync
    kFinished,
    kHealth,  // R6: could you acknowledge now? From a member that was asked to take over, or from a
              // client; attachment: on whose word
    kHealthy,   // failed: no; in_sync; value: how many other attachments answered (0 or more)
    kFailover,  // R6: client -> secondary: the primary of `number` can't be reached. check: an
                // operator's word, other attachments don't count. Answered by kMoved
    kPing,      // R6: primary -> client of `attachment`: are you there?
    kPong,
};

inline constexpr std::uint64_t kAnyLosses = UINT64_MAX;

struct Message {
    MessageType type{};
    OpKind kind{};
    bool fua = false;
    bool keep_allocated = false;
    bool mark_only = false;
    bool in_sync = false;
    bool takeover = false;
    bool joining = false;
    bool by_map = false;  // with joining: what it holds stays, and the rest is copied
    bool check = false;
    bool failed = false;  // of an answer: `error` says why; kStale: refused under R1, `record` is
                          // the newer one
    Error error{Errc::kIo};
    VolumeId volume;
    ReplicaId from;
    ReplicaId to;
    AttachmentId attachment;   // of a client's session (R15); none: the host's own
    std::uint64_t losses = 0;  // R9: the loss count that the client knows; kAnyLosses: it lives in
                               // this process, and no loss outlives it. Of kHealthy: the record's
    std::uint64_t number = 0;
    RequestId id{};
    std::uint64_t token = 0;  // of the side that asks; echoed by the answer
    std::uint64_t route = 0;  // the driver's: where the answer goes; echoed by it
    std::uint64_t value = 0;  // the round of a confirmation; the checksum of a copy; kExamined: the
                              // number under which it was a member last; of a request kCut: how
                              // many milliseconds changes wait at most
    std::uint64_t cut = 0;    // R18: of kCut, kCutHolds; the asker's name for it
    std::uint64_t through = 0;  // R10: the greatest mark in the sender's superblock
    std::uint64_t cleared = 0;  // R10: and that for which it cleared activity bits
    Range range{};
    std::span<const std::byte> data{};
    std::span<std::byte> into{};
    std::shared_ptr<const Membership> record;
    std::shared_ptr<const RegionSet> regions;
    std::shared_ptr<const IdList> ids;
};

}  // namespace ublkd::replication
