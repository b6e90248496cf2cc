// How a connection begins: hellos over a socket, before its volume's reactor has it. Who connects
// calls greet(); who accepts reads the other's hello first, to see whose volume it is for, and then
// answers or refuses. Coroutines on the socket's reactor, each within a deadline; a side that stops
// in the midst, or sends anything else, costs no more than that. See docs/peer-protocol.md.
#pragma once

#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/io/socket.h"
#include "ublkd/io/task.h"
#include "ublkd/peer/decoder.h"
#include "ublkd/peer/hello.h"

namespace ublkd::peer {

/// A connection whose hellos are done: what connection.h goes on with.
struct Greeted {
    Hello other;
    Agreed agreed;
    Decoder decoder;              // has heard the hello
    std::vector<std::byte> rest;  // what came behind it
};

/// The connecting side. Errors: kTimedOut, kClosed (also a refusal: its text says why), kProtocol,
/// kCorrupt, kUnsupported (agree() refused: the other side is told why), or the socket's.
io::Task<Result<Greeted>> greet(io::Socket* socket, Hello own, io::Clock::time_point deadline);

/// The accepting side: the other's hello, in `other`; nothing is agreed on yet. Errors: as greet().
io::Task<Result<Greeted>> hear_hello(io::Socket* socket, io::Clock::time_point deadline);
/// Answers it with this side's, and agrees, or refuses.
io::Task<Result<void>> answer_hello(io::Socket* socket, Greeted* greeted, Hello own,
                                    io::Clock::time_point deadline);
/// Says why before the socket is closed; never waits.
void refuse(io::Socket* socket, Reason reason);

}  // namespace ublkd::peer
