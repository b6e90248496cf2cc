// Goal: a connection brings each message over, in both directions, and whatever the other side does
// (stops reading, stops talking, sends garbage, closes in the midst, sends without end) costs a
// bounded amount of memory, ends the connection with an error that says so, and leaves nothing
// behind. Method: real sockets; on the other side another connection, or a raw socket.
#include "ublkd/peer/connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <optional>

#include "tests/suites/seed.h"
#include "tests/unit/io/io_fixture.h"
#include "tests/unit/peer/messages.h"
#include "ublkd/peer/encode.h"
#include "ublkd/peer/greeting.h"

namespace ublkd::peer {
namespace {

using namespace test;
using namespace std::chrono_literals;
using replication::Message;
using replication::MessageType;
using replication::OpKind;

constexpr ConnectionLimits kQuick{.send_bytes = 256 * 1024,
                                  .receive_bytes = 256 * 1024,
                                  .alive_after = 20ms,
                                  .silence = 300ms,
                                  .stuck = 500ms};

/// Keeps what comes.
class Kept final : public Receiver {
  public:
    void on_message(const Message& message, Payload payload) override {
        fields.push_back(fields_of(message));
        if (keeps) payloads.push_back(std::move(payload));
    }
    std::span<std::byte> memory_for(const Message& answer, std::size_t) override {
        return answer.token == into_token ? into : std::span<std::byte>{};
    }
    void on_end(const Error& why) override { ended.push_back(why.code); }

    std::vector<std::map<std::string, std::string>> fields;
    std::vector<Payload> payloads;
    std::vector<Errc> ended;
    bool keeps = false;
    std::uint64_t into_token = 0;
    std::span<std::byte> into;
};

Message write_of(std::uint64_t token, std::span<const std::byte> data) {
    Message message;
    message.type = MessageType::kReplicate;
    message.kind = OpKind::kWrite;
    message.volume = kLimits.volume;
    message.from = ReplicaId(1);
    message.to = ReplicaId(2);
    message.token = token;
    message.range = {0, data.size()};
    message.data = data;
    return message;
}

Message plain(MessageType type, std::uint64_t token) {
    Message message;
    message.type = type;
    message.kind = type == MessageType::kReplicated ? OpKind::kWrite : OpKind{};
    message.volume = kLimits.volume;
    message.from = ReplicaId(2);
    message.to = ReplicaId(1);
    message.token = token;
    return message;
}

/// One that has heard a hello.
Greeted greeted() {
    Greeted greeted;
    std::size_t used = 0;
    const auto step = greeted.decoder.next(encode(hello_of(HostId(2))), used);
    EXPECT_TRUE(step);
    greeted.other = greeted.decoder.hello();
    greeted.agreed = {.version = kNewestVersion};
    return greeted;
}

class PeerConnection : public io::IoTest {
  protected:
    PeerConnection() : buffers_(std::move(*io::BufferPool::create(4 * kMiB))) {}
    ~PeerConnection() override {
        EXPECT_EQ(buffers_->free_bytes(), buffers_->capacity_bytes()) << "all memory came back";
    }

    static std::array<int, 2> unix_pair() {
        std::array<int, 2> ends{};
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
        return ends;
    }
    std::array<int, 2> tcp_pair() {
        auto listener = io::Listener::listen_tcp(*reactor_, "127.0.0.1", 0);
        EXPECT_TRUE(listener);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(listener->port());
        const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT_EQ(::connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof address),
                  0);
        auto accepted = run(listener->accept());
        EXPECT_TRUE(accepted);
        return {client, ::dup(accepted->fd())};
    }
    std::unique_ptr<Connection> connection(int fd, Receiver* receiver,
                                           const ConnectionLimits& limits = kQuick) {
        return std::make_unique<Connection>(io::Socket(*reactor_, fd), greeted(), kLimits, receiver,
                                            buffers_.get(), limits);
    }

    std::unique_ptr<io::BufferPool> buffers_;
};

/// One that does not come to its end is closed after a while, which no test expects.
io::Task<void> run_it(Connection* connection, std::optional<Error>* why) {
    struct Patience : io::Reactor::Timer {
        Connection* connection = nullptr;
    } patience;
    patience.connection = connection;
    patience.on_cqe = [](io::Completion* fired, int, std::uint32_t) noexcept {
        static_cast<Patience*>(fired)->connection->close(Reason::kBusy);
    };
    io::Reactor* const reactor = io::Reactor::current();
    reactor->start_timer(&patience, io::Clock::now() + 15s);
    why->emplace(co_await connection->run());
    reactor->cancel_timer(&patience);
}

/// Both run until `until` has been so (or for long), then the first one is closed.
io::Task<void> run_both(io::Reactor* reactor, Connection* one, Connection* other,
                        std::function<bool()> until, std::optional<Error>* why,
                        std::optional<Error>* other_why) {
    io::TaskGroup both;
    both.start(run_it(one, why));
    both.start(run_it(other, other_why));
    const io::Clock::time_point patience_ends = io::Clock::now() + 20s;
    while (!until() && io::Clock::now() < patience_ends && !*why && !*other_why)
        co_await reactor->sleep_for(1ms);
    EXPECT_TRUE(until());
    one->close(Reason::kStopping);
    co_await both.wait();
}

// ---- messages

io::Task<void> send_all_types(Connection* from, Kept* to, std::vector<Drawn>* sent) {
    for (const Drawn& drawn : *sent) {
        if (drawn.message.type == MessageType::kAnswer ||
            drawn.message.type == MessageType::kFetched) {
            to->into_token = drawn.message.token;
            to->into = {};
        }
        const Result<void> room = co_await from->wait_for_room(600 * 1024);
        EXPECT_TRUE(room);
        EXPECT_TRUE(from->send(drawn.message));
    }
}

TEST_F(PeerConnection, EachMessageComesOverInOrder) {
    SCOPED_TRACE(suites::seed_text());
    for (const bool tcp : {false, true}) {
        const std::array<int, 2> ends = tcp ? tcp_pair() : unix_pair();
        std::mt19937_64 random(suites::test_seed());
        std::vector<Drawn> sent;
        for (const TypeAndKind& one : all_types()) {
            for (const bool failed : {false, true}) {
                // Payloads of answers go to their asker's memory: the next test.
                Drawn drawn = draw(random, one.type, one.kind, failed);
                const bool answer =
                    one.type == MessageType::kAnswer || one.type == MessageType::kFetched;
                if (!answer || payload_of(drawn.message).empty()) sent.push_back(std::move(drawn));
            }
        }
        Kept kept_one, kept_other;
        const auto one = connection(ends[0], &kept_one);
        const auto other = connection(ends[1], &kept_other);
        std::optional<Error> why, other_why;
        io::TaskGroup sender;
        sender.start(send_all_types(one.get(), &kept_other, &sent));
        run(run_both(
            reactor_.get(), one.get(), other.get(),
            [&] { return kept_other.fields.size() == sent.size(); }, &why, &other_why));
        run([](io::TaskGroup* group) -> io::Task<void> { co_await group->wait(); }(&sender));
        ASSERT_EQ(kept_other.fields.size(), sent.size());
        for (std::size_t i = 0; i < sent.size(); ++i) {
            Message expected = sent[i].message;
            expected.route = 0;
            expected.data = payload_of(expected);
            ASSERT_EQ(kept_other.fields[i], fields_of(expected)) << i;
        }
        EXPECT_EQ(why->code, Errc::kCancelled);
        EXPECT_EQ(other_why->code, Errc::kClosed);
        EXPECT_STREQ(other_why->where, to_string(Reason::kStopping));
        EXPECT_EQ(kept_one.ended, std::vector{Errc::kCancelled});
        EXPECT_EQ(kept_other.ended, std::vector{Errc::kClosed});
    }
}

TEST_F(PeerConnection, WhatAReadGivesGoesStraightToItsAsker) {
    const std::array<int, 2> ends = tcp_pair();
    Kept kept_one, kept_other;
    const auto one = connection(ends[0], &kept_one);
    const auto other = connection(ends[1], &kept_other);
    Bytes into(kMaxIoBytes);
    kept_one.into = into;
    kept_one.into_token = 77;
    io::Buffer content = buffers_->try_acquire(kMaxIoBytes);
    ASSERT_TRUE(content);
    for (std::size_t i = 0; i < content.size(); ++i)
        content.data()[i] = static_cast<std::byte>(i * 7 + i / 4096);
    const Bytes expected(content.data(), content.data() + content.size());
    Message answer = plain(MessageType::kFetched, 77);
    answer.data = content.span();
    ASSERT_TRUE(other->send(answer, std::move(content)));
    std::optional<Error> why, other_why;
    run(run_both(
        reactor_.get(), one.get(), other.get(), [&] { return kept_one.fields.size() == 1; }, &why,
        &other_why));
    EXPECT_EQ(into, expected);
}

// ---- who takes nothing

/// Sends until it is not taken any more; says how much was.
std::size_t send_without_end(Connection* connection, std::span<const std::byte> data) {
    for (std::size_t count = 0;; ++count) {
        const Result<void> taken = connection->send(write_of(1 + count, data));
        if (taken) continue;
        EXPECT_EQ(taken.error().code, Errc::kExhausted);
        return count;
    }
}

io::Task<void> wait_for_room(Connection* connection, std::optional<Result<void>>* result) {
    result->emplace(co_await connection->wait_for_room(1));
}

io::Task<void> run_with_waiter(Connection* connection, std::optional<Error>* why,
                               std::optional<Result<void>>* room) {
    io::TaskGroup both;
    both.start(run_it(connection, why));
    both.start(wait_for_room(connection, room));
    co_await both.wait();
}

TEST_F(PeerConnection, APeerThatStopsReadingCostsABoundedAmountAndIsGivenUp) {
    for (const bool tcp : {false, true}) {
        const std::array<int, 2> ends = tcp ? tcp_pair() : unix_pair();
        Kept kept;
        const io::Clock::time_point begin = io::Clock::now();
        const auto one = connection(ends[0], &kept);
        const Bytes data(64 * 1024, std::byte{5});
        EXPECT_EQ(send_without_end(one.get(), data), 3U) << "256 KiB are room for three";
        EXPECT_LE(one->waiting_bytes(), kQuick.send_bytes);
        // What the socket takes makes room: as much again is taken, and so on until it takes none.
        std::optional<Error> why;
        std::optional<Result<void>> room;
        io::TaskGroup filler;
        filler.start([](Connection* connection, const Bytes* content) -> io::Task<void> {
            for (;;) {
                const Result<void> has = co_await connection->wait_for_room(65 * 1024);
                if (!has) co_return;
                (void)send_without_end(connection, *content);
                EXPECT_LE(connection->waiting_bytes(), kQuick.send_bytes);
            }
        }(one.get(), &data));
        run(run_with_waiter(one.get(), &why, &room));
        run([](io::TaskGroup* group) -> io::Task<void> { co_await group->wait(); }(&filler));
        EXPECT_EQ(why->code, Errc::kTimedOut);
        EXPECT_GE(io::Clock::now() - begin, kQuick.silence);
        EXPECT_EQ(one->waiting_bytes(), 0U);
        EXPECT_EQ(one->send(write_of(1, data)).error().code, Errc::kClosed);
        ::close(ends[1]);
    }
}

/// It says that it is there, and takes nothing: the socket's buffer stays full.
TEST_F(PeerConnection, APeerThatTalksAndDoesNotReadIsGivenUp) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    const auto one = connection(ends[0], &kept);
    const Bytes data(64 * 1024, std::byte{5});
    std::optional<Error> why;
    io::TaskGroup others;
    others.start([](Connection* connection, const Bytes* content) -> io::Task<void> {
        for (;;) {
            const Result<void> has = co_await connection->wait_for_room(65 * 1024);
            if (!has) co_return;
            (void)send_without_end(connection, *content);
        }
    }(one.get(), &data));
    others.start([](io::Reactor* reactor, int fd, std::optional<Error>* until) -> io::Task<void> {
        while (!*until) {
            (void)::send(fd, encode_alive(kNewestVersion).data(), kAliveBytes,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
            co_await reactor->sleep_for(10ms);
        }
    }(reactor_.get(), ends[1], &why));
    run(run_it(one.get(), &why));
    run([](io::TaskGroup* group) -> io::Task<void> { co_await group->wait(); }(&others));
    EXPECT_EQ(why->code, Errc::kTimedOut);
    EXPECT_STREQ(why->where, "peer: takes nothing");
    ::close(ends[1]);
}

// ---- who sends too much

TEST_F(PeerConnection, PayloadsThatAreNotGivenBackHoldTheirSenderUp) {
    const std::array<int, 2> ends = unix_pair();
    ConnectionLimits patient = kQuick;
    patient.send_bytes = 4 * kMiB;
    patient.stuck = 5s;
    Kept kept_one, kept_other;
    kept_other.keeps = true;
    const auto one = connection(ends[0], &kept_one, patient);
    const auto other = connection(ends[1], &kept_other);
    const Bytes data(64 * 1024, std::byte{5});
    constexpr std::size_t kMessages = 10;
    for (std::size_t i = 0; i < kMessages; ++i) ASSERT_TRUE(one->send(write_of(1 + i, data)));
    std::size_t most_kept = 0;
    std::optional<Error> why, other_why;
    io::TaskGroup giver;
    giver.start([](io::Reactor* reactor, Kept* kept, std::size_t* most,
                   std::optional<Error>* ended) -> io::Task<void> {
        while (kept->fields.size() < kMessages && !*ended) {
            // Longer than a silence, but it is this side that does not listen.
            co_await reactor->sleep_for(kQuick.silence + 100ms);
            *most = std::max(*most, kept->payloads.size());
            kept->payloads.clear();
        }
        kept->keeps = false;
        kept->payloads.clear();
    }(reactor_.get(), &kept_other, &most_kept, &why));
    run(run_both(
        reactor_.get(), one.get(), other.get(),
        [&] { return kept_other.fields.size() == kMessages; }, &why, &other_why));
    run([](io::TaskGroup* group) -> io::Task<void> { co_await group->wait(); }(&giver));
    EXPECT_EQ(most_kept, 4U) << "256 KiB are four payloads";
}

// ---- what a raw peer does

/// What `connection` ends with when the other side sends `bytes`, and closes where `closes`.
Error end_of(io::Reactor* reactor, Connection* connection, int peer,
             std::span<const std::byte> bytes, bool closes) {
    EXPECT_EQ(::send(peer, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    if (closes) ::shutdown(peer, SHUT_WR);
    std::optional<Error> why;
    reactor->run_until_complete(run_it(connection, &why));
    return *why;
}

/// The last frame that came.
std::optional<Refusal> refusal_at(int peer) {
    Bytes bytes(1 << 20);
    std::size_t have = 0;
    for (ssize_t got = 0;
         (got = ::recv(peer, bytes.data() + have, bytes.size() - have, MSG_DONTWAIT)) > 0;)
        have += static_cast<std::size_t>(got);
    if (have < kRefusalBytes) return std::nullopt;
    Decoder decoder;
    std::size_t used = 0;
    const auto step =
        decoder.next(std::span(bytes).subspan(have - kRefusalBytes, kRefusalBytes), used);
    if (!step || *step != Decoder::Step::kRefusal) return std::nullopt;
    return decoder.refusal();
}

TEST_F(PeerConnection, GarbageEndsItAndItsSenderIsTold) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    const auto one = connection(ends[0], &kept);
    const Bytes garbage(5000, std::byte{0x42});
    const Error why = end_of(reactor_.get(), one.get(), ends[1], garbage, false);
    EXPECT_EQ(why.code, Errc::kProtocol);
    EXPECT_STREQ(why.where, "frame: magic");
    ASSERT_TRUE(refusal_at(ends[1]));
    EXPECT_EQ(kept.fields.size(), 0U);
    ::close(ends[1]);
}

/// At every byte of a frame with parts, and of one with a payload.
TEST_F(PeerConnection, APeerThatClosesInTheMidstLeavesNothingBehind) {
    const Bytes data(1024, std::byte{3});
    Bytes stream = encoded(write_of(1, data));
    const std::size_t first = stream.size();
    const Bytes second = encoded(plain(MessageType::kReplicated, 5));
    stream.insert(stream.end(), second.begin(), second.end());
    std::vector<std::size_t> cuts{stream.size()};
    for (std::size_t bytes = 0; bytes < stream.size(); bytes += bytes < 260 ? 1 : 97)
        cuts.push_back(bytes);
    for (const std::size_t bytes : cuts) {
        const std::array<int, 2> ends = unix_pair();
        Kept kept;
        const auto one = connection(ends[0], &kept);
        const Error why =
            end_of(reactor_.get(), one.get(), ends[1], std::span(stream).first(bytes), true);
        EXPECT_EQ(why.code, Errc::kClosed) << bytes;
        EXPECT_EQ(kept.fields.size(), (bytes >= first ? 1U : 0U) + (bytes == stream.size() ? 1 : 0))
            << bytes;
        ::close(ends[1]);
        ASSERT_EQ(buffers_->free_bytes(), buffers_->capacity_bytes()) << bytes;
    }
}

TEST_F(PeerConnection, DataThatNobodyAskedForEndsIt) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    Bytes into(512);
    kept.into = into;
    kept.into_token = 7;
    const Bytes data(1024, std::byte{3});
    Message answer = plain(MessageType::kFetched, 7);  // asked for 512 bytes
    answer.data = data;
    const auto one = connection(ends[0], &kept);
    const Error why = end_of(reactor_.get(), one.get(), ends[1], encoded(answer), false);
    EXPECT_EQ(why.code, Errc::kProtocol);
    EXPECT_STREQ(why.where, "peer: data that nobody asked for");
    EXPECT_EQ(into, Bytes(512));
    ::close(ends[1]);
}

/// Its asker would give back the memory from which the rest of the question is still to be sent.
TEST_F(PeerConnection, AnAnswerToWhatWasNotSentYetEndsIt) {
    const std::array<int, 2> ends = unix_pair();
    ConnectionLimits patient = kQuick;
    patient.send_bytes = 4 * kMiB;
    Kept kept;
    const auto one = connection(ends[0], &kept, patient);
    const Bytes data(kMaxIoBytes, std::byte{3});
    for (std::uint64_t token = 1; token <= 4; ++token)
        ASSERT_TRUE(one->send(write_of(token, data)));
    const Error why = end_of(reactor_.get(), one.get(), ends[1],
                             encoded(plain(MessageType::kReplicated, 4)), false);
    EXPECT_EQ(why.code, Errc::kProtocol);
    EXPECT_STREQ(why.where, "peer: an answer to what it has not got");
    EXPECT_EQ(kept.fields.size(), 0U);
    ::close(ends[1]);
}

// ---- silence

TEST_F(PeerConnection, TwoThatHaveNothingToSayStayConnected) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept_one, kept_other;
    const auto one = connection(ends[0], &kept_one);
    const auto other = connection(ends[1], &kept_other);
    std::optional<Error> why, other_why;
    const io::Clock::time_point until = io::Clock::now() + 3 * kQuick.silence;
    run(run_both(
        reactor_.get(), one.get(), other.get(), [&] { return io::Clock::now() >= until; }, &why,
        &other_why));
    EXPECT_EQ(why->code, Errc::kCancelled);
}

TEST_F(PeerConnection, APeerThatSaysNothingIsGivenUp) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    const io::Clock::time_point begin = io::Clock::now();
    const auto one = connection(ends[0], &kept);
    const Error why = end_of(reactor_.get(), one.get(), ends[1], {}, false);
    EXPECT_EQ(why.code, Errc::kTimedOut);
    EXPECT_STREQ(why.where, "peer: silent");
    EXPECT_GE(io::Clock::now() - begin, kQuick.silence);
    ::close(ends[1]);
}

/// A reactor that a disk held up, or a process that was stopped, does not take its peers for dead.
TEST_F(PeerConnection, ATimeInWhichThisSideStoodStillIsNoSilence) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    const auto one = connection(ends[0], &kept);
    std::optional<Error> why;
    io::TaskGroup group;
    run([](io::TaskGroup* both, io::Reactor* reactor, Connection* connection,
           std::optional<Error>* ended) -> io::Task<void> {
        both->start(run_it(connection, ended));
        co_await reactor->sleep_for(5ms);
        ::usleep(500'000);
        co_await reactor->sleep_for(100ms);
        EXPECT_FALSE(*ended);
        connection->close(Reason::kStopping);
        co_await both->wait();
    }(&group, reactor_.get(), one.get(), &why));
    EXPECT_EQ(why->code, Errc::kCancelled);
    ::close(ends[1]);
}

// ---- close

TEST_F(PeerConnection, WhyItIsClosedIsHeardThoughSendingFailsFirst) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    const auto one = connection(ends[0], &kept);
    std::optional<Error> why;
    run([](io::Reactor* reactor, Connection* connection, int peer,
           std::optional<Error>* ended) -> io::Task<void> {
        io::TaskGroup group;
        group.start(run_it(connection, ended));
        co_await reactor->sleep_for(5ms);
        const auto refusal = encode(Refusal{.reason = Reason::kVolume});
        EXPECT_EQ(::send(peer, refusal.data(), refusal.size(), 0), 64);
        ::close(peer);
        // It leaves at the end of this turn, before the reactor looks at the socket.
        EXPECT_TRUE(connection->send(plain(MessageType::kReplicated, 1)));
        co_await group.wait();
    }(reactor_.get(), one.get(), ends[1], &why));
    EXPECT_EQ(why->code, Errc::kClosed);
    EXPECT_STREQ(why->where, to_string(Reason::kVolume));
}

TEST_F(PeerConnection, WhatWasNotSentWhenItIsClosedIsGivenBack) {
    const std::array<int, 2> ends = unix_pair();
    ConnectionLimits patient = kQuick;
    patient.send_bytes = 4 * kMiB;
    Kept kept;
    const auto one = connection(ends[0], &kept, patient);
    for (std::uint64_t token = 1; token <= 4; ++token) {
        io::Buffer content = buffers_->try_acquire(kMaxIoBytes);
        ASSERT_TRUE(content);
        std::ranges::fill(content.span(), std::byte{4});
        Message answer = plain(MessageType::kFetched, token);
        answer.data = content.span();
        ASSERT_TRUE(one->send(answer, std::move(content)));
    }
    one->close(Reason::kStopping);
    std::optional<Error> why;
    run(run_it(one.get(), &why));
    EXPECT_EQ(why->code, Errc::kCancelled);
    EXPECT_EQ(one->waiting_bytes(), 0U);
    ::close(ends[1]);
}

TEST_F(PeerConnection, TheEndWaitsForThePayloadsThatAreStillUsed) {
    const std::array<int, 2> ends = unix_pair();
    Kept kept;
    kept.keeps = true;
    const auto one = connection(ends[0], &kept);
    const Bytes data(4096, std::byte{3});
    const Bytes frame = encoded(write_of(1, data));
    ASSERT_EQ(::send(ends[1], frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
    ::close(ends[1]);
    std::optional<Error> why;
    run([](io::Reactor* reactor, Connection* connection, Kept* keeper,
           std::optional<Error>* ended) -> io::Task<void> {
        io::TaskGroup group;
        group.start(run_it(connection, ended));
        co_await reactor->sleep_for(50ms);
        EXPECT_FALSE(*ended);
        EXPECT_EQ(keeper->payloads.size(), 1U);
        keeper->payloads.clear();
        co_await group.wait();
    }(reactor_.get(), one.get(), &kept, &why));
    EXPECT_EQ(why->code, Errc::kClosed);
}

}  // namespace
}  // namespace ublkd::peer
