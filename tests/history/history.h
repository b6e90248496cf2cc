// What clients did to one volume and saw of it: operations of several clients (writers), of one or
// several processes, with the times of one monotonic clock. The file format is history_file.h's,
// the judgement check.h's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tests/history/sector_check.h"

namespace ublkd::history {

/// A writer (one connection of a load, over all its reconnects) and its operation's number: unique.
struct OperationId {
    std::uint32_t writer = 0;
    std::uint64_t sequence = 0;
    friend auto operator<=>(const OperationId&, const OperationId&) = default;
};

enum class Action : std::uint8_t { kRead, kWrite, kZero, kDiscard, kFlush };

/// What a read found in `count` sectors in a row.
struct Seen {
    enum class What : std::uint8_t {
        kZeroes,
        kStamp,      // written by `by`
        kMisplaced,  // written by `by`, for the sector `address`
        kTorn,       // neither zeroes nor one whole stamp
    };
    What what = What::kZeroes;
    OperationId by{};
    std::uint64_t address = 0;
    std::uint64_t count = 0;
};

struct Operation {
    enum class Outcome : std::uint8_t { kUnknown, kOk, kFailed };
    OperationId id{};
    Action action = Action::kRead;
    bool fua = false;
    std::uint64_t sector = 0;
    std::uint64_t count = 0;
    Time begin = 0;
    Outcome outcome = Outcome::kUnknown;
    Time end = kOpen;          // of kOk and kFailed
    int error = 0;             // of kFailed: errno
    std::vector<Seen> seen{};  // of a read that is kOk

    bool changes() const {
        return action == Action::kWrite || action == Action::kZero || action == Action::kDiscard;
    }
};

struct History {
    std::vector<Operation> operations;
    std::vector<Loss> losses;  // in their order
};

}  // namespace ublkd::history
