// Goal: a socket under TLS does for its user what one in the clear does: all bytes in both
// directions at once, whatever the sizes and however full the way; waits that end when there is
// something, and only then; an end that is told from a cut. Method: both sides ours, with small
// socket buffers; then the openssl program, and a thread that does with OpenSSL what nobody should.
#include <gmock/gmock.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sstream>
#include <thread>

#include "tests/unit/io/tls_fixture.h"
#include "tests/unit/io/tls_program.h"
#include "ublkd/io/worker.h"

namespace ublkd::io {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using Bytes = std::vector<std::byte>;

class TlsStreamTest : public TlsTest {
  protected:
    int waiting_bytes(const Socket& socket) {
        int bytes = 0;
        EXPECT_EQ(::ioctl(socket.fd(), FIONREAD, &bytes), 0);
        return bytes;
    }
    void make_buffers_small(int bytes = 4096) {
        for (const int fd : {server_.fd(), client_.fd()}) {
            ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
            ASSERT_EQ(::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), 0);
        }
    }
    static Result<std::size_t> send(Socket* socket, const Bytes& bytes) {
        const iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
        return socket->try_send({&part, 1});
    }
    /// As s_client's input.
    void put_input(const std::string& text) { file("input", text); }
    std::string output() {
        std::ostringstream text;
        text << std::ifstream(folder() + "/output").rdbuf();
        return text.str();
    }
};

/// In parts of changing sizes, each time out of other memory.
Task<void> send_in_parts(Socket* socket, const Bytes* data, std::size_t* busy) {
    std::size_t sent = 0;
    for (unsigned turn = 0; sent < data->size(); ++turn) {
        const std::size_t window = std::min<std::size_t>(data->size() - sent, 100'000);
        const Bytes copy(data->begin() + static_cast<std::ptrdiff_t>(sent),
                         data->begin() + static_cast<std::ptrdiff_t>(sent + window));
        std::vector<iovec> parts;
        for (std::size_t at = 0; at < window;) {
            const std::size_t bytes =
                std::min<std::size_t>(window - at, (at * 7 + turn) % 3 == 0 ? 40'000 : 28);
            parts.push_back({const_cast<std::byte*>(copy.data() + at), bytes});
            if (parts.size() % 5 == 0) parts.push_back({nullptr, 0});
            at += bytes;
        }
        const auto put = socket->try_send(parts);
        if (put) {
            EXPECT_GT(*put, 0U);
            sent += *put;
            continue;
        }
        EXPECT_EQ(put.error().code, Errc::kBusy) << to_string(put.error());
        if (put.error().code != Errc::kBusy) co_return;
        ++*busy;
        const auto waited = co_await socket->wait_writable();
        EXPECT_TRUE(waited);
    }
}

Task<void> receive_in_parts(Socket* socket, Bytes* into) {
    std::size_t got = 0;
    for (unsigned turn = 0; got < into->size(); ++turn) {
        const std::size_t room = std::min<std::size_t>(into->size() - got, 1 + turn * 911 % 50'000);
        const iovec parts[2] = {{into->data() + got, room / 3},
                                {into->data() + got + room / 3, room - room / 3}};
        const auto taken = socket->try_receive(parts);
        if (taken) {
            EXPECT_GT(*taken, 0U);
            if (*taken == 0) co_return;
            got += *taken;
            continue;
        }
        EXPECT_EQ(taken.error().code, Errc::kBusy) << to_string(taken.error());
        if (taken.error().code != Errc::kBusy) co_return;
        const auto waited = co_await socket->wait_readable();
        EXPECT_TRUE(waited);
    }
}

Task<std::size_t> both_ways(Socket* one, Socket* other, std::size_t bytes) {
    const Bytes to_other = random_bytes(bytes, 1);
    const Bytes to_one = random_bytes(bytes, 2);
    Bytes at_one(bytes), at_other(bytes);
    std::size_t busy = 0;
    TaskGroup group;
    group.start(send_in_parts(one, &to_other, &busy));
    group.start(send_in_parts(other, &to_one, &busy));
    group.start(receive_in_parts(one, &at_one));
    group.start(receive_in_parts(other, &at_other));
    co_await group.wait();
    EXPECT_TRUE(at_one == to_one && at_other == to_other);
    co_return busy;
}

TEST_F(TlsStreamTest, AllBytesGoBothWaysAtOnceThroughSmallBuffers) {
    make_buffers_small();
    agree();
    const std::size_t busy = run(both_ways(&server_, &client_, 5'000'000));
    EXPECT_GT(busy, 100U);  // the ways were full
}

TEST_F(TlsStreamTest, KeysAreChangedAmongBytesBothWays) {
    make_buffers_small();
    TlsContext server = server_context(authority_.issue());
    TlsContext client = client_context(authority_.issue());
    server.set_records_per_key(2);
    client.set_records_per_key(3);
    const Outcome outcome = shake_hands(server, client);
    ASSERT_TRUE(*outcome.server && *outcome.client);
    run(both_ways(&server_, &client_, 2'000'000));
}

Task<void> send_everything(Socket* socket, const Bytes* data) {
    const auto sent = co_await socket->send_all(*data);
    EXPECT_TRUE(sent) << to_string(sent.error());
}

Task<void> receive_everything(Socket* socket, Bytes* into) {
    for (std::size_t got = 0; got < into->size();) {
        const auto taken = co_await socket->receive_some(std::span(*into).subspan(got));
        EXPECT_TRUE(taken && *taken > 0);
        if (!taken || *taken == 0) co_return;
        got += *taken;
    }
}

/// On its own thread and reactor, over TCP.
Task<void> live(Reactor* reactor, int fd, bool serves, TlsContext context) {
    constexpr std::size_t kBytes = 20'000'000;
    Socket socket(*reactor, fd);
    const auto peer = co_await socket.start_tls(context, soon());
    EXPECT_TRUE(peer) << to_string(peer.error());
    if (!peer) co_return;
    const Bytes out = random_bytes(kBytes, serves ? 1 : 2);
    const Bytes expected = random_bytes(kBytes, serves ? 2 : 1);
    Bytes in(kBytes);
    TaskGroup group;
    group.start(send_everything(&socket, &out));
    group.start(receive_everything(&socket, &in));
    co_await group.wait();
    EXPECT_TRUE(in == expected);
}

TEST_F(TlsStreamTest, AllBytesGoBothWaysBetweenTwoThreads) {
    auto listener = Listener::listen_tcp(*reactor_, "127.0.0.1", 0);
    ASSERT_TRUE(listener);
    auto connecting = Socket::connect_tcp(*reactor_, "127.0.0.1", listener->port());
    ASSERT_TRUE(connecting);
    auto accepted = run(listener->accept());
    ASSERT_TRUE(accepted);
    const int ends[2] = {connecting->leave().fd.release(), accepted->leave().fd.release()};
    const TlsContext client = client_context(authority_.issue());
    const TlsContext server = server_context(authority_.issue());
    const auto one = ReactorThread::start("connects", {.entries = 64});
    const auto other = ReactorThread::start("accepts", {.entries = 64});
    ASSERT_TRUE(one && other);
    std::thread first([&] {
        run_on((*one)->reactor(), [&] { return live(&(*one)->reactor(), ends[0], false, client); });
    });
    std::thread second([&] {
        run_on((*other)->reactor(),
               [&] { return live(&(*other)->reactor(), ends[1], true, server); });
    });
    first.join();
    second.join();
}

// ---- records

TEST_F(TlsStreamTest, SmallPartsBecomeOneRecord) {
    agree();
    const Bytes data = random_bytes(128 * 28, 3);
    std::vector<iovec> parts;
    for (std::size_t at = 0; at < data.size(); at += 28)
        parts.push_back({const_cast<std::byte*>(data.data() + at), 28});
    const auto put = client_.try_send(parts);
    ASSERT_TRUE(put);
    EXPECT_EQ(*put, data.size());
    EXPECT_EQ(waiting_bytes(server_), static_cast<int>(data.size()) + 5 + 1 + 16);
    Bytes in(data.size());
    const auto got = server_.try_receive(in);
    ASSERT_TRUE(got);
    EXPECT_EQ(*got, data.size());
    EXPECT_EQ(in, data);
}

TEST_F(TlsStreamTest, KeyIsChangedAfterSoManyRecords) {
    TlsContext client = client_context(authority_.issue());
    client.set_records_per_key(2);
    const Outcome outcome = shake_hands(server_context(authority_.issue()), client);
    ASSERT_TRUE(*outcome.server && *outcome.client);
    constexpr int kRecord = 10 + 5 + 1 + 16;
    constexpr int kKeyUpdate = 5 + 5 + 1 + 16;
    for (const int expected : {kRecord, 2 * kRecord, 3 * kRecord + kKeyUpdate,
                               4 * kRecord + kKeyUpdate, 5 * kRecord + 2 * kKeyUpdate}) {
        ASSERT_TRUE(send(&client_, random_bytes(10, 4)));
        EXPECT_EQ(waiting_bytes(server_), expected);
    }
}

TEST_F(TlsStreamTest, BytesThatTlsHasAlreadyAreNotWaitedFor) {
    agree();
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(send(&client_, random_bytes(10, 4)));
    run([](Reactor* reactor, Socket* socket) -> Task<void> {
        const std::uint64_t before = reactor->stats().submissions;
        std::byte byte[1];
        const auto first = co_await socket->wait_readable();
        EXPECT_TRUE(first);
        for (int i = 0; i < 100; ++i) {
            const auto waited = co_await socket->wait_readable();
            EXPECT_TRUE(waited);
            const auto got = socket->try_receive(byte);
            EXPECT_TRUE(got && *got == 1) << i;
        }
        const auto none = socket->try_receive(byte);
        EXPECT_FALSE(none);
        EXPECT_LE(reactor->stats().submissions - before, 2U);
    }(reactor_.get(), &server_));
}

TEST_F(TlsStreamTest, PartOfARecordIsWaitedForInTheKernel) {
    agree();
    // A record of the client's, and then only half of it for the server.
    ASSERT_TRUE(send(&client_, random_bytes(10'000, 5)));
    Bytes record(20'000);
    const ssize_t bytes = ::recv(server_.fd(), record.data(), record.size(), MSG_DONTWAIT);
    ASSERT_GT(bytes, 10'000);
    const auto half = static_cast<std::size_t>(bytes) / 2;
    ASSERT_EQ(::send(client_.fd(), record.data(), half, 0), static_cast<ssize_t>(half));
    run([](Reactor* reactor, Socket* server, int raw,
           std::span<const std::byte> rest) -> Task<void> {
        Bytes in(20'000);
        const auto none = server->try_receive(in);
        EXPECT_FALSE(none);
        bool readable = false;
        TaskGroup group;
        group.start([](Socket* socket, bool* done) -> Task<void> {
            const auto waited = co_await socket->wait_readable();
            EXPECT_TRUE(waited);
            *done = true;
        }(server, &readable));
        co_await reactor->sleep_for(20ms);
        EXPECT_FALSE(readable);
        EXPECT_EQ(::send(raw, rest.data(), rest.size(), 0), static_cast<ssize_t>(rest.size()));
        co_await group.wait();
        const auto got = server->try_receive(in);
        EXPECT_TRUE(got && *got == 10'000);
    }(reactor_.get(), &server_, client_.fd(),
                                            std::span<const std::byte>(record).subspan(
                                                half, static_cast<std::size_t>(bytes) - half)));
}

TEST_F(TlsStreamTest, FullWayTakesNoMoreThanItSays) {
    make_buffers_small(64 * 1024);
    agree();
    const Bytes data = random_bytes(1'000'000, 6);
    const auto put = send(&client_, data);
    ASSERT_TRUE(put);
    EXPECT_LT(*put, data.size());
    for (int i = 0; i < 3; ++i) {
        const auto busy =
            send(&client_, Bytes(data.begin() + static_cast<std::ptrdiff_t>(*put), data.end()));
        ASSERT_FALSE(busy);
        EXPECT_EQ(busy.error().code, Errc::kBusy);
    }
    // Less than what is encrypted already cannot be told from it: it is not taken.
    const auto less = send(&client_, random_bytes(5, 7));
    ASSERT_FALSE(less);
    EXPECT_EQ(less.error().code, Errc::kBusy);
    // What was said to be sent comes, and of the rest nothing whole.
    Bytes in(2'000'000);
    std::size_t got = 0;
    for (;;) {
        const auto taken = server_.try_receive(std::span(in).subspan(got));
        if (!taken) break;
        got += *taken;
    }
    EXPECT_EQ(got, *put);
    EXPECT_TRUE(
        std::equal(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(got), in.begin()));
}

TEST_F(TlsStreamTest, ChangedByteIsTold) {
    agree();
    ASSERT_TRUE(send(&client_, random_bytes(100, 8)));
    Bytes record(200);
    const ssize_t bytes = ::recv(server_.fd(), record.data(), record.size(), MSG_DONTWAIT);
    ASSERT_GT(bytes, 100);
    record[50] ^= std::byte{1};
    ASSERT_EQ(::send(client_.fd(), record.data(), static_cast<std::size_t>(bytes), 0), bytes);
    Bytes in(200);
    const auto got = server_.try_receive(in);
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, Errc::kCorrupt) << to_string(got.error());
}

// ---- the end

TEST_F(TlsStreamTest, EndInOrderIsNoError) {
    for (const bool by_shutdown : {true, false}) {
        connect_anew();
        agree();
        ASSERT_TRUE(send(&client_, random_bytes(100, 9)));
        if (by_shutdown) {
            client_.shutdown();
        } else {
            client_ = Socket();
        }
        Bytes in(200);
        const auto got = server_.try_receive(in);
        ASSERT_TRUE(got);
        EXPECT_EQ(*got, 100U);
        for (int i = 0; i < 2; ++i) {
            const auto waited = run(server_.wait_readable());
            EXPECT_TRUE(waited);
            const auto end = server_.try_receive(in);
            ASSERT_TRUE(end) << to_string(end.error());
            EXPECT_EQ(*end, 0U);
        }
    }
}

TEST_F(TlsStreamTest, CutIsAnError) {
    for (const bool in_a_record : {false, true}) {
        connect_anew();
        agree();
        ASSERT_TRUE(send(&client_, random_bytes(100, 10)));
        if (in_a_record) {
            ASSERT_EQ(::send(client_.fd(), "\x17\x03\x03\x01\x00xyz", 8, 0), 8);
        }
        ASSERT_EQ(::shutdown(client_.fd(), SHUT_WR), 0);  // beneath TLS
        Bytes in(200);
        const auto got = server_.try_receive(in);
        ASSERT_TRUE(got);
        EXPECT_EQ(*got, 100U);
        for (int i = 0; i < 2; ++i) {
            const auto end = run(server_.receive_some(in));
            ASSERT_FALSE(end);
            EXPECT_EQ(end.error().code, Errc::kClosed);
            EXPECT_THAT(end.error().where, HasSubstr("unexpected eof"));
        }
    }
}

/// A record that was cut is not followed by a promise that all was said.
TEST_F(TlsStreamTest, EndWhileARecordWaitsIsACut) {
    make_buffers_small(64 * 1024);
    agree();
    ASSERT_TRUE(send(&client_, random_bytes(1'000'000, 11)));
    client_.shutdown();
    Bytes in(2'000'000);
    for (;;) {
        const auto got = run(server_.receive_some(in));
        if (got && *got > 0) continue;
        ASSERT_FALSE(got);
        EXPECT_EQ(got.error().code, Errc::kClosed);
        break;
    }
}

TEST_F(TlsStreamTest, WhatCameBeforeTheEndIsReadAfterASendFailed) {
    agree();
    ASSERT_TRUE(send(&client_, random_bytes(100, 12)));
    client_ = Socket();
    const auto put = send(&server_, random_bytes(100, 13));
    ASSERT_FALSE(put);
    EXPECT_EQ(put.error().code, Errc::kClosed);
    EXPECT_EQ(put.error().sys_errno, EPIPE);
    Bytes in(200);
    const auto got = server_.try_receive(in);
    ASSERT_TRUE(got) << to_string(got.error());
    EXPECT_EQ(*got, 100U);
    const auto end = server_.try_receive(in);
    EXPECT_TRUE(end && *end == 0);
}

// ---- from one reactor to another

Task<void> take_over(Reactor* reactor, SocketInTransit* arriving, const Bytes* expected) {
    Socket socket(*reactor, std::move(*arriving));
    EXPECT_TRUE(socket.is_tls());
    Bytes in(expected->size());
    in[0] = (*expected)[0];
    for (std::size_t got = 1; got < in.size();) {
        const auto taken = co_await socket.receive_some(std::span(in).subspan(got));
        EXPECT_TRUE(taken && *taken > 0);
        if (!taken || *taken == 0) co_return;
        got += *taken;
    }
    EXPECT_EQ(in, *expected);
    const auto put = co_await socket.send_all(in);
    EXPECT_TRUE(put);
}

TEST_F(TlsStreamTest, SocketGoesToAnotherReactorWithWhatItHolds) {
    agree();
    const Bytes data = random_bytes(40'000, 14);
    ASSERT_TRUE(send(&client_, data));
    std::byte first[1];
    const auto got = server_.try_receive(first);  // and TLS has read ahead
    ASSERT_TRUE(got && *got == 1);
    SocketInTransit leaving = server_.leave();
    EXPECT_FALSE(server_.is_open() || server_.is_tls());
    const auto other = ReactorThread::start("other", {.entries = 64});
    ASSERT_TRUE(other);
    std::thread thread([&] {
        run_on((*other)->reactor(),
               [&] { return take_over(&(*other)->reactor(), &leaving, &data); });
    });
    thread.join();
    Bytes in(data.size());
    run(receive_everything(&client_, &in));
    EXPECT_EQ(in, data);
}

// ---- others

TEST_F(TlsStreamTest, ProgramsBytesComeAndGo) {
    std::string text;
    for (int i = 0; i < 20'000; ++i) text += "line " + std::to_string(i) + "\n";
    put_input(text);
    const TlsCertificates certificates = authority_.issue({.names = "URI:ublkd://program"});
    const auto client =
        s_client(reactor_.get(), &server_, folder(),
                 {"-CAfile", file("ca", certificates.authorities), "-verify_return_error", "-cert",
                  file("cert", certificates.certificate), "-key", file("key", certificates.key)});
    const auto peer = serve(server_context(authority_.issue()));
    ASSERT_TRUE(peer) << to_string(peer.error());
    EXPECT_EQ(peer->uris, std::vector<std::string>{"ublkd://program"});
    Bytes in(text.size());
    run(receive_everything(&server_, &in));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(in.data()), in.size()), text);
    run(send_everything(&server_, &in));
    server_ = Socket();
    EXPECT_GE(client->wait(), 0);  // 1 where its own end finds nobody any more
    EXPECT_THAT(output(), HasSubstr(text));
}

TEST_F(TlsStreamTest, ProgramServesUs) {
    const TlsCertificates certificates = authority_.issue({.names = "DNS:server.example"});
    std::uint16_t port = 0;
    const auto server = s_server(
        folder(),
        {"-cert", file("cert", certificates.certificate), "-key", file("key", certificates.key),
         "-CAfile", file("ca", certificates.authorities), "-Verify", "1", "-verify_return_error"},
        &port);
    auto socket = Socket::connect_tcp(*reactor_, "127.0.0.1", port);
    ASSERT_TRUE(socket);
    const auto peer = run(socket->start_tls(client_context(authority_.issue()), soon()));
    ASSERT_TRUE(peer) << to_string(peer.error());
    EXPECT_EQ(peer->dns_names, std::vector<std::string>{"server.example"});
    Bytes in(7);
    const std::string_view text = "abcdef\n";
    const Bytes out(reinterpret_cast<const std::byte*>(text.data()),
                    reinterpret_cast<const std::byte*>(text.data() + text.size()));
    run(send_everything(&*socket, &out));
    run(receive_everything(&*socket, &in));
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(in.data()), in.size()), "fedcba\n");
}

/// A client on a thread, by OpenSSL's own blocking calls.
class RawClient {
  public:
    explicit RawClient(Socket* socket)
        : fd_(socket->leave().fd), ctx_(SSL_CTX_new(TLS_client_method())), ssl_(SSL_new(ctx_)) {
        SSL_set_fd(ssl_, fd_.get());
    }
    RawClient(const RawClient&) = delete;
    RawClient& operator=(const RawClient&) = delete;
    ~RawClient() {
        SSL_free(ssl_);
        SSL_CTX_free(ctx_);
    }
    SSL* ssl() const { return ssl_; }

  private:
    Fd fd_;
    SSL_CTX* ctx_;
    SSL* ssl_;
};

/// It asks for a new key with each of its records, and reads little of what is sent meanwhile: what
/// TLS has to answer waits among the bytes that wait.
TEST_F(TlsStreamTest, KeyUpdatesThatAreAskedForAreAnsweredAmongBytes) {
    make_buffers_small();
    constexpr std::size_t kBytes = 1'000'000;
    const Bytes out = random_bytes(kBytes, 15);
    Bytes at_client(kBytes);
    const RawClient client(&client_);
    std::thread thread([&] {
        EXPECT_EQ(SSL_connect(client.ssl()), 1);
        const Bytes sent = random_bytes(kBytes, 16);
        std::size_t got = 0;
        for (std::size_t put = 0; put < kBytes || got < kBytes;) {
            if (put < kBytes) {
                EXPECT_EQ(SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
                const int once =
                    SSL_write(client.ssl(), sent.data() + put,
                              static_cast<int>(std::min<std::size_t>(5000, kBytes - put)));
                ASSERT_GT(once, 0);
                put += static_cast<std::size_t>(once);
            }
            if (got < kBytes) {
                const int once =
                    SSL_read(client.ssl(), at_client.data() + got,
                             static_cast<int>(std::min<std::size_t>(7000, kBytes - got)));
                ASSERT_GT(once, 0);
                got += static_cast<std::size_t>(once);
            }
        }
    });
    const auto peer = serve(server_context(authority_.issue(), ClientCertificates::kNotAsked));
    EXPECT_TRUE(peer) << to_string(peer.error());
    Bytes in(kBytes);
    std::size_t busy = 0;
    run([](Socket* socket, const Bytes* from, Bytes* into, std::size_t* full) -> Task<void> {
        TaskGroup group;
        group.start(send_in_parts(socket, from, full));
        group.start(receive_in_parts(socket, into));
        co_await group.wait();
    }(&server_, &out, &in, &busy));
    thread.join();
    EXPECT_EQ(in, random_bytes(kBytes, 16));
    EXPECT_EQ(at_client, out);
    EXPECT_GT(busy, 0U);
}

class TlsKeyUpdates : public TlsStreamTest {
  protected:
    /// A client that sends 6000 key updates (of 27 bytes) and an x, all of it before anything of it
    /// is received.
    void send_key_updates(int type) {
        raw_ = client_.fd();
        client_by_openssl_.emplace(&client_);
        SSL* const ssl = client_by_openssl_->ssl();
        std::thread thread([ssl] { EXPECT_EQ(SSL_connect(ssl), 1); });
        const auto peer = serve(server_context(authority_.issue(), ClientCertificates::kNotAsked));
        EXPECT_TRUE(peer) << to_string(peer.error());
        thread.join();
        BIO* const memory = BIO_new(BIO_s_mem());
        SSL_set0_wbio(ssl, memory);
        for (int i = 0; i < 6000; ++i) {
            ASSERT_EQ(SSL_key_update(ssl, type), 1);
            ASSERT_EQ(SSL_do_handshake(ssl), 1);
        }
        ASSERT_EQ(SSL_write(ssl, "x", 1), 1);
        char* said = nullptr;
        const long bytes = BIO_get_mem_data(memory, &said);
        ASSERT_EQ(::send(raw_, said, static_cast<std::size_t>(bytes), MSG_DONTWAIT), bytes);
    }
    std::optional<RawClient> client_by_openssl_;
    int raw_ = -1;
};

/// More of them than one call is to go through: it comes back, and says that there is more, so that
/// others on the reactor get their turn.
TEST_F(TlsKeyUpdates, WithoutEndDoNotStopTheReactor) {
    send_key_updates(SSL_KEY_UPDATE_NOT_REQUESTED);
    std::byte byte[1];
    const auto first = server_.try_receive(byte);
    ASSERT_FALSE(first);
    EXPECT_EQ(first.error().code, Errc::kBusy);
    EXPECT_EQ(server_.readable_events(), 0U);
    EXPECT_GT(waiting_bytes(server_), 0);
    const auto got = run(server_.receive_some(byte));
    EXPECT_TRUE(got && *got == 1 && byte[0] == std::byte{'x'});
}

/// Each is answered; a client that takes no answers is not read from until it does.
TEST_F(TlsKeyUpdates, ThatAreAskedForAreNotAnsweredWithoutEnd) {
    const int small = 4096;
    ASSERT_EQ(::setsockopt(server_.fd(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    send_key_updates(SSL_KEY_UPDATE_REQUESTED);
    std::byte byte[1];
    for (int i = 0; i < 10; ++i) {
        const auto none = server_.try_receive(byte);
        ASSERT_FALSE(none);
        EXPECT_EQ(none.error().code, Errc::kBusy);
    }
    EXPECT_EQ(server_.readable_events(), static_cast<unsigned>(POLLOUT));
    EXPECT_GT(waiting_bytes(server_), 0) << "it is not read from";
    run([](Reactor* reactor, Socket* socket, int raw) -> Task<void> {
        bool done = false;
        TaskGroup group;
        group.start([](Reactor* on, int fd, const bool* stop) -> Task<void> {
            std::array<std::byte, 65536> room;
            while (!*stop) {
                (void)::recv(fd, room.data(), room.size(), MSG_DONTWAIT);
                co_await on->sleep_for(1ms);
            }
        }(reactor, raw, &done));
        std::byte last[1];
        const auto got = co_await socket->receive_some(last);
        EXPECT_TRUE(got && *got == 1 && last[0] == std::byte{'x'});
        done = true;
        co_await group.wait();
    }(reactor_.get(), &server_, raw_));
}

}  // namespace
}  // namespace ublkd::io
