#include "tests/sim/trace.h"

#include <cstdarg>
#include <cstdio>

#include "ublkd/base/units.h"

namespace ublkd::sim {

using replication::MessageType;
using replication::OpKind;

bool tracing = false;

void trace(std::uint64_t now_us, const char* format, ...) {
    if (!tracing) return;
    std::printf("%8llu  ", static_cast<unsigned long long>(now_us));
    std::va_list arguments;
    va_start(arguments, format);
    std::vprintf(format, arguments);
    va_end(arguments);
    std::printf("\n");
}

const char* to_string(MessageType type) {
    switch (type) {
        case MessageType::kRequest:
            return "request";
        case MessageType::kAnswer:
            return "answer";
        case MessageType::kMoved:
            return "moved";
        case MessageType::kRelease:
            return "release";
        case MessageType::kReplicate:
            return "replicate";
        case MessageType::kReplicated:
            return "replicated";
        case MessageType::kConfirm:
            return "confirm";
        case MessageType::kConfirmed:
            return "confirmed";
        case MessageType::kAdopt:
            return "adopt";
        case MessageType::kAdopted:
            return "adopted";
        case MessageType::kProbe:
            return "probe";
        case MessageType::kProbed:
            return "probed";
        case MessageType::kTakeOver:
            return "take-over";
        case MessageType::kCopy:
            return "copy";
        case MessageType::kCopied:
            return "copied";
        case MessageType::kFetch:
            return "fetch";
        case MessageType::kFetched:
            return "fetched";
        case MessageType::kMark:
            return "mark";
        case MessageType::kMarked:
            return "marked";
        case MessageType::kExamine:
            return "examine";
        case MessageType::kExamined:
            return "examined";
        case MessageType::kClear:
            return "clear";
        case MessageType::kFinish:
            return "finish";
        case MessageType::kFinished:
            return "finished";
        case MessageType::kHealth:
            return "health";
        case MessageType::kHealthy:
            return "healthy";
        case MessageType::kFailover:
            return "failover";
        case MessageType::kPing:
            return "ping";
        case MessageType::kPong:
            return "pong";
    }
    return "?";
}

const char* to_string(OpKind kind) {
    switch (kind) {
        case OpKind::kRead:
            return "read";
        case OpKind::kWrite:
            return "write";
        case OpKind::kDiscard:
            return "discard";
        case OpKind::kZero:
            return "zero";
        case OpKind::kFlush:
            return "flush";
        case OpKind::kHold:
            return "hold";
        case OpKind::kMakeEqual:
            return "make equal";
        case OpKind::kCut:
            return "cut";
        case OpKind::kCutHolds:
            return "cut holds";
    }
    return "?";
}

void trace_message(std::uint64_t now_us, const char* from, const char* to,
                   const replication::Message& message) {
    if (!tracing) return;
    trace(now_us, "%s -> %s: %s %s under %llu, sectors %llu+%llu, id %llu.%llu, token %llx%s%s%s%s",
          from, to, to_string(message.type), to_string(message.kind),
          static_cast<unsigned long long>(message.number),
          static_cast<unsigned long long>(message.range.offset_bytes / kSectorBytes),
          static_cast<unsigned long long>(message.range.length_bytes / kSectorBytes),
          static_cast<unsigned long long>(message.id.client_start),
          static_cast<unsigned long long>(message.id.sequence),
          static_cast<unsigned long long>(message.token), message.failed ? ", failed: " : "",
          message.failed ? ublkd::to_string(message.error.code) : "",
          message.mark_only ? ", mark only" : "", message.fua ? ", fua" : "");
}

}  // namespace ublkd::sim
