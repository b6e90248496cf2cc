// A client whose connection broke sends again, on a new one, what was not answered, and then
// changes what that wrote. Whatever of the old connection was under way or unread must not come
// after that. One request at a time is taken here, so that the second of a client stays unread.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "tests/unit/front_nbd/test_server.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::front::nbd::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kHeld = 32 * kMiB;  // where requests do not end while the disk holds them

enum class Ending { kUnixHalfClosed, kTcpClosed, kTcpClosedBehindAFullWindow };

TestServerOptions one_request_at_a_time(bool other_reactor) {
    TestServerOptions options;
    options.server.max_requests_in_flight = 1;
    options.other_reactor = other_reactor;
    return options;
}

void hold(TestServer& server) {
    server.disk().hold_from_offset = kHeld;
    server.disk().hold = true;
}

/// A client with a request at the disk and one at offset 0, which the server has not taken.
RawClient client_with_an_unread_write(TestServer& server, bool tcp, const Bytes& data) {
    RawClient client = tcp ? server.connect_tcp() : server.connect();
    EXPECT_TRUE(client.enter("disk"));
    EXPECT_TRUE(client.send(request(Command::kWrite, 1, kHeld, 4096) + pattern(4096, 1)));
    while (server.disk().in_flight < 1) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(client.send(request(Command::kWrite, 2, 0, 4096) + data));
    return client;
}

void fill_the_window(const RawClient& client) {
    Bytes more = request(Command::kRead, 3, 0, 4096);
    while (more.size() < 64 * 1024) more = more + more;
    while (::send(client.fd(), more.data(), more.size(), MSG_DONTWAIT) > 0) {
    }
}

/// Whether a write of the old connection, which its client sent again and then wrote over, is there
/// in the end.
bool old_write_comes_last(Ending ending, bool other_reactor) {
    TestServer server(one_request_at_a_time(other_reactor));
    hold(server);
    const Bytes first = pattern(4096, 2);
    const Bytes second = pattern(4096, 3);
    RawClient old = client_with_an_unread_write(server, ending != Ending::kUnixHalfClosed, first);
    if (ending == Ending::kTcpClosedBehindAFullWindow) fill_the_window(old);
    if (ending == Ending::kUnixHalfClosed) {
        EXPECT_EQ(shutdown(old.fd(), SHUT_WR), 0);
    } else {
        old.close();
    }
    std::thread let_go([&server] {
        std::this_thread::sleep_for(300ms);
        server.disk().hold = false;
    });
    RawClient again = server.connect();
    EXPECT_TRUE(again.enter("disk"));
    EXPECT_EQ(again.write(0, first), NbdError::kNone);
    EXPECT_EQ(again.write(0, second), NbdError::kNone);
    let_go.join();
    EXPECT_TRUE(server.wait_for_connections(1));
    const auto found = again.read(0, 4096);
    EXPECT_TRUE(found == first || found == second);
    return found == first;
}

TEST(NbdOldConnections, AWriteThatWasSentAgainDoesNotComeBackLater) {
    for (const bool other_reactor : {false, true}) {
        for (const Ending ending :
             {Ending::kUnixHalfClosed, Ending::kTcpClosed, Ending::kTcpClosedBehindAFullWindow})
            EXPECT_FALSE(old_write_comes_last(ending, other_reactor)) << static_cast<int>(ending);
    }
}

TEST(NbdOldConnections, WithoutTheRuleAWriteThatWasSentAgainComesBackLater) {
    ASSERT_TRUE(faults::arm("rule.nbd_old_connections_first=off"));
    for (const bool other_reactor : {false, true}) {
        for (const Ending ending : {Ending::kUnixHalfClosed, Ending::kTcpClosed})
            EXPECT_TRUE(old_write_comes_last(ending, other_reactor)) << static_cast<int>(ending);
    }
    faults::disarm_all();
}

TEST(NbdOldConnections, WhatIsAtTheDiskEndsFirst) {
    TestServer server(one_request_at_a_time(false));
    hold(server);
    RawClient old = client_with_an_unread_write(server, false, pattern(4096, 2));
    old.close();
    RawClient again = server.connect();
    ASSERT_TRUE(again.enter("disk"));
    const std::uint64_t writes = server.disk().writes;
    ASSERT_TRUE(again.send(request(Command::kWrite, 7, 8192, 4096) + pattern(4096, 3)));
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(server.disk().writes, writes);
    server.disk().hold = false;
    const auto reply = again.reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->cookie, 7U);
}

TEST(NbdOldConnections, AClientThatIsThereIsNeitherEndedNorWaitedFor) {
    for (const bool tcp : {false, true}) {
        TestServer server(one_request_at_a_time(false));
        hold(server);
        RawClient one = client_with_an_unread_write(server, tcp, pattern(4096, 2));
        if (tcp) fill_the_window(one);
        RawClient two = tcp ? server.connect_tcp() : server.connect();
        ASSERT_TRUE(two.enter("disk"));
        EXPECT_EQ(two.write(4096, pattern(4096, 3)), NbdError::kNone);
        EXPECT_EQ(server.connections("disk"), 2U);
        server.disk().hold = false;
        EXPECT_EQ(one.reply()->cookie, 1U);
        EXPECT_EQ(one.reply()->cookie, 2U);
    }
}

TEST(NbdOldConnections, AClientIsNotServedWhereTheyDoNotEnd) {
    TestServerOptions options = one_request_at_a_time(false);
    options.server.old_connections_timeout = 200ms;
    TestServer server(options);
    hold(server);
    client_with_an_unread_write(server, true, pattern(4096, 2)).close();
    const std::uint64_t writes = server.disk().writes;
    RawClient refused = server.connect();
    ASSERT_TRUE(refused.enter("disk"));
    ASSERT_TRUE(refused.send(request(Command::kWrite, 1, 0, 4096) + pattern(4096, 3)));
    EXPECT_TRUE(refused.is_closed());
    EXPECT_EQ(server.disk().writes, writes);
    RawClient other = server.connect();
    ASSERT_TRUE(other.enter("endless"));
    EXPECT_TRUE(other.read(0, 512)) << "another export has nothing to do with it";
    server.disk().hold = false;
    RawClient served = server.connect();
    ASSERT_TRUE(served.enter("disk"));
    EXPECT_EQ(served.write(0, pattern(4096, 4)), NbdError::kNone);
}

TEST(NbdOldConnections, AClientThatGivesUpWhileItWaitsIsAnOldOneForTheNext) {
    TestServer server(one_request_at_a_time(false));
    hold(server);
    client_with_an_unread_write(server, false, pattern(4096, 2)).close();
    RawClient waiting = server.connect();
    ASSERT_TRUE(waiting.enter("disk"));
    ASSERT_TRUE(waiting.send(request(Command::kWrite, 1, 4096, 4096) + pattern(4096, 3)));
    std::this_thread::sleep_for(20ms);
    waiting.close();
    RawClient next = server.connect();
    ASSERT_TRUE(next.enter("disk"));
    ASSERT_TRUE(next.send(request(Command::kRead, 1, 4096, 4096)));
    EXPECT_TRUE(server.wait_for_connections(2)) << "the one that waited has ended";
    server.disk().hold = false;
    const auto reply = next.reply(4096);
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->data, Bytes(4096)) << "its write was dropped";
}

TEST(NbdOldConnections, AClientThatWaitsDoesNotHoldUpADisconnect) {
    TestServer server(one_request_at_a_time(false));
    hold(server);
    client_with_an_unread_write(server, false, pattern(4096, 2)).close();
    RawClient waiting = server.connect();
    ASSERT_TRUE(waiting.enter("disk"));
    ASSERT_TRUE(waiting.send(request(Command::kRead, 1, 0, 4096)));
    std::this_thread::sleep_for(20ms);
    const auto start = std::chrono::steady_clock::now();
    server.begin_disconnect("disk");
    EXPECT_TRUE(waiting.is_closed());
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
}

}  // namespace
}  // namespace ublkd::front::nbd::test
