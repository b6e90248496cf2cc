// The server and its limits, over real sockets: who gets in, for how long, and how it ends. Hostile
// cases are numbered as in docs/nbd.md, "Hostile clients".
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <thread>

#include "tests/unit/front_nbd/test_server.h"

namespace ublkd::front::nbd::test {
namespace {

using namespace std::chrono_literals;

void expect_serving(RawClient client) {
    ASSERT_TRUE(client.enter("disk"));
    const Bytes data = pattern(4096, 3);
    EXPECT_EQ(client.write(8192, data), NbdError::kNone);
    EXPECT_EQ(client.read(8192, 4096), data);
}

TEST(NbdServer, ServesUnixAndLoopbackTcp) {
    TestServer server;
    expect_serving(server.connect());
    expect_serving(server.connect_tcp());
}

TEST(NbdServer, TheSocketIsForItsOwnerAndGroupAlone) {
    TestServer server;
    struct stat info{};
    ASSERT_EQ(stat(server.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0660U);
}

TEST(NbdServer, TcpListensOnLoopbackAlone) {
    TestServer server;
    for (const char* address : {"0.0.0.0", "192.0.2.1", "::", "128.0.0.1", "localhost", ""}) {
        const auto port = server.listen_tcp(address);
        ASSERT_FALSE(port.has_value()) << address;
        EXPECT_EQ(port.error().code, Errc::kNotPermitted) << address;
    }
    const auto port = server.listen_tcp("127.1.2.3");
    EXPECT_TRUE(port.has_value());
}

TEST(NbdServer, AClientThatIsNotAdmittedIsClosedWithoutAWord) {
    std::atomic<bool> admit = false;
    TestServerOptions options;
    options.server.admit = [&admit](int) { return admit.load(); };
    TestServer server(options);
    EXPECT_TRUE(server.connect().is_closed());
    admit = true;
    expect_serving(server.connect());
}

TEST(NbdServer, AnExportOfAnotherReactorIsServedThere) {
    TestServerOptions options;
    options.other_reactor = true;
    TestServer server(options);
    expect_serving(server.connect());
    expect_serving(server.connect_tcp());
    // Requests that came with the last bytes of the handshake go with the connection.
    RawClient client = server.connect();
    ASSERT_TRUE(client.greet());
    const Bytes data = pattern(1024, 9);
    ASSERT_TRUE(client.send(option(Option::kExportName, text("disk")) +
                            request(Command::kWrite, 1, 0, 1024) + data +
                            request(Command::kRead, 2, 0, 1024)));
    ASSERT_TRUE(client.receive(10).has_value());
    EXPECT_EQ(client.reply()->cookie, 1U);
    EXPECT_EQ(client.reply(1024)->data, data);
}

TEST(NbdServer, Hostile07OneConnectionTooManyIsClosed) {
    TestServerOptions options;
    options.server.max_connections = 3;
    options.server.accept_patience = 100ms;
    TestServer server(options);
    std::vector<RawClient> clients;
    for (int i = 0; i < 3; ++i) {
        clients.push_back(server.connect());
        ASSERT_TRUE(clients.back().enter("disk"));
    }
    EXPECT_TRUE(server.connect().is_closed());
    clients.pop_back();
    ASSERT_TRUE(server.wait_for_connections(2));
    expect_serving(server.connect());
}

TEST(NbdServer, Hostile07AClientThatDoesNotShakeHandsInTimeIsClosed) {
    TestServerOptions options;
    options.server.handshake_timeout = 300ms;
    TestServer server(options);
    RawClient done = server.connect();
    ASSERT_TRUE(done.enter("disk"));
    RawClient silent = server.connect();
    RawClient halfway = server.connect();
    ASSERT_TRUE(halfway.greet());
    RawClient chatty = server.connect();  // answers count for nothing: the limit is for all of it
    ASSERT_TRUE(chatty.greet());
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() < start + 5s) {
        if (chatty.ask(Option::kStartTls).empty()) break;
        std::this_thread::sleep_for(20ms);
    }
    EXPECT_TRUE(silent.drain_to_end());
    EXPECT_TRUE(halfway.is_closed());
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
    EXPECT_TRUE(done.read(0, 512).has_value()) << "who is through stays";
    EXPECT_TRUE(server.wait_for_connections(1));
}

TEST(NbdServer, Hostile08AnExportIsOpenedAtGoAlone) {
    TestServer server;
    RawClient client = server.connect();
    ASSERT_TRUE(client.greet());
    client.ask(Option::kList);
    client.ask(Option::kInfo, info_data("disk"));
    client.ask(Option::kStructuredReply);
    client.ask(Option::kSetMetaContext, context_data("disk", {kAllocationContext}));
    EXPECT_EQ(server.opens, 0U);
    client.ask(Option::kGo, info_data("disk"));
    EXPECT_EQ(server.opens, 1U);
    client.close();
    EXPECT_TRUE(server.wait_for_connections(0));
    EXPECT_EQ(server.holders, 0);
}

TEST(NbdServer, Hostile10UnknownExportsEndOrRefuseTheConnectionAndNothingElse) {
    TestServer server;
    RawClient by_name = server.connect();
    ASSERT_TRUE(by_name.greet());
    ASSERT_TRUE(by_name.send(option(Option::kExportName, text("nope"))));
    EXPECT_TRUE(by_name.is_closed());
    RawClient by_go = server.connect();
    ASSERT_TRUE(by_go.greet());
    EXPECT_EQ(by_go.ask(Option::kGo, info_data("nope")).back().type, OptionReply::kErrUnknown);
    EXPECT_EQ(by_go.ask(Option::kGo, info_data("disk")).back().type, OptionReply::kAck);
    server.refuse_open_with = static_cast<int>(Errc::kBusy);
    RawClient busy = server.connect();
    ASSERT_TRUE(busy.greet());
    EXPECT_EQ(busy.ask(Option::kGo, info_data("disk")).back().type, OptionReply::kErrPolicy);
}

/// A whole handshake and two requests.
Bytes full_conversation() {
    return be32(kFixedNewstyle | kNoZeroes) + option(Option::kStructuredReply) +
           option(Option::kList) + option(Option::kInfo, info_data("disk")) +
           option(Option::kSetMetaContext, context_data("disk", {kAllocationContext})) +
           option(Option::kGo, info_data("disk", {Info::kBlockSize})) +
           request(Command::kWrite, 1, 0, 512) + pattern(512, 1) +
           request(Command::kRead, 2, 0, 512);
}

TEST(NbdServer, Hostile11AResetAtEachByteOfTheConversationHarmsNobodyElse) {
    TestServer server;
    const Bytes all = full_conversation();
    for (std::size_t bytes = 0; bytes <= all.size();
         bytes += bytes > 220 && bytes + 64 < all.size() ? 64U : 1U) {
        RawClient client = server.connect_tcp();
        client.send(Bytes(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(bytes)));
        if (bytes % 3 == 0) (void)client.receive(18);
        client.reset();
    }
    expect_serving(server.connect_tcp());
    EXPECT_TRUE(server.wait_for_connections(0));
}

TEST(NbdServer, Hostile11ACloseAtEachByteOfTheConversationHarmsNobodyElse) {
    TestServer server;
    const Bytes all = full_conversation();
    for (std::size_t bytes = 0; bytes <= all.size();
         bytes += bytes > 220 && bytes + 64 < all.size() ? 64U : 1U) {
        RawClient client = server.connect();
        client.send(Bytes(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(bytes)));
        client.close();
    }
    expect_serving(server.connect());
    EXPECT_TRUE(server.wait_for_connections(0));
}

TEST(NbdServer, Hostile11JunkInsteadOfAHandshakeEndsTheConnection) {
    TestServer server;
    for (unsigned seed = 0; seed < 32; ++seed) {
        RawClient client = server.connect();
        client.send(pattern(300, seed));
        EXPECT_TRUE(client.drain_to_end());
    }
    expect_serving(server.connect());
}

// ---- the end of the server

TEST(NbdServer, Hostile07StopEndsAClientInEachState) {
    for (const bool other_reactor : {false, true}) {
        TestServerOptions options;
        options.other_reactor = other_reactor;
        TestServer server(options);
        RawClient silent = server.connect();
        RawClient greeted = server.connect();
        ASSERT_TRUE(greeted.greet());
        RawClient amid_option = server.connect();
        ASSERT_TRUE(amid_option.greet());
        ASSERT_TRUE(amid_option.send(be64(kOptionMagic) + be32(7)));
        RawClient idle = server.connect();
        ASSERT_TRUE(idle.enter("disk"));
        RawClient amid_payload = server.connect();
        ASSERT_TRUE(amid_payload.enter("disk"));
        ASSERT_TRUE(amid_payload.send(request(Command::kWrite, 1, 0, 65536) + pattern(1000, 1)));
        RawClient opening = server.connect();
        ASSERT_TRUE(opening.greet());
        server.hold_open = true;
        ASSERT_TRUE(opening.send(option(Option::kGo, info_data("disk"))));
        std::this_thread::sleep_for(20ms);
        std::thread let_go([&server] {
            std::this_thread::sleep_for(100ms);
            server.hold_open = false;
        });
        server.stop();
        let_go.join();
        EXPECT_TRUE(silent.drain_to_end());
        EXPECT_TRUE(greeted.is_closed());
        EXPECT_TRUE(amid_option.is_closed());
        EXPECT_TRUE(idle.is_closed());
        EXPECT_TRUE(amid_payload.is_closed());
        EXPECT_TRUE(opening.is_closed());
    }
}

TEST(NbdServer, StopAnswersWhatIsInFlight) {
    TestServer server;
    RawClient client = server.connect();
    ASSERT_TRUE(client.enter("disk"));
    server.disk().delay_ms = 200;
    const Bytes data = pattern(4096, 5);
    ASSERT_TRUE(client.send(request(Command::kWrite, 7, 0, 4096) + data +
                            request(Command::kFlush, 8, 0, 0)));
    while (server.disk().in_flight < 2) std::this_thread::sleep_for(1ms);
    server.stop();
    const auto first = client.reply();
    const auto second = client.reply();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->error, NbdError::kNone);
    EXPECT_EQ(second->error, NbdError::kNone);
    EXPECT_TRUE(client.is_closed());
}

TEST(NbdServer, StopDoesNotWaitForAClientThatTakesNoReplies) {
    TestServerOptions options;
    options.server.drain_timeout = 200ms;
    TestServer server(options);
    RawClient client = server.connect();
    ASSERT_TRUE(client.enter("disk"));
    Bytes reads;
    for (std::uint64_t i = 0; i < 16; ++i)
        reads = std::move(reads) + request(Command::kRead, i, 0, 512 * 1024);
    ASSERT_TRUE(client.send(reads));
    std::this_thread::sleep_for(100ms);
    const auto start = std::chrono::steady_clock::now();
    server.stop();
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST(NbdServer, DisconnectEndsTheConnectionsOfOneExport) {
    for (const bool other_reactor : {false, true}) {
        TestServerOptions options;
        options.other_reactor = other_reactor;
        TestServer server(options);
        RawClient one = server.connect();
        RawClient two = server.connect_tcp();
        RawClient other = server.connect();
        RawClient shaking = server.connect();
        ASSERT_TRUE(one.enter("disk") && two.enter("") && other.enter("endless") &&
                    shaking.greet());
        EXPECT_EQ(server.connections("disk"), 2U);
        server.disk().delay_ms = 50;
        ASSERT_TRUE(one.send(request(Command::kRead, 1, 0, 512)));
        while (server.disk().in_flight == 0) std::this_thread::sleep_for(1ms);
        server.disconnect("disk");
        EXPECT_EQ(server.connections("disk"), 0U);
        EXPECT_EQ(server.holders, 1) << "only the other export is still in use";
        EXPECT_EQ(one.reply(512)->error, NbdError::kNone);
        EXPECT_TRUE(one.is_closed());
        EXPECT_TRUE(two.is_closed());
        EXPECT_TRUE(other.read(0, 512).has_value());
        EXPECT_EQ(shaking.ask(Option::kList).size(), 3U);
    }
}

}  // namespace
}  // namespace ublkd::front::nbd::test
