// The numbers by which the protocol names message types, kinds of requests and errors. They are
// written down here and do not follow the enums, whose order may change. One list for each, as a
// switch without a default: a new enumerator that has no number does not compile. 0 is none of
// them.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "ublkd/base/result.h"
#include "ublkd/replication/message.h"

namespace ublkd::peer {

constexpr std::uint8_t wire_number(replication::MessageType type) {
    using enum replication::MessageType;
    switch (type) {
        case kRequest:
            return 1;
        case kAnswer:
            return 2;
        case kMoved:
            return 3;
        case kRelease:
            return 4;
        case kReplicate:
            return 5;
        case kReplicated:
            return 6;
        case kConfirm:
            return 7;
        case kConfirmed:
            return 8;
        case kAdopt:
            return 9;
        case kAdopted:
            return 10;
        case kProbe:
            return 11;
        case kProbed:
            return 12;
        case kTakeOver:
            return 13;
        case kCopy:
            return 14;
        case kCopied:
            return 15;
        case kFetch:
            return 16;
        case kFetched:
            return 17;
        case kMark:
            return 18;
        case kMarked:
            return 19;
        case kClear:
            return 20;
        case kExamine:
            return 21;
        case kExamined:
            return 22;
        case kFinish:
            return 23;
        case kFinished:
            return 24;
        case kHealth:
            return 25;
        case kHealthy:
            return 26;
        case kFailover:
            return 27;
        case kPing:
            return 28;
        case kPong:
            return 29;
    }
    return 0;
}

constexpr std::uint8_t wire_number(replication::OpKind kind) {
    using enum replication::OpKind;
    switch (kind) {
        case kRead:
            return 1;
        case kWrite:
            return 2;
        case kDiscard:
            return 3;
        case kZero:
            return 4;
        case kFlush:
            return 5;
        case kHold:
            return 6;
        case kMakeEqual:
            return 7;
        case kCut:
            return 8;
        case kCutHolds:
            return 9;
    }
    return 0;
}

constexpr std::uint8_t wire_number(Errc code) {
    using enum Errc;
    switch (code) {
        case kInvalidArgument:
            return 1;
        case kNotFound:
            return 2;
        case kExists:
            return 3;
        case kIo:
            return 4;
        case kCorrupt:
            return 5;
        case kNoSpace:
            return 6;
        case kReadOnly:
            return 7;
        case kBusy:
            return 8;
        case kStale:
            return 9;
        case kConflict:
            return 10;
        case kTimedOut:
            return 11;
        case kCancelled:
            return 12;
        case kClosed:
            return 13;
        case kProtocol:
            return 14;
        case kUnsupported:
            return 15;
        case kNotPermitted:
            return 16;
        case kExhausted:
            return 17;
        case kLost:
            return 18;
    }
    return 0;
}

namespace detail {

/// What each number stands for, -1 for nothing; made from the lists above.
template <class Enum>
constexpr std::array<std::int16_t, 256> values_by_number() {
    std::array<std::int16_t, 256> values{};
    values.fill(-1);
    for (std::int16_t value = 0; value < 256; ++value) {
        const std::uint8_t number =
            wire_number(Enum{static_cast<std::underlying_type_t<Enum>>(value)});
        if (number != 0) values[number] = value;
    }
    return values;
}
template <class Enum>
inline constexpr std::array<std::int16_t, 256> kValues = values_by_number<Enum>();

}  // namespace detail

/// nullopt: no enumerator has this number.
template <class Enum>
constexpr std::optional<Enum> from_wire(std::uint64_t number) {
    const std::int16_t value = number < 256 ? detail::kValues<Enum>[number] : std::int16_t{-1};
    if (value < 0) return std::nullopt;
    return Enum{static_cast<std::underlying_type_t<Enum>>(value)};
}

}  // namespace ublkd::peer
