#include "ublkd/peer/shape.h"

#include <algorithm>
#include <array>

#include "ublkd/peer/wire_numbers.h"

namespace ublkd::peer {
namespace {

using replication::IdList;
using replication::Message;
using replication::MessageType;
using replication::NotedId;
using replication::OpKind;

/// A member has a replica's id, a client has none.
enum class Side { kMember, kClient, kEither };
enum class Part { kNone, kOptional, kNeeded };  // needed: unless it failed

constexpr unsigned bit(OpKind kind) { return 1U << wire_number(kind); }
constexpr unsigned kAnyKind = ~0U;
constexpr unsigned kNoKind = bit(OpKind{});
constexpr unsigned kChanges = bit(OpKind::kWrite) | bit(OpKind::kDiscard) | bit(OpKind::kZero);
constexpr unsigned kReplicates = kChanges | bit(OpKind::kFlush) | bit(OpKind::kCut);

struct Shape {
    MessageType type;
    Side from;
    Side to;
    unsigned kinds;
    Part record = Part::kNone;
    Part regions = Part::kNone;
    Part ids = Part::kNone;
};

using enum MessageType;
using enum Side;
using enum Part;
constexpr std::array kShapes{
    Shape{kRequest, kClient, kMember, kAnyKind},
    Shape{kAnswer, kMember, kClient, kAnyKind},
    Shape{kMoved, kMember, kClient, kAnyKind, kOptional},
    Shape{kRelease, kClient, kMember, bit(OpKind::kHold) | bit(OpKind::kCut)},
    Shape{kReplicate, kMember, kMember, kReplicates, kNone, kNone, kOptional},
    Shape{kReplicated, kMember, kMember, kReplicates, kOptional},
    Shape{kConfirm, kMember, kMember, kNoKind},
    Shape{kConfirmed, kMember, kMember, kNoKind, kOptional},
    Shape{kAdopt, kMember, kMember, kNoKind, kNeeded, kNone, kOptional},
    Shape{kAdopted, kMember, kMember, kNoKind, kOptional, kOptional},
    Shape{kProbe, kMember, kMember, kNoKind},
    Shape{kProbed, kMember, kMember, kNoKind, kOptional},
    Shape{kTakeOver, kMember, kMember, kNoKind, kNeeded},
    Shape{kCopy, kMember, kMember, bit(OpKind::kWrite) | bit(OpKind::kDiscard), kNone, kNone,
          kOptional},
    Shape{kCopied, kMember, kMember, bit(OpKind::kWrite) | bit(OpKind::kDiscard), kOptional},
    Shape{kFetch, kMember, kMember, bit(OpKind::kRead)},
    Shape{kFetched, kMember, kMember, bit(OpKind::kRead), kOptional, kNone, kOptional},
    Shape{kMark, kMember, kMember, kNoKind},
    Shape{kMarked, kMember, kMember, kNoKind},
    Shape{kClear, kMember, kMember, kNoKind, kNone, kNeeded},
    Shape{kExamine, kMember, kMember, kNoKind},
    Shape{kExamined, kMember, kMember, kNoKind, kNone, kNeeded},
    Shape{kFinish, kMember, kMember, kNoKind, kNeeded, kNone, kNeeded},
    Shape{kFinished, kMember, kMember, kNoKind, kOptional},
    Shape{kHealth, kEither, kMember, kNoKind},
    Shape{kHealthy, kMember, kEither, kNoKind, kOptional},
    Shape{kFailover, kClient, kMember, kNoKind},
    Shape{kPing, kMember, kClient, kNoKind},
    Shape{kPong, kClient, kMember, kNoKind},
};

constexpr const Shape* shape_of(MessageType type) {
    const auto found = std::ranges::find(kShapes, type, &Shape::type);
    return found == kShapes.end() ? nullptr : &*found;
}
constexpr bool each_type_has_a_shape() {
    for (unsigned number = 0; number < 256; ++number) {
        const auto type = from_wire<MessageType>(number);
        if (type && shape_of(*type) == nullptr) return false;
    }
    return true;
}
static_assert(each_type_has_a_shape());

bool fits(Side side, ReplicaId replica) {
    return side == Side::kEither || (side == Side::kMember) == static_cast<bool>(replica);
}

bool fits(Part part, bool there, bool failed) {
    return part == Part::kOptional || (part == Part::kNone && !there) ||
           (part == Part::kNeeded && (there || failed));
}

/// What a type and kind has.
enum class Extent {
    kNone,   // no range, no payload
    kAny,    // a range of any length, 0 too: of a flush nobody looks at it
    kSome,   // a range, as long as it likes
    kIo,     // a range of one request to a disk
    kData,   // that, and as much payload
    kReply,  // no range, and payload for the asker's memory
};

Extent extent_of_request(OpKind kind) {
    switch (kind) {
        case OpKind::kRead:
        case OpKind::kMakeEqual:
            return Extent::kIo;
        case OpKind::kWrite:
            return Extent::kData;
        case OpKind::kDiscard:
        case OpKind::kZero:
        case OpKind::kHold:
            return Extent::kSome;
        case OpKind::kFlush:
            return Extent::kAny;
        case OpKind::kCut:
        case OpKind::kCutHolds:
            return Extent::kNone;
    }
    return Extent::kNone;
}

Extent extent_of(const Message& message) {
    switch (message.type) {
        case kRequest:
        case kCopy:
        case kFetch:
            return extent_of_request(message.kind);
        case kReplicate: {
            const Extent extent = extent_of_request(message.kind);
            return extent == Extent::kData && message.mark_only ? Extent::kIo : extent;
        }
        case kAnswer:
        case kFetched:
            return message.kind == OpKind::kRead && !message.failed ? Extent::kReply
                                                                    : Extent::kNone;
        default:
            return Extent::kNone;
    }
}

bool in_sectors(const Range& range, const Limits& limits) {
    return is_aligned(range.offset_bytes, kSectorBytes) &&
           is_aligned(range.length_bytes, kSectorBytes) &&
           range.offset_bytes <= limits.volume_bytes &&
           range.length_bytes <= limits.volume_bytes - range.offset_bytes;
}
/// `whole` lies in the volume.
bool within(const Range& part, const Range& whole) {
    return part.offset_bytes >= whole.offset_bytes && part.end_bytes() <= whole.end_bytes();
}
/// None at all, or both halves.
bool well_formed(const replication::RequestId& id) {
    return (id.client_start == 0) == (id.sequence == 0);
}

Result<void> check_extent(const Message& message, std::size_t payload_bytes, const Limits& limits) {
    const Extent extent = extent_of(message);
    const Range& range = message.range;
    const bool ranged = extent != Extent::kNone && extent != Extent::kReply;
    if (!ranged && range != Range{})
        return fail(Errc::kProtocol, "message: a range where there is none");
    if (!in_sectors(range, limits)) return fail(Errc::kProtocol, "message: range");
    const bool io = extent == Extent::kIo || extent == Extent::kData;
    if ((io || extent == Extent::kSome) && range.length_bytes == 0)
        return fail(Errc::kProtocol, "message: an empty range");
    if (io && range.length_bytes > kMaxIoBytes)
        return fail(Errc::kProtocol, "message: a range too long");
    if (extent == Extent::kData && payload_bytes != range.length_bytes)
        return fail(Errc::kProtocol, "message: range and payload differ");
    if (extent == Extent::kReply && (payload_bytes == 0 || payload_bytes > kMaxIoBytes ||
                                     !is_aligned(payload_bytes, kSectorBytes)))
        return fail(Errc::kProtocol, "message: length of the payload");
    if (extent != Extent::kData && extent != Extent::kReply && payload_bytes != 0)
        return fail(Errc::kProtocol, "message: payload where there is none");
    // What is checked is read back from the disk, in one request.
    if (message.type == kCopy && message.check && extent != Extent::kData)
        return fail(Errc::kProtocol, "message: a checked copy without data");
    return {};
}

Result<void> check_regions(const replication::RegionSet& regions, const Limits& limits) {
    if (std::ranges::adjacent_find(regions, std::greater_equal{}) != regions.end())
        return fail(Errc::kProtocol, "message: regions not ascending");
    if (!regions.empty() && regions.back() >= limits.regions())
        return fail(Errc::kProtocol, "message: a region outside");
    return {};
}

Result<void> check_ids(const IdList& ids, const Limits& limits) {
    if (ids.size() > kMaxIds) return fail(Errc::kProtocol, "message: too many ids");
    for (const NotedId& noted : ids) {
        if (noted.id.sequence == 0 || !well_formed(noted.id))
            return fail(Errc::kProtocol, "message: an id that names nothing");
        if (noted.change.length_bytes == 0 || !in_sectors(noted.change, limits))
            return fail(Errc::kProtocol, "message: an id's range");
        if (noted.applied) continue;
        if (noted.piece.length_bytes == 0 || !in_sectors(noted.piece, limits) ||
            !within(noted.piece, noted.change))
            return fail(Errc::kProtocol, "message: an id's piece");
    }
    return {};
}

/// Of a piece of a change: what is to be noted of that very change.
Result<void> check_noted_after(const Message& message) {
    const IdList& ids = *message.ids;
    const bool about_it = !ids.empty() && std::ranges::all_of(ids, [&](const NotedId& noted) {
        return noted.id == message.id && noted.change == ids.front().change &&
               within(message.range, noted.change);
    });
    return about_it ? Result<void>() : fail(Errc::kProtocol, "message: ids of another change");
}

}  // namespace

std::span<const std::byte> payload_of(const Message& message) {
    const Extent extent = extent_of(message);
    const bool sent = extent == Extent::kData || extent == Extent::kReply;
    return sent ? message.data : std::span<const std::byte>{};
}

const IdList* ids_of(const Message& message) {
    const bool hole = message.type == kCopy && message.kind == OpKind::kDiscard;
    return hole ? nullptr : message.ids.get();
}

Result<void> check_shape(const Message& message, std::size_t payload_bytes, const Limits& limits) {
    const Shape& shape = *shape_of(message.type);
    const IdList* const ids = ids_of(message);
    if (message.volume != limits.volume) return fail(Errc::kProtocol, "message: another volume");
    if (!fits(shape.from, message.from)) return fail(Errc::kProtocol, "message: sender");
    if (!fits(shape.to, message.to)) return fail(Errc::kProtocol, "message: receiver");
    if ((shape.kinds & bit(message.kind)) == 0)
        return fail(Errc::kProtocol, "message: a kind that the type has not");
    if (!well_formed(message.id)) return fail(Errc::kProtocol, "message: half an id");
    const bool of_cut = message.kind == OpKind::kCut || message.kind == OpKind::kCutHolds;
    if (of_cut != (message.cut != 0))
        return fail(Errc::kProtocol, "message: a cut without a name, or a name alone");
    if (!fits(shape.record, message.record != nullptr, message.failed))
        return fail(Errc::kProtocol, "message: record");
    if (!fits(shape.regions, message.regions != nullptr, message.failed))
        return fail(Errc::kProtocol, "message: regions");
    if (!fits(shape.ids, ids != nullptr, message.failed))
        return fail(Errc::kProtocol, "message: ids");
    TRY(check_extent(message, payload_bytes, limits));
    if (message.record != nullptr && message.record->volume != limits.volume)
        return fail(Errc::kProtocol, "message: another volume's record");
    if (message.regions != nullptr) {
        TRY(check_regions(*message.regions, limits));
    }
    if (ids != nullptr) {
        TRY(check_ids(*ids, limits));
        if (message.type == kReplicate) {
            TRY(check_noted_after(message));
        }
    }
    return {};
}

}  // namespace ublkd::peer
