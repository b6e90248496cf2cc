// What a run prints for a person when it is asked to: one line for each thing that happens, with
// the virtual time in microseconds.
#pragma once

#include <cstdint>

#include "ublkd/replication/message.h"

namespace ublkd::sim {

/// Off: costs nothing. Global, like the fault points of the code under test.
extern bool tracing;
void trace(std::uint64_t now_us, const char* format, ...) __attribute__((format(printf, 2, 3)));
const char* to_string(replication::MessageType type);
const char* to_string(replication::OpKind kind);
void trace_message(std::uint64_t now_us, const char* from, const char* to,
                   const replication::Message& message);

}  // namespace ublkd::sim
