// Goal: who gets through a handshake and who does not, and that each refusal says why. Method: both
// sides ours where both have to be right; the openssl program, or bytes, where one of them is not.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/unit/io/tls_fixture.h"
#include "tests/unit/io/tls_program.h"

namespace ublkd::io {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class TlsHandshake : public TlsTest {
  protected:
    /// What the first receive says.
    Result<std::size_t> receive(Socket* socket) {
        std::byte byte[1];
        return run(socket->receive_some(byte));
    }
    void send_raw(std::string_view bytes) {
        ASSERT_EQ(::send(client_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(bytes.size()));
    }
};

TEST_F(TlsHandshake, EachSideLearnsWhoTheOtherIs) {
    const Outcome outcome = shake_hands(
        server_context(authority_.issue({.names = "URI:ublkd://host/1,DNS:one.example"})),
        client_context(
            authority_.issue({.names = "DNS:two.example,DNS:deux.example,URI:ublkd://host/2"})));
    ASSERT_TRUE(*outcome.server && *outcome.client);
    EXPECT_TRUE(server_.is_tls() && client_.is_tls());
    EXPECT_EQ((*outcome.client)->uris, std::vector<std::string>{"ublkd://host/1"});
    EXPECT_EQ((*outcome.client)->dns_names, std::vector<std::string>{"one.example"});
    EXPECT_EQ((*outcome.server)->uris, std::vector<std::string>{"ublkd://host/2"});
    EXPECT_EQ((*outcome.server)->dns_names,
              (std::vector<std::string>{"two.example", "deux.example"}));
    EXPECT_EQ((*outcome.server)->psk_identity, "");
}

TEST_F(TlsHandshake, CertificateWithoutNamesIsNobody) {
    const Outcome outcome = shake_hands(server_context(authority_.issue()),
                                        client_context(authority_.issue({.names = ""})));
    ASSERT_TRUE(*outcome.server);
    EXPECT_TRUE((*outcome.server)->uris.empty() && (*outcome.server)->dns_names.empty());
}

TEST_F(TlsHandshake, ClientOfAnotherAuthorityIsRefusedAndLearnsIt) {
    const TestAuthority other("other");
    TlsCertificates strangers = other.issue();
    strangers.authorities = authority_.certificate();
    const Outcome outcome =
        shake_hands(server_context(authority_.issue()), client_context(strangers));
    ASSERT_FALSE(*outcome.server);
    EXPECT_EQ(outcome.server->error().code, Errc::kNotPermitted);
    EXPECT_STREQ(outcome.server->error().where, "TLS: unable to get local issuer certificate");
    const auto told = receive(&client_);
    ASSERT_FALSE(told);
    EXPECT_EQ(told.error().code, Errc::kNotPermitted);
    EXPECT_THAT(told.error().where, HasSubstr("unknown ca"));
}

TEST_F(TlsHandshake, AuthorityOfTheSameNameIsAnother) {
    const TestAuthority other("authority");
    TlsCertificates strangers = other.issue();
    strangers.authorities = authority_.certificate();
    const Outcome outcome =
        shake_hands(server_context(authority_.issue()), client_context(strangers));
    ASSERT_FALSE(*outcome.server);
    EXPECT_EQ(outcome.server->error().code, Errc::kNotPermitted);
}

TEST_F(TlsHandshake, ServerOfAnotherAuthorityIsRefusedAndLearnsIt) {
    const TestAuthority other("other");
    TlsCertificates strangers = other.issue();
    strangers.authorities = authority_.certificate();
    const Outcome outcome =
        shake_hands(server_context(strangers), client_context(authority_.issue()));
    ASSERT_FALSE(*outcome.client);
    EXPECT_EQ(outcome.client->error().code, Errc::kNotPermitted);
    EXPECT_STREQ(outcome.client->error().where, "TLS: unable to get local issuer certificate");
    ASSERT_FALSE(*outcome.server);
    EXPECT_EQ(outcome.server->error().code, Errc::kNotPermitted);
    EXPECT_THAT(outcome.server->error().where, HasSubstr("unknown ca"));
}

TEST_F(TlsHandshake, SystemsAuthoritiesDoNotCount) {
    // As the system trusts it: by OpenSSL's environment, before anything is loaded.
    const TestAuthority other("other");
    ASSERT_EQ(setenv("SSL_CERT_FILE", file("system.pem", other.certificate()).c_str(), 1), 0);
    TlsCertificates strangers = other.issue();
    strangers.authorities = authority_.certificate();
    const Outcome outcome =
        shake_hands(server_context(strangers), client_context(authority_.issue()));
    unsetenv("SSL_CERT_FILE");
    ASSERT_FALSE(*outcome.client);
    EXPECT_EQ(outcome.client->error().code, Errc::kNotPermitted);
}

TEST_F(TlsHandshake, ExpiredAndFutureCertificatesAreRefused) {
    const TestAuthority::Wanted expired{.begins_in_days = -3, .ends_in_days = -2};
    Outcome outcome =
        shake_hands(server_context(authority_.issue()), client_context(authority_.issue(expired)));
    ASSERT_FALSE(*outcome.server);
    EXPECT_EQ(outcome.server->error().code, Errc::kNotPermitted);
    EXPECT_STREQ(outcome.server->error().where, "TLS: certificate has expired");
    connect_anew();
    outcome =
        shake_hands(server_context(authority_.issue(expired)), client_context(authority_.issue()));
    ASSERT_FALSE(*outcome.client);
    EXPECT_STREQ(outcome.client->error().where, "TLS: certificate has expired");
    connect_anew();
    const TestAuthority::Wanted future{.begins_in_days = 1, .ends_in_days = 2};
    outcome =
        shake_hands(server_context(authority_.issue()), client_context(authority_.issue(future)));
    ASSERT_FALSE(*outcome.server);
    EXPECT_STREQ(outcome.server->error().where, "TLS: certificate is not yet valid");
}

TEST_F(TlsHandshake, ProgramWithoutACertificateIsRefusedUnlessNoneIsAskedFor) {
    const std::string ca = file("ca.pem", authority_.certificate());
    {
        const auto client = s_client(reactor_.get(), &server_, folder(), {"-CAfile", ca});
        const Result<TlsPeer> peer = serve(server_context(authority_.issue()));
        ASSERT_FALSE(peer);
        EXPECT_EQ(peer.error().code, Errc::kNotPermitted);
        EXPECT_STREQ(peer.error().where, "TLS: peer did not return a certificate");
    }
    connect_anew();
    const auto client =
        s_client(reactor_.get(), &server_, folder(), {"-CAfile", ca, "-verify_return_error"});
    const Result<TlsPeer> peer =
        serve(server_context(authority_.issue(), ClientCertificates::kNotAsked));
    EXPECT_TRUE(peer) << to_string(peer.error());
}

TEST_F(TlsHandshake, OlderVersionsAreRefused) {
    for (const char* const version : {"-tls1", "-tls1_1", "-tls1_2"}) {
        connect_anew();
        const auto client =
            s_client(reactor_.get(), &server_, folder(), {version, "-cipher", "ALL:@SECLEVEL=0"});
        const Result<TlsPeer> peer =
            serve(server_context(authority_.issue(), ClientCertificates::kNotAsked));
        ASSERT_FALSE(peer) << version;
        EXPECT_EQ(peer.error().code, Errc::kProtocol) << version;
        EXPECT_STREQ(peer.error().where, "TLS: unsupported protocol") << version;
    }
}

TEST_F(TlsHandshake, OlderServersAreRefused) {
    const TlsCertificates certificates = authority_.issue();
    const std::string pem = file("server.pem", certificates.certificate + certificates.key);
    std::uint16_t port = 0;
    const auto server = s_server(folder(), {"-cert", pem, "-tls1_2"}, &port);
    auto socket = Socket::connect_tcp(*reactor_, "127.0.0.1", port);
    ASSERT_TRUE(socket);
    const Result<TlsPeer> peer = run(socket->start_tls(client_context(authority_.issue()), soon()));
    ASSERT_FALSE(peer);
    EXPECT_EQ(peer.error().code, Errc::kProtocol) << to_string(peer.error());
}

TEST_F(TlsHandshake, WhatIsNoTlsIsRefused) {
    for (const std::string& said :
         {std::string("GET / HTTP/1.1\r\nHost: here\r\n\r\n"), std::string(100'000, '\0'),
          std::string("\x16\x03\x01\xff\xff") + std::string(100'000, 'x'),
          std::string("NBDMAGICIHAVEOPT")}) {
        connect_anew();
        send_raw(said);
        const Result<TlsPeer> peer = serve(server_context(authority_.issue()));
        ASSERT_FALSE(peer);
        EXPECT_EQ(peer.error().code, Errc::kProtocol) << to_string(peer.error());
        EXPECT_EQ(std::string(peer.error().where).substr(0, 5), "TLS: ");
        // It stays refused.
        const auto after = receive(&server_);
        ASSERT_FALSE(after);
        EXPECT_EQ(after.error(), peer.error());
        const iovec part{const_cast<char*>("x"), 1};
        EXPECT_FALSE(server_.try_send({&part, 1}));
    }
}

TEST_F(TlsHandshake, SideThatStallsCostsNoMoreThanTheDeadline) {
    for (const std::string& said : {std::string(), std::string("\x16\x03\x01\x02\x00\x01", 6)}) {
        connect_anew();
        send_raw(said);
        const Clock::time_point begin = Clock::now();
        const Result<TlsPeer> peer = serve(server_context(authority_.issue()), begin + 50ms);
        ASSERT_FALSE(peer);
        EXPECT_EQ(peer.error().code, Errc::kTimedOut);
        EXPECT_GE(Clock::now() - begin, 50ms);
        EXPECT_LT(Clock::now() - begin, 5s);
    }
    connect_anew();
    const Result<TlsPeer> server =
        run(client_.start_tls(client_context(authority_.issue()), Clock::now() + 50ms));
    ASSERT_FALSE(server);
    EXPECT_EQ(server.error().code, Errc::kTimedOut);
}

Task<void> dribble(Reactor* reactor, int fd, bool* stop) {
    const std::string_view record("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
    for (std::size_t at = 0; !*stop; ++at) {
        const char byte = at < record.size() ? record[at] : 'x';
        (void)::send(fd, &byte, 1, MSG_NOSIGNAL);
        co_await reactor->sleep_for(2ms);
    }
}

TEST_F(TlsHandshake, SideThatDribblesCostsNoMoreThanTheDeadline) {
    run([](Reactor* reactor, Socket* server, int fd, TlsContext context) -> Task<void> {
        bool stop = false;
        TaskGroup group;
        group.start(dribble(reactor, fd, &stop));
        const Result<TlsPeer> peer =
            co_await server->start_tls(std::move(context), Clock::now() + 100ms);
        stop = true;
        co_await group.wait();
        EXPECT_FALSE(peer);
        if (!peer) {
            EXPECT_EQ(peer.error().code, Errc::kTimedOut);
        }
    }(reactor_.get(), &server_, client_.fd(), server_context(authority_.issue())));
}

TEST_F(TlsHandshake, ShutdownEndsIt) {
    run([](Reactor* reactor, Socket* server, TlsContext context) -> Task<void> {
        TaskGroup group;
        group.start([](Reactor* on, Socket* socket) -> Task<void> {
            co_await on->sleep_for(10ms);
            socket->shutdown();
        }(reactor, server));
        const Result<TlsPeer> peer = co_await server->start_tls(std::move(context), soon());
        co_await group.wait();
        EXPECT_FALSE(peer);
        if (!peer) {
            EXPECT_EQ(peer.error().code, Errc::kClosed);
        }
    }(reactor_.get(), &server_, server_context(authority_.issue())));
}

TEST_F(TlsHandshake, EndInTheMidstIsTold) {
    client_.close_now();
    const Result<TlsPeer> peer = serve(server_context(authority_.issue()));
    ASSERT_FALSE(peer);
    EXPECT_EQ(peer.error().code, Errc::kClosed);
}

TEST_F(TlsHandshake, WaitsForAConnectionThatIsBeingMade) {
    auto listener = Listener::listen_tcp(*reactor_, "127.0.0.1", 0);
    ASSERT_TRUE(listener);
    const std::uint16_t port = listener->port();
    auto connecting = Socket::connect_tcp(*reactor_, "127.0.0.1", port);
    ASSERT_TRUE(connecting);
    client_ = std::move(*connecting);
    auto accepted = run(listener->accept());
    ASSERT_TRUE(accepted);
    server_ = std::move(*accepted);
    agree();
    *listener = Listener();
    auto refused = Socket::connect_tcp(*reactor_, "127.0.0.1", port);
    if (!refused) return;  // at once: it is said there
    const Result<TlsPeer> peer =
        run(refused->start_tls(client_context(authority_.issue()), soon()));
    ASSERT_FALSE(peer);
    EXPECT_EQ(peer.error().code, Errc::kClosed) << to_string(peer.error());
}

// ---- keys that both sides know

constexpr const char* kKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

TlsContext psk_context() {
    auto keys =
        parse_psk_keys(std::string("alice:") + kKey + "\nbob:00112233445566778899aabbccddeeff\n");
    EXPECT_TRUE(keys);
    auto context = TlsContext::psk_server(*keys);
    EXPECT_TRUE(context);
    return *context;
}

TEST_F(TlsHandshake, ProgramWithAKnownKeyIsWhoItSays) {
    const auto client =
        s_client(reactor_.get(), &server_, folder(), {"-psk", kKey, "-psk_identity", "alice"});
    const Result<TlsPeer> peer = serve(psk_context());
    ASSERT_TRUE(peer) << to_string(peer.error());
    EXPECT_EQ(peer->psk_identity, "alice");
}

TEST_F(TlsHandshake, ProgramWithAWrongOrNoKeyIsRefused) {
    {
        const auto client =
            s_client(reactor_.get(), &server_, folder(), {"-psk", kKey, "-psk_identity", "bob"});
        const Result<TlsPeer> peer = serve(psk_context());
        ASSERT_FALSE(peer);
        EXPECT_EQ(peer.error().code, Errc::kNotPermitted) << to_string(peer.error());
    }
    for (const std::vector<std::string>& arguments :
         {std::vector<std::string>{"-psk", kKey, "-psk_identity", "eve"},
          std::vector<std::string>{}}) {
        connect_anew();
        const auto client = s_client(reactor_.get(), &server_, folder(), arguments);
        const Result<TlsPeer> peer = serve(psk_context());
        ASSERT_FALSE(peer);
        EXPECT_EQ(peer.error().code, Errc::kNotPermitted) << to_string(peer.error());
    }
}

TEST(TlsPsk, FileOfKeysIsReadLineByLine) {
    const auto keys = parse_psk_keys(
        "alice:000102030405060708090a0b0c0d0e0f\r\n"
        "\n"
        "with:colon:FFEEDDCCBBAA99887766554433221100\n"
        "#626f62:00000000000000000000000000000000");
    ASSERT_TRUE(keys) << keys.error();
    EXPECT_EQ(keys->size(), 3U);
    EXPECT_EQ(keys->at("alice")[1], std::byte{1});
    EXPECT_EQ(keys->at("with:colon")[0], std::byte{0xff});
    EXPECT_TRUE(keys->contains("bob"));
}

TEST(TlsPsk, WrongFilesOfKeysAreRefusedByTheirLine) {
    for (const auto& [text, why] : {
             std::pair{"", "no key in it"},
             std::pair{"\n\n", "no key in it"},
             std::pair{"alice", "line 1: not identity:key"},
             std::pair{":000102030405060708090a0b0c0d0e0f", "line 1: not identity:key"},
             std::pair{"\nalice:", "line 2: the key is not in hex"},
             std::pair{"alice:0001020304050607zz090a0b0c0d0e0f", "line 1: the key is not in hex"},
             std::pair{"alice:000102030405060708090a0b0c0d0e0", "line 1: the key is not in hex"},
             std::pair{"alice:0001020304050607", "line 1: a key has 16 to 512 bytes"},
             std::pair{"a:000102030405060708090a0b0c0d0e0f\na:000102030405060708090a0b0c0d0e0f",
                       "line 2: an identity that was there before"},
             std::pair{"#xx:000102030405060708090a0b0c0d0e0f",
                       "line 1: the identity behind # is not in hex"},
         }) {
        const auto keys = parse_psk_keys(text);
        ASSERT_FALSE(keys) << text;
        EXPECT_EQ(keys.error(), why);
    }
}

// ---- what a context is made of

TEST(TlsContextMade, WrongCertificatesAndKeysAreRefused) {
    const TestAuthority authority;
    const TlsCertificates good = authority.issue();
    const auto why = [](const TlsCertificates& certificates) -> std::string {
        const auto server = TlsContext::server(certificates);
        const auto client = TlsContext::client(certificates);
        EXPECT_EQ(server.has_value(), client.has_value());
        if (server) return "";
        EXPECT_EQ(server.error().code, Errc::kInvalidArgument);
        EXPECT_STREQ(server.error().where, client.error().where);
        return server.error().where;
    };
    EXPECT_EQ(why(good), "");
    TlsCertificates wrong = good;
    wrong.authorities = "no PEM";
    EXPECT_EQ(why(wrong), "TLS: the authorities' certificates are not PEM");
    wrong.authorities = good.authorities.substr(0, good.authorities.size() / 2);
    EXPECT_EQ(why(wrong), "TLS: the authorities' certificates are not PEM");
    wrong.authorities = good.authorities + good.authorities.substr(0, good.authorities.size() / 2);
    EXPECT_EQ(why(wrong), "TLS: the authorities' certificates are not PEM");
    wrong = good;
    wrong.certificate = "";
    EXPECT_EQ(why(wrong), "TLS: the certificate is not PEM");
    wrong = good;
    wrong.key = authority.issue().key;
    EXPECT_EQ(why(wrong), "TLS: the key is not the certificate's");
    wrong.key = good.certificate;
    EXPECT_EQ(why(wrong), "TLS: the key is not PEM, or has a password");
    wrong.key = with_password(good.key);  // and nobody is asked for it
    EXPECT_EQ(why(wrong), "TLS: the key is not PEM, or has a password");
    // Who asks for no certificates needs no authority.
    TlsCertificates none = good;
    none.authorities = "";
    EXPECT_TRUE(TlsContext::server(none, ClientCertificates::kNotAsked));
    EXPECT_FALSE(TlsContext::server(none));
    EXPECT_FALSE(TlsContext::psk_server({}));
}

TEST_F(TlsHandshake, FilesAreReadAndWrongOnesAreNamed) {
    const TlsCertificates good = authority_.issue();
    const TlsCertificateFiles files{.authorities = file("ca", good.authorities),
                                    .certificate = file("certificate", good.certificate),
                                    .key = file("key", good.key)};
    ASSERT_EQ(chmod(files.key.c_str(), 0640), 0);
    const auto read = read_tls_files(files);
    ASSERT_TRUE(read) << read.error();
    EXPECT_TRUE(TlsContext::server(*read));
    ASSERT_EQ(chmod(files.key.c_str(), 0644), 0);
    const auto open_to_all = read_tls_files(files);
    ASSERT_FALSE(open_to_all);
    EXPECT_EQ(open_to_all.error(), files.key + ": a key that everybody may read (chmod o-r)");
    const auto missing =
        read_tls_files({.authorities = "", .certificate = folder() + "/none", .key = ""});
    ASSERT_FALSE(missing);
    EXPECT_THAT(missing.error(), HasSubstr(folder() + "/none: "));
    EXPECT_THAT(missing.error(), HasSubstr("not_found"));
}

}  // namespace
}  // namespace ublkd::io
