// Goal: over TCP a server with certificates is used under TLS alone, and serves there as it does in
// the clear; who may not, who tricks and who stalls gets nothing and holds up nobody. Method: a
// client by OpenSSL's own calls, which says what it is told to.
#include <sys/socket.h>

#include <chrono>
#include <thread>

#include "tests/unit/front_nbd/test_server.h"
#include "tests/unit/io/test_certificates.h"

namespace ublkd::front::nbd::test {
namespace {

using namespace std::chrono_literals;

class NbdTls : public ::testing::Test {
  protected:
    TestServerOptions options(io::ClientCertificates clients = io::ClientCertificates::kRequired) {
        TestServerOptions made;
        auto context = io::TlsContext::server(authority_.issue(), clients);
        EXPECT_TRUE(context);
        made.server.tls = *context;
        return made;
    }
    /// Greeted and under TLS.
    RawClient connect(const TestServer& server) {
        RawClient client = server.connect_tcp();
        EXPECT_TRUE(client.greet());
        EXPECT_TRUE(client.start_tls(own_));
        return client;
    }
    /// What enter() does behind the greeting.
    static bool go(RawClient* client, bool structured = false) {
        if (structured) client->ask(Option::kStructuredReply);
        const auto answers = client->ask(Option::kGo, info_data("disk"));
        return !answers.empty() && answers.back().type == OptionReply::kAck;
    }
    void expect_serving(const TestServer& server) {
        RawClient client = connect(server);
        ASSERT_TRUE(go(&client));
        EXPECT_TRUE(client.read(0, 512));
    }

    io::TestAuthority authority_;
    io::TlsCertificates own_ = authority_.issue();
};

TEST_F(NbdTls, RequestsOfAllSizesAreServed) {
    for (const bool other_reactor : {false, true}) {
        TestServerOptions made = options();
        made.other_reactor = other_reactor;
        TestServer server(made);
        RawClient client = connect(server);
        ASSERT_TRUE(go(&client, true));
        for (const std::uint32_t bytes : {1U, 512U, 4096U, 100'000U, 524'288U, 5'000'000U}) {
            const Bytes data = pattern(bytes, bytes);
            EXPECT_EQ(client.write(4096, data), NbdError::kNone);
            const auto read = client.read(4096, bytes);
            ASSERT_TRUE(read);
            EXPECT_TRUE(*read == data);
        }
        const auto flushed = client.call(Command::kFlush, 0, 0);
        EXPECT_TRUE(flushed && flushed->error == NbdError::kNone);
    }
}

TEST_F(NbdTls, ManyRepliesWaitForAClientThatReadsLate) {
    TestServer server(options());
    RawClient client = connect(server);
    ASSERT_TRUE(go(&client));
    const Bytes data = pattern(64 * 1024, 3);
    ASSERT_EQ(client.write(0, data), NbdError::kNone);
    Bytes reads;
    for (std::uint64_t i = 0; i < 500; ++i)
        reads = std::move(reads) + request(Command::kRead, i, 0, 64 * 1024);
    ASSERT_TRUE(client.send(reads));
    std::this_thread::sleep_for(100ms);
    for (int i = 0; i < 500; ++i) {
        const auto reply = client.reply(64 * 1024);
        ASSERT_TRUE(reply && reply->error == NbdError::kNone);
        ASSERT_TRUE(reply->data == data);
    }
}

TEST_F(NbdTls, Hostile01InTheClearNothingIsToldOrOpened) {
    TestServer server(options());
    RawClient client = server.connect_tcp();
    ASSERT_TRUE(client.greet());
    for (const auto& [which, data] :
         {std::pair{Option::kList, Bytes()}, std::pair{Option::kStructuredReply, Bytes()},
          std::pair{Option::kInfo, info_data("disk")}, std::pair{Option::kGo, info_data("disk")}}) {
        const auto answers = client.ask(which, data);
        ASSERT_EQ(answers.size(), 1U);
        EXPECT_EQ(answers[0].type, OptionReply::kErrTlsRequired);
    }
    EXPECT_TRUE(client.start_tls(own_)) << "and it may still do as it should";
    ASSERT_TRUE(go(&client));
    EXPECT_TRUE(client.read(0, 512));
    RawClient old = server.connect_tcp();
    ASSERT_TRUE(old.greet());
    ASSERT_TRUE(old.send(option(Option::kExportName, text("disk"))));
    EXPECT_TRUE(old.is_closed());
    EXPECT_EQ(server.opens, 1U);
}

TEST_F(NbdTls, Hostile01WhatIsInjectedBehindStartTlsIsNotTaken) {
    TestServer server(options());
    {  // with it
        RawClient client = server.connect_tcp();
        ASSERT_TRUE(client.greet());
        ASSERT_TRUE(client.send(option(Option::kStartTls) + option(Option::kStructuredReply)));
        EXPECT_TRUE(client.is_closed());
    }
    {  // in place of the handshake
        RawClient client = server.connect_tcp();
        ASSERT_TRUE(client.greet());
        ASSERT_EQ(client.ask(Option::kStartTls).at(0).type, OptionReply::kAck);
        ASSERT_TRUE(client.send(option(Option::kGo, info_data("disk"))));
        EXPECT_TRUE(client.drain_to_end());
    }
    {  // after the handshake, beneath it
        RawClient client = connect(server);
        const Bytes injected = option(Option::kGo, info_data("disk"));
        ASSERT_EQ(::send(client.fd(), injected.data(), injected.size(), 0),
                  static_cast<ssize_t>(injected.size()));
        EXPECT_FALSE(client.receive(1));
    }
    ASSERT_TRUE(server.wait_for_connections(0));
    EXPECT_EQ(server.opens + server.describes, 0U);
    expect_serving(server);
}

TEST_F(NbdTls, SecondStartTlsIsRefused) {
    TestServer server(options());
    RawClient client = connect(server);
    const auto answers = client.ask(Option::kStartTls);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].type, OptionReply::kErrInvalid);
    EXPECT_TRUE(go(&client));
}

TEST_F(NbdTls, ClientsWithoutAGoodCertificateAreRefusedWhereOneIsRequired) {
    TestServer server(options());
    io::TlsCertificates none = own_;
    none.certificate = "";
    const io::TestAuthority other("other");
    io::TlsCertificates strangers = other.issue();
    strangers.authorities = own_.authorities;
    for (const io::TlsCertificates& certificates : {none, strangers}) {
        RawClient client = server.connect_tcp();
        ASSERT_TRUE(client.greet());
        (void)client.start_tls(certificates);  // its own half succeeds
        EXPECT_TRUE(client.ask(Option::kList).empty());
    }
    ASSERT_TRUE(server.wait_for_connections(0));
    EXPECT_EQ(server.opens + server.describes, 0U);
    TestServer for_all(options(io::ClientCertificates::kNotAsked));
    RawClient client = for_all.connect_tcp();
    ASSERT_TRUE(client.greet());
    ASSERT_TRUE(client.start_tls(none));
    EXPECT_TRUE(go(&client));
}

TEST_F(NbdTls, UnixSocketsStayInTheClear) {
    TestServer server(options());
    RawClient client = server.connect();
    ASSERT_TRUE(client.greet());
    const auto answers = client.ask(Option::kStartTls);
    ASSERT_EQ(answers.size(), 1U);
    EXPECT_EQ(answers[0].type, OptionReply::kErrUnsupported);
    ASSERT_TRUE(go(&client));
    EXPECT_TRUE(client.read(0, 512));
}

TEST_F(NbdTls, OtherMachinesAreListenedToUnderTlsAlone) {
    TestServer with(options());
    EXPECT_TRUE(with.listen_tcp("0.0.0.0"));
    TestServer without;
    const auto refused = without.listen_tcp("0.0.0.0");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNotPermitted);
}

TEST_F(NbdTls, Hostile07AClientThatStallsInTlsIsClosedInTime) {
    TestServerOptions made = options();
    made.server.handshake_timeout = 300ms;
    TestServer server(made);
    RawClient silent = server.connect_tcp();
    ASSERT_TRUE(silent.greet());
    ASSERT_EQ(silent.ask(Option::kStartTls).at(0).type, OptionReply::kAck);
    RawClient after = connect(server);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(silent.drain_to_end());
    EXPECT_FALSE(after.receive(1));
    EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
    ASSERT_TRUE(server.wait_for_connections(0));
}

TEST_F(NbdTls, Hostile07StopEndsAClientInEachState) {
    for (const bool other_reactor : {false, true}) {
        TestServerOptions made = options();
        made.other_reactor = other_reactor;
        TestServer server(made);
        RawClient amid_tls = server.connect_tcp();
        ASSERT_TRUE(amid_tls.greet());
        ASSERT_EQ(amid_tls.ask(Option::kStartTls).at(0).type, OptionReply::kAck);
        ASSERT_TRUE(amid_tls.send(text("\x16\x03\x01")));
        RawClient begun = connect(server);
        RawClient idle = connect(server);
        ASSERT_TRUE(go(&idle));
        server.stop();
        EXPECT_TRUE(amid_tls.drain_to_end());
        EXPECT_TRUE(begun.is_closed()) << "an end that TLS tells";
        EXPECT_TRUE(idle.is_closed());
    }
}

TEST_F(NbdTls, StopAnswersWhatIsInFlight) {
    TestServer server(options());
    RawClient client = connect(server);
    ASSERT_TRUE(go(&client));
    server.disk().delay_ms = 200;
    ASSERT_TRUE(client.send(request(Command::kWrite, 7, 0, 4096) + pattern(4096, 5)));
    while (server.disk().in_flight < 1) std::this_thread::sleep_for(1ms);
    server.stop();
    const auto reply = client.reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->error, NbdError::kNone);
    EXPECT_TRUE(client.is_closed());
}

TEST_F(NbdTls, StopDoesNotWaitForAClientThatTakesNoReplies) {
    TestServerOptions made = options();
    made.server.drain_timeout = 200ms;
    TestServer server(made);
    RawClient client = connect(server);
    ASSERT_TRUE(go(&client));
    Bytes reads;
    for (std::uint64_t i = 0; i < 64; ++i)
        reads = std::move(reads) + request(Command::kRead, i, 0, 512 * 1024);
    ASSERT_TRUE(client.send(reads));
    std::this_thread::sleep_for(100ms);
    const auto start = std::chrono::steady_clock::now();
    server.stop();
    EXPECT_LT(std::chrono::steady_clock::now() - start, 10s);
}

TEST_F(NbdTls, Hostile18CloseWithRequestsInFlightHarmsNobodyElse) {
    TestServer server(options());
    for (int i = 0; i < 50; ++i) {
        RawClient client = connect(server);
        ASSERT_TRUE(go(&client));
        Bytes reads;
        for (std::uint64_t k = 0; k < 32; ++k)
            reads = std::move(reads) + request(Command::kRead, k, 0, 64 * 1024);
        ASSERT_TRUE(client.send(reads));
        if (i % 2 == 0) client.reset();
    }
    ASSERT_TRUE(server.wait_for_connections(0));
    expect_serving(server);
}

/// The whole of a client's side in the clear, and then TLS's, cut at each of its bytes.
TEST_F(NbdTls, Hostile11AnEndAtEachByteHarmsNobodyElse) {
    TestServer server(options());
    const Bytes all = be32(kFixedNewstyle | kNoZeroes) + option(Option::kStartTls) +
                      text("\x16\x03\x01\x02") + Bytes(40);
    for (std::size_t cut = 0; cut <= all.size(); ++cut) {
        RawClient client = server.connect_tcp();
        (void)client.receive(18);
        for (std::size_t at = 0; at < cut; ++at)
            if (!client.send({all[at]})) break;
        if (cut % 2 == 0) client.reset();
    }
    ASSERT_TRUE(server.wait_for_connections(0));
    expect_serving(server);
}

}  // namespace
}  // namespace ublkd::front::nbd::test
