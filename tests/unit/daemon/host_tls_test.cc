// Goal: between hosts with certificates a connection is heard, and asked for, only by and from the
// host that it says it is. Method: a PeerListener with a reactor of its own, and a HostDirectory
// that connects to it, with certificates of which one thing is wrong.
#include "ublkd/daemon/host_tls.h"

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <future>
#include <optional>

#include "tests/unit/io/test_certificates.h"
#include "tests/unit/metadata/sqlite_fixture.h"
#include "ublkd/daemon/host_directory.h"
#include "ublkd/daemon/peer_listener.h"
#include "ublkd/io/worker.h"

namespace ublkd::daemon {
namespace {

using namespace std::chrono_literals;

constexpr HostId kFirstHost(1);
constexpr HostId kSecondHost(2);

HostTls tls_of(const io::TlsCertificates& certificates) {
    return {*io::TlsContext::server(certificates), *io::TlsContext::client(certificates)};
}

peer::Hello hello_of_one() {
    return {.cluster = ClusterId(7),
            .host = kFirstHost,
            .volume = VolumeId(5),
            .boot_id = {std::byte{1}},
            .attachment = {}};
}

io::Clock::time_point soon() { return io::Clock::now() + 5s; }

/// Connects, says hello, and waits for an answer.
io::Task<Result<void>> knock(HostDirectory* hosts, io::Reactor* reactor) {
    io::Socket socket;
    auto connecting = hosts->connect(&socket, reactor, kSecondHost, soon());
    CO_TRY(co_await connecting);
    auto greeting = peer::greet(&socket, hello_of_one(), soon());
    const auto greeted = co_await greeting;
    if (!greeted) co_return fail(greeted.error());
    co_return Result<void>{};
}

/// Connects and says hello.
io::Task<Result<void>> connect(HostDirectory* hosts, io::Reactor* reactor) {
    io::Socket socket;
    auto connecting = hosts->connect(&socket, reactor, kSecondHost, soon());
    CO_TRY(co_await connecting);
    const auto hello = encode(hello_of_one());
    co_return co_await socket.send_all(hello);
}

class HostTlsTest : public ::testing::Test {
  protected:
    HostTlsTest()
        : store_(std::move(*metadata::SqliteStore::open(folder_.file("metadata.db")))),
          thread_(std::move(*io::ReactorThread::start("hosts", {.entries = 256}))) {}

    /// Host two, as the metadata says, with these certificates.
    void listen(const io::TlsCertificates& certificates) {
        auto listening = PeerListener::listen(
            &thread_->reactor(), "127.0.0.1", 0, tls_of(certificates).accepting,
            [this](HeardPeer heard) { heard_.set_value(std::move(heard)); });
        ASSERT_TRUE(listening) << to_string(listening.error());
        listener_ = std::move(*listening);
        const std::string address = "127.0.0.1:" + std::to_string(listener_->port());
        ASSERT_TRUE(store_->write([&](metadata::Transaction& tx) -> Result<void> {
            metadata::HostRecord one{.id = kFirstHost, .name = "one"};
            metadata::HostRecord two{.id = kSecondHost, .name = "two", .address = address};
            TRY(tx.put(one));
            return tx.put(two);
        }));
    }
    std::unique_ptr<HostDirectory> directory(const io::TlsCertificates& certificates) {
        auto made = std::make_unique<HostDirectory>(store_.get(), tls_of(certificates));
        EXPECT_TRUE(made->refresh());
        return made;
    }
    io::TlsCertificates of(const std::string& host) {
        return authority_.issue({.names = "URI:ublkd:host:" + host});
    }
    /// What the listener gave; nothing where it has not, after it has ended.
    std::optional<HeardPeer> heard() {
        auto given = heard_.get_future();
        if (given.wait_for(0s) != std::future_status::ready) return std::nullopt;
        return given.get();
    }
    template <class Way>
    Result<void> connected_by(HostDirectory* hosts, Way way) {
        io::Reactor* const reactor = &thread_->reactor();
        return io::run_on(*reactor, [&] { return way(hosts, reactor); });
    }
    Fd connect_plainly() {
        Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_in far{};
        far.sin_family = AF_INET;
        far.sin_port = htons(listener_->port());
        far.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&far), sizeof far), 0);
        return socket;
    }
    /// How long until the other side has closed it.
    static std::chrono::milliseconds time_to_end(const Fd& socket) {
        const auto begin = io::Clock::now();
        std::array<char, 256> bytes{};
        while (::recv(socket.get(), bytes.data(), bytes.size(), 0) > 0) {
        }
        return std::chrono::duration_cast<std::chrono::milliseconds>(io::Clock::now() - begin);
    }

    metadata::test::TemporaryFolder folder_;
    io::TestAuthority authority_;
    std::unique_ptr<metadata::SqliteStore> store_;
    std::unique_ptr<io::ReactorThread> thread_;
    std::promise<HeardPeer> heard_;
    std::unique_ptr<PeerListener> listener_;
};

TEST_F(HostTlsTest, EachSideKnowsTheOtherByItsCertificate) {
    listen(of("two"));
    const auto hosts = directory(of("one"));
    const auto connected = connected_by(hosts.get(), &connect);
    ASSERT_TRUE(connected) << to_string(connected.error());
    auto given = heard_.get_future();
    ASSERT_EQ(given.wait_for(10s), std::future_status::ready);
    const HeardPeer heard = given.get();
    EXPECT_EQ(heard.greeted.other.host, kFirstHost);
    EXPECT_TRUE(hosts->has_proven(kFirstHost, heard.proven));
    EXPECT_FALSE(hosts->has_proven(kSecondHost, heard.proven)) << "one's certificate";
    EXPECT_FALSE(hosts->has_proven(HostId(3), heard.proven)) << "a host that nobody knows";
}

TEST_F(HostTlsTest, NobodyIsCertifiedByLess) {
    const auto peer = [](std::vector<std::string> uris, std::vector<std::string> names = {}) {
        return io::TlsPeer{std::move(uris), std::move(names), ""};
    };
    EXPECT_TRUE(is_certificate_of("one", peer({"ublkd:host:one"})));
    EXPECT_TRUE(is_certificate_of("one", peer({"spiffe://x/y", "ublkd:host:one"})));
    EXPECT_FALSE(is_certificate_of("one", peer({})));
    EXPECT_FALSE(is_certificate_of("one", peer({"ublkd:host:one2", "ublkd:host:on", "one"})));
    EXPECT_FALSE(is_certificate_of("one", peer({}, {"ublkd:host:one", "one"})));
    EXPECT_FALSE(is_certificate_of("", peer({"ublkd:host:"})));
}

TEST_F(HostTlsTest, AHostAtAnothersAddressIsNotTalkedTo) {
    listen(of("three"));
    const auto hosts = directory(of("one"));
    const auto connected = connected_by(hosts.get(), &connect);
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().code, Errc::kNotPermitted);
    listener_.reset();
    EXPECT_FALSE(heard());
}

TEST_F(HostTlsTest, AServerOfAnotherAuthorityIsNotTalkedTo) {
    const io::TestAuthority other;
    listen(other.issue({.names = "URI:ublkd:host:two"}));
    const auto hosts = directory(of("one"));
    const auto connected = connected_by(hosts.get(), &connect);
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().code, Errc::kNotPermitted);
    listener_.reset();
    EXPECT_FALSE(heard());
}

TEST_F(HostTlsTest, ACertificateOfAnotherAuthorityIsNotHeard) {
    listen(of("two"));
    const io::TestAuthority other;  // with the name of the one that counts
    io::TlsCertificates forged = other.issue({.names = "URI:ublkd:host:one"});
    forged.authorities = authority_.certificate();
    const auto hosts = directory(forged);
    const auto answered = connected_by(hosts.get(), &knock);
    ASSERT_FALSE(answered);
    EXPECT_NE(answered.error().code, Errc::kTimedOut) << "refused, and at once";
    listener_.reset();
    EXPECT_FALSE(heard());
}

TEST_F(HostTlsTest, WhoHasNoCertificateIsNotHeard) {
    listen(of("two"));
    const auto hello = encode(hello_of_one());
    {
        const Fd socket = connect_plainly();
        const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(
            SSL_CTX_new(TLS_client_method()), &SSL_CTX_free);
        const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), &SSL_free);
        SSL_set_fd(ssl.get(), socket.get());
        ASSERT_EQ(SSL_connect(ssl.get()), 1) << "its own side comes to an end";
        (void)SSL_write(ssl.get(), hello.data(), static_cast<int>(hello.size()));
        std::array<char, 256> bytes{};
        EXPECT_LE(SSL_read(ssl.get(), bytes.data(), bytes.size()), 0);
    }
    {
        const Fd socket = connect_plainly();
        ASSERT_GT(::send(socket.get(), hello.data(), hello.size(), MSG_NOSIGNAL), 0);
        EXPECT_LT(time_to_end(socket), 1500ms) << "not by the deadline";
    }
    listener_.reset();
    EXPECT_FALSE(heard());
}

TEST_F(HostTlsTest, WhoStallsIsDroppedAndHoldsUpAFewAtMost) {
    listen(of("two"));
    std::vector<Fd> silent;
    for (unsigned i = 0; i < 64; ++i) silent.push_back(connect_plainly());
    EXPECT_LT(time_to_end(connect_plainly()), 1500ms) << "too many at once";
    EXPECT_GT(time_to_end(silent.back()), 500ms) << "waited for";
    for (const Fd& socket : silent) EXPECT_LT(time_to_end(socket), 3000ms);
    const auto hosts = directory(of("one"));
    EXPECT_TRUE(connected_by(hosts.get(), &connect));
    auto given = heard_.get_future();
    EXPECT_EQ(given.wait_for(10s), std::future_status::ready);
}

}  // namespace
}  // namespace ublkd::daemon
