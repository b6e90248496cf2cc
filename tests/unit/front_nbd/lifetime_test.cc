// The end of a connection: a client that goes away takes nothing with it but its own connection.
// Run under the sanitizers. Hostile case 18 of docs/nbd.md is what kills nbdkit 1.32: a client that
// closes with requests in flight.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "tests/unit/front_nbd/test_server.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::front::nbd::test {
namespace {

using namespace std::chrono_literals;

Bytes thirty_two_requests(unsigned round) {
    Bytes requests;
    for (std::uint64_t i = 0; i < 32; ++i) {
        const std::uint64_t offset = ((round * 37 + i) % 1000) * 4096;
        switch ((round + i) % 5) {
            case 0:
                requests = std::move(requests) + request(Command::kWrite, i, offset, 4096, kFua) +
                           pattern(4096, round);
                break;
            case 1:
                requests =
                    std::move(requests) + request(Command::kWriteZeroes, i, offset + 7, 4096);
                break;
            case 2:
                requests = std::move(requests) + request(Command::kFlush, i, 0, 0);
                break;
            case 3:
                requests = std::move(requests) + request(Command::kWrite, i, offset + 1, 3) +
                           pattern(3, round);
                break;
            default:
                requests = std::move(requests) + request(Command::kRead, i, offset, 4096);
        }
    }
    return requests;
}

void abrupt_closes(bool other_reactor, unsigned count) {
    TestServerOptions options;
    options.other_reactor = other_reactor;
    TestServer server(options);
    const Bytes shake =
        be32(kFixedNewstyle | kNoZeroes) + option(Option::kExportName, text("disk"));
    for (unsigned round = 0; round < count; ++round) {
        server.disk().yields = round % 7;
        const bool tcp = round % 4 == 3;
        RawClient client = tcp ? server.connect_tcp() : server.connect();
        ASSERT_TRUE(client.send(shake + thirty_two_requests(round)));
        // Some close at once, some when the first answers have come, some amid them.
        if (round % 3 == 1) {
            ASSERT_TRUE(client.receive(18 + 10 + 16).has_value());
        }
        if (round % 9 == 2) (void)shutdown(client.fd(), SHUT_RD);
        if (tcp) {
            client.reset();
        } else {
            client.close();
        }
        if (round % 64 == 0) {
            ASSERT_LE(server.connections(), 100U);
        }
        if (round % 50 == 49) {
            ASSERT_TRUE(server.wait_for_connections(0));
        }
    }
    ASSERT_TRUE(server.wait_for_connections(0));
    EXPECT_EQ(server.free_buffer_bytes(), options.buffer_bytes);
    RawClient after = server.connect();
    ASSERT_TRUE(after.enter("disk"));
    EXPECT_TRUE(after.read(0, 4096).has_value());
}

TEST(NbdLifetime, Hostile18AThousandAbruptClosesWith32RequestsInFlight) {
    abrupt_closes(false, 1000);
}

TEST(NbdLifetime, Hostile18AbruptClosesWhereTheExportLivesOnAnotherReactor) {
    abrupt_closes(true, 300);
}

TEST(NbdLifetime, RequestsOutliveTheConnectionThatMadeThem) {
    TestServer server;
    RawClient client = server.connect();
    ASSERT_TRUE(client.enter("disk"));
    server.disk().hold = true;
    ASSERT_TRUE(client.send(thirty_two_requests(1)));
    while (server.disk().in_flight < 5) std::this_thread::sleep_for(1ms);
    client.close();
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(server.connections("disk"), 1U)
        << "the connection is there until its requests have ended";
    EXPECT_EQ(server.holders, 1) << "and so is the export";
    server.disk().hold = false;
    EXPECT_TRUE(server.wait_for_connections(0));
    EXPECT_EQ(server.holders, 0);
}

TEST(NbdLifetime, ANewClientWaitsForThoseThatAreGone) {
    TestServerOptions options;
    options.server.max_connections = 1;
    options.server.accept_patience = 20s;
    TestServer server(options);
    RawClient gone = server.connect();
    ASSERT_TRUE(gone.enter("disk"));
    server.disk().hold = true;
    ASSERT_TRUE(gone.send(thirty_two_requests(1)));
    while (server.disk().in_flight < 5) std::this_thread::sleep_for(1ms);
    gone.close();
    RawClient next = server.connect();
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(server.connections(), 1U);
    server.disk().hold = false;
    EXPECT_TRUE(next.enter("disk"));
}

/// A client closes while the device holds its request.
void close_with_a_request_in_flight() {
    TestServer server;
    RawClient client = server.connect();
    if (!client.enter("disk")) return;
    server.disk().hold = true;
    if (!client.send(request(Command::kFlush, 1, 0, 0))) return;
    while (server.disk().in_flight < 1) std::this_thread::sleep_for(1ms);
    client.close();
    (void)server.wait_for_connections(0);
    server.disk().hold = false;
}

TEST(NbdLifetimeDeathTest, Hostile18ConnectionThatDoesNotWaitForItsRequestsIsFound) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(
        {
            if (faults::arm("rule.nbd_waits_for_requests=off")) close_with_a_request_in_flight();
        },
        "run\\(\\) comes to its end first");
}

TEST(NbdLifetime, AnOrderlyDisconnectAnswersWhatIsInFlight) {
    TestServer server;
    RawClient client = server.connect();
    ASSERT_TRUE(client.enter("disk"));
    server.disk().delay_ms = 50;
    const Bytes data = pattern(4096, 2);
    ASSERT_TRUE(client.send(request(Command::kWrite, 1, 0, 4096) + data +
                            request(Command::kDisconnect, 2, 0, 0)));
    const auto reply = client.reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->cookie, 1U);
    EXPECT_TRUE(client.is_closed());
}

TEST(NbdLifetime, ARequestThatFailsWhileTheServerStopsIsNotAnswered) {
    TestServer server;
    RawClient client = server.connect();
    ASSERT_TRUE(client.enter("disk"));
    server.disk().hold = true;
    ASSERT_TRUE(client.send(request(Command::kWrite, 1, 0, 512) + pattern(512, 1)));
    while (server.disk().in_flight < 1) std::this_thread::sleep_for(1ms);
    server.begin_disconnect("disk");
    std::this_thread::sleep_for(20ms);
    EXPECT_EQ(server.connections("disk"), 1U) << "it waits for the device";
    server.disk().fail_with = static_cast<int>(Errc::kNoSpace);
    server.disk().hold = false;
    EXPECT_TRUE(client.is_closed()) << "another connection may find that the write succeeds";
    EXPECT_TRUE(server.wait_for_connections(0));
}

TEST(NbdLifetime, AHalfClosedClientStillGetsItsReplies) {
    TestServer server;
    for (const bool tcp : {false, true}) {
        RawClient client = tcp ? server.connect_tcp() : server.connect();
        ASSERT_TRUE(client.enter("disk"));
        server.disk().delay_ms = 20;
        ASSERT_TRUE(
            client.send(request(Command::kRead, 1, 0, 4096) + request(Command::kRead, 2, 0, 4096)));
        ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
        EXPECT_TRUE(client.reply(4096));
        EXPECT_TRUE(client.reply(4096));
        EXPECT_TRUE(client.is_closed());
    }
}

TEST(NbdLifetime, AClientThatGoesAwayWhileItsHandshakeOpensTheExport) {
    TestServer server;
    server.hold_open = true;
    RawClient client = server.connect();
    ASSERT_TRUE(client.greet());
    ASSERT_TRUE(client.send(option(Option::kGo, info_data("disk"))));
    std::this_thread::sleep_for(20ms);
    client.close();
    server.hold_open = false;
    EXPECT_TRUE(server.wait_for_connections(0));
    EXPECT_EQ(server.holders, 0);
}

TEST(NbdLifetime, ManyClientsComeAndGoSideBySide) {
    TestServer server;
    server.disk().yields = 1;
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&server, t] {
            for (unsigned round = 0; round < 25; ++round) {
                RawClient client = server.connect();
                ASSERT_TRUE(client.enter("disk", round % 2 == 0));
                const std::uint64_t offset = t * kMiB;
                const Bytes data = pattern(16384, t * 100 + round);
                ASSERT_EQ(client.write(offset, data), NbdError::kNone);
                ASSERT_EQ(client.read(offset, 16384), data);
            }
        });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_TRUE(server.wait_for_connections(0));
}

}  // namespace
}  // namespace ublkd::front::nbd::test
