#include "ublkd/peer/greeting.h"

#include <array>
#include <utility>

#include "ublkd/io/deadline.h"

namespace ublkd::peer {
namespace {

io::Task<Result<void>> send_hello(io::Socket* socket, Hello own, const io::Deadline* deadline) {
    const std::array<std::byte, kHelloBytes> hello = encode(own);
    const Result<void> sent = co_await socket->send_all(hello);
    if (!sent && deadline->passed()) co_return fail(Errc::kTimedOut, "peer: hello");
    co_return sent;
}

io::Task<Result<void>> take_hello(io::Socket* socket, Greeted* greeted,
                                  const io::Deadline* deadline) {
    std::array<std::byte, 4096> bytes;
    for (;;) {
        const Result<std::size_t> got = co_await socket->receive_some(bytes);
        if (deadline->passed()) co_return fail(Errc::kTimedOut, "peer: hello");
        if (!got) co_return fail(got.error());
        if (*got == 0) co_return fail(Errc::kClosed, "peer: closed before its hello");
        std::size_t used = 0;
        const std::span<const std::byte> received(bytes.data(), *got);
        const Result<Decoder::Step> step = greeted->decoder.next(received, used);
        if (!step) {
            refuse(socket, Reason::kProtocol);
            co_return fail(step.error());
        }
        if (*step == Decoder::Step::kNeedBytes) continue;
        if (*step == Decoder::Step::kRefusal)
            co_return fail(Errc::kClosed, to_string(greeted->decoder.refusal().reason));
        greeted->other = greeted->decoder.hello();
        const std::span<const std::byte> rest = received.subspan(used);
        greeted->rest.assign(rest.begin(), rest.end());
        co_return Result<void>{};
    }
}

Result<void> settle(io::Socket* socket, Greeted* greeted, const Hello& own) {
    const std::expected<Agreed, Refusal> agreed = agree(own, greeted->other);
    if (!agreed) {
        refuse(socket, agreed.error().reason);
        return fail(Errc::kUnsupported, to_string(agreed.error().reason));
    }
    greeted->agreed = *agreed;
    return {};
}

}  // namespace

io::Task<Result<Greeted>> greet(io::Socket* socket, Hello own, io::Clock::time_point deadline) {
    const io::Deadline limit(socket, deadline);
    Greeted greeted;
    CO_TRY(co_await send_hello(socket, own, &limit));
    CO_TRY(co_await take_hello(socket, &greeted, &limit));
    CO_TRY(settle(socket, &greeted, own));
    co_return greeted;
}

io::Task<Result<Greeted>> hear_hello(io::Socket* socket, io::Clock::time_point deadline) {
    const io::Deadline limit(socket, deadline);
    Greeted greeted;
    CO_TRY(co_await take_hello(socket, &greeted, &limit));
    co_return greeted;
}

io::Task<Result<void>> answer_hello(io::Socket* socket, Greeted* greeted, Hello own,
                                    io::Clock::time_point deadline) {
    CO_TRY(settle(socket, greeted, own));
    const io::Deadline limit(socket, deadline);
    co_return co_await send_hello(socket, own, &limit);
}

void refuse(io::Socket* socket, Reason reason) {
    std::array<std::byte, kRefusalBytes> refusal = encode(Refusal{.reason = reason});
    const iovec part{refusal.data(), refusal.size()};
    (void)socket->try_send({&part, 1});  // who does not take it sees the end alone
}

}  // namespace ublkd::peer
