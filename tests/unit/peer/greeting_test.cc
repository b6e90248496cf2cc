// Goal: two sides come to an agreement over a real socket, or each learns why not; one that says
// nothing, something else, or half of it holds nobody up beyond the deadline.
#include "ublkd/peer/greeting.h"

#include <sys/socket.h>
#include <unistd.h>

#include <optional>

#include "tests/unit/io/io_fixture.h"
#include "tests/unit/peer/messages.h"

namespace ublkd::peer {
namespace {

using namespace test;
using namespace std::chrono_literals;

class PeerGreeting : public io::IoTest {
  protected:
    PeerGreeting() {
        int ends[2];
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        connecting_ = io::Socket(*reactor_, ends[0]);
        accepting_ = io::Socket(*reactor_, ends[1]);
    }
    io::Socket connecting_, accepting_;
};

io::Task<void> connect(io::Socket* socket, Hello own, std::optional<Result<Greeted>>* result) {
    result->emplace(co_await greet(socket, own, io::Clock::now() + 5s));
}

io::Task<void> accept(io::Socket* socket, Hello own, std::optional<Result<Greeted>>* result) {
    Result<Greeted> greeted = co_await hear_hello(socket, io::Clock::now() + 5s);
    if (greeted) {
        const Result<void> answered =
            co_await answer_hello(socket, &*greeted, own, io::Clock::now() + 5s);
        if (!answered) {
            result->emplace(fail(answered.error()));
            co_return;
        }
    }
    *result = std::move(greeted);
}

io::Task<void> both_sides(io::Socket* connecting, Hello one, std::optional<Result<Greeted>>* first,
                          io::Socket* accepting, Hello other,
                          std::optional<Result<Greeted>>* second) {
    io::TaskGroup both;
    both.start(connect(connecting, one, first));
    both.start(accept(accepting, other, second));
    co_await both.wait();
}

TEST_F(PeerGreeting, BothSidesKnowEachOtherAfterwards) {
    std::optional<Result<Greeted>> one, other;
    run(both_sides(&connecting_, hello_of(HostId(1)), &one, &accepting_, hello_of(HostId(2)),
                   &other));
    ASSERT_TRUE(*one) << to_string(one->error());
    ASSERT_TRUE(*other) << to_string(other->error());
    EXPECT_EQ((*one)->other, hello_of(HostId(2)));
    EXPECT_EQ((*other)->other, hello_of(HostId(1)));
    EXPECT_EQ((*one)->agreed.version, kNewestVersion);
    EXPECT_EQ((*other)->agreed, (*one)->agreed);
}

TEST_F(PeerGreeting, BothSidesLearnWhyTheyCannotTalk) {
    Hello stranger = hello_of(HostId(1));
    stranger.cluster = ClusterId(99);
    std::optional<Result<Greeted>> one, other;
    run(both_sides(&connecting_, stranger, &one, &accepting_, hello_of(HostId(2)), &other));
    ASSERT_FALSE(*one);
    EXPECT_EQ(one->error().code, Errc::kClosed);
    EXPECT_STREQ(one->error().where, to_string(Reason::kCluster));
    ASSERT_FALSE(*other);
    EXPECT_EQ(other->error().code, Errc::kUnsupported);
    EXPECT_STREQ(other->error().where, to_string(Reason::kCluster));
}

TEST_F(PeerGreeting, OneThatSaysNothingOrHalfOfItIsWaitedForUntilTheDeadline) {
    const auto hello = encode(hello_of(HostId(1)));
    for (const std::size_t bytes : {0UL, 10UL, 127UL}) {
        int ends[2];
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        io::Socket socket(*reactor_, ends[0]);
        ASSERT_EQ(::send(ends[1], hello.data(), bytes, 0), static_cast<ssize_t>(bytes));
        const auto begin = io::Clock::now();
        const Result<Greeted> result = run(hear_hello(&socket, begin + 50ms));
        ASSERT_FALSE(result);
        EXPECT_EQ(result.error().code, Errc::kTimedOut);
        EXPECT_GE(io::Clock::now() - begin, 50ms);
        ::close(ends[1]);
    }
}

TEST_F(PeerGreeting, OneThatClosesOrSendsSomethingElseIsNotWaitedFor) {
    const auto alive = encode_alive(kNewestVersion);
    ASSERT_EQ(::send(accepting_.fd(), alive.data(), alive.size(), 0), 16);
    const Result<Greeted> early =
        run(greet(&connecting_, hello_of(HostId(1)), io::Clock::now() + 60s));
    ASSERT_FALSE(early);
    EXPECT_EQ(early.error().code, Errc::kProtocol);
    // It has the hello, and why it was refused.
    Bytes came(1000);
    const auto got = ::recv(accepting_.fd(), came.data(), came.size(), 0);
    ASSERT_EQ(got, static_cast<ssize_t>(kHelloBytes + kRefusalBytes));
    const auto refusal = encode(Refusal{.reason = Reason::kProtocol});
    EXPECT_TRUE(std::ranges::equal(std::span(came).subspan(kHelloBytes, kRefusalBytes), refusal));

    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    io::Socket socket(*reactor_, ends[0]);
    ::close(ends[1]);
    const Result<Greeted> closed = run(hear_hello(&socket, io::Clock::now() + 60s));
    ASSERT_FALSE(closed);
    EXPECT_EQ(closed.error().code, Errc::kClosed);
}

/// The accepting side may speak as soon as it has answered.
TEST_F(PeerGreeting, WhatComesBehindAHelloIsKept) {
    Bytes stream;
    for (const std::byte byte : encode(hello_of(HostId(2)))) stream.push_back(byte);
    for (const std::byte byte : encode_alive(kNewestVersion)) stream.push_back(byte);
    ASSERT_EQ(::send(accepting_.fd(), stream.data(), stream.size(), 0),
              static_cast<ssize_t>(stream.size()));
    const Result<Greeted> greeted =
        run(greet(&connecting_, hello_of(HostId(1)), io::Clock::now() + 60s));
    ASSERT_TRUE(greeted) << to_string(greeted.error());
    EXPECT_TRUE(std::ranges::equal(greeted->rest, encode_alive(kNewestVersion)));
}

}  // namespace
}  // namespace ublkd::peer
