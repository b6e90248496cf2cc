// Goal: two sides that know nothing of each other but the socket, from the hello to the end: on two
// threads, each with its reactor, in the clear and under TLS; and in two processes, of which one is
// stopped in the midst and goes on when it has been given up. Method: one side asks, the other one
// answers each question.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <optional>
#include <thread>

#include "tests/unit/io/io_fixture.h"
#include "tests/unit/io/test_certificates.h"
#include "tests/unit/peer/messages.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/io/worker.h"
#include "ublkd/peer/connection.h"

namespace ublkd::peer {
namespace {

using namespace test;
using namespace std::chrono_literals;
using replication::Message;
using replication::MessageType;
using replication::OpKind;

constexpr std::size_t kOpen = 32;  // questions at a time

/// Asks until all has been answered: the checksum of what it sent comes back.
class Asker final : public Receiver {
  public:
    explicit Asker(std::uint64_t questions) : left_(questions) {}
    void ask() {
        while (left_ > 0 && open_.size() < kOpen) {
            const std::uint64_t token = left_--;
            Bytes& data = open_[token];
            data.assign(512 * (1 + token % 64), static_cast<std::byte>(token));
            Message message;
            message.type = MessageType::kReplicate;
            message.kind = OpKind::kWrite;
            message.volume = kLimits.volume;
            message.from = ReplicaId(1);
            message.to = ReplicaId(2);
            message.token = token;
            message.range = {0, data.size()};
            message.data = data;
            EXPECT_TRUE(connection->send(message));
        }
    }
    void on_message(const Message& message, Payload) override {
        const auto asked = open_.find(message.token);
        ASSERT_NE(asked, open_.end());
        EXPECT_EQ(message.value, crc32c(asked->second));
        open_.erase(asked);
        ++answered;
        ask();
        if (open_.empty()) connection->close(Reason::kStopping);
    }
    std::span<std::byte> memory_for(const Message&, std::size_t) override { return {}; }
    void on_end(const Error&) override {}

    Connection* connection = nullptr;
    std::uint64_t answered = 0;

  private:
    std::uint64_t left_;
    std::map<std::uint64_t, Bytes> open_;
};

class Answerer final : public Receiver {
  public:
    void on_message(const Message& message, Payload) override {
        Message answer;
        answer.type = MessageType::kReplicated;
        answer.kind = message.kind;
        answer.volume = message.volume;
        answer.from = message.to;
        answer.to = message.from;
        answer.token = message.token;
        answer.value = crc32c(message.data);
        (void)connection->send(answer);
    }
    std::span<std::byte> memory_for(const Message&, std::size_t) override { return {}; }
    void on_end(const Error&) override {}
    Connection* connection = nullptr;
};

/// One side, from its hello to its end. `side`: Asker or Answerer. `tls`: nobody's is in the clear.
template <class Side>
io::Task<Error> live(io::Reactor* reactor, int fd, bool connects, Side* side,
                     io::Clock::duration silence, io::TlsContext tls = {}) {
    const auto buffers = std::move(*io::BufferPool::create(4 * kMiB));
    io::Socket socket(*reactor, fd);
    if (tls) {
        const Result<io::TlsPeer> peer = co_await socket.start_tls(tls, io::Clock::now() + 10s);
        if (!peer) co_return peer.error();
        const std::string expected = connects ? "URI:ublkd://host/2" : "URI:ublkd://host/1";
        EXPECT_EQ("URI:" + peer->uris.at(0), expected);
    }
    const Hello own = hello_of(HostId(connects ? 1 : 2));
    std::optional<Result<Greeted>> greeted;
    if (connects) {
        greeted.emplace(co_await greet(&socket, own, io::Clock::now() + 10s));
    } else {
        greeted.emplace(co_await hear_hello(&socket, io::Clock::now() + 10s));
        if (*greeted) {
            const Result<void> answered =
                co_await answer_hello(&socket, &**greeted, own, io::Clock::now() + 10s);
            if (!answered) co_return answered.error();
        }
    }
    if (!*greeted) co_return greeted->error();
    Connection connection(std::move(socket), std::move(**greeted), kLimits, side, buffers.get(),
                          {.alive_after = silence / 10, .silence = silence});
    side->connection = &connection;
    if constexpr (std::is_same_v<Side, Asker>) side->ask();
    const Error why = co_await connection.run();
    EXPECT_EQ(buffers->free_bytes(), buffers->capacity_bytes());
    co_return why;
}

std::array<int, 2> tcp_pair() {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener, any, length), 0);
    EXPECT_EQ(::listen(listener, 1), 0);
    EXPECT_EQ(::getsockname(listener, any, &length), 0);
    const int one = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::connect(one, any, length), 0);
    const int other = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    EXPECT_GE(other, 0);
    ::close(listener);
    return {one, other};
}

void ask_between_two_threads(const io::TlsContext& asks, const io::TlsContext& answers) {
    constexpr std::uint64_t kQuestions = 3000;
    const std::array<int, 2> ends = tcp_pair();
    const auto one = io::ReactorThread::start("asks", {.entries = 64});
    const auto other = io::ReactorThread::start("answers", {.entries = 64});
    ASSERT_TRUE(one && other);
    Asker asker(kQuestions);
    Answerer answerer;
    std::optional<Error> why, other_why;
    std::thread second([&] {
        other_why = io::run_on((*other)->reactor(), [&] {
            return live(&(*other)->reactor(), ends[1], false, &answerer, 20s, answers);
        });
    });
    why = io::run_on((*one)->reactor(),
                     [&] { return live(&(*one)->reactor(), ends[0], true, &asker, 20s, asks); });
    second.join();
    EXPECT_EQ(asker.answered, kQuestions);
    EXPECT_EQ(why->code, Errc::kCancelled);
    EXPECT_EQ(other_why->code, Errc::kClosed) << to_string(*other_why);
}

TEST(PeerTwoSides, EachQuestionIsAnsweredBetweenTwoThreads) { ask_between_two_threads({}, {}); }

TEST(PeerTwoSides, EachQuestionIsAnsweredUnderTls) {
    const io::TestAuthority authority;
    const auto one = io::TlsContext::client(authority.issue({.names = "URI:ublkd://host/1"}));
    const auto other = io::TlsContext::server(authority.issue({.names = "URI:ublkd://host/2"}));
    ASSERT_TRUE(one && other);
    ask_between_two_threads(*one, *other);
}

/// A host whose certificate is another authority's gets no hello, and learns why.
TEST(PeerTwoSides, HostOfAnotherAuthorityHearsNoHello) {
    const io::TestAuthority authority, stranger("stranger");
    io::TlsCertificates strangers = stranger.issue({.names = "URI:ublkd://host/1"});
    strangers.authorities = authority.certificate();
    const auto one = io::TlsContext::client(strangers);
    const auto other = io::TlsContext::server(authority.issue({.names = "URI:ublkd://host/2"}));
    ASSERT_TRUE(one && other);
    const std::array<int, 2> ends = tcp_pair();
    auto reactor = std::move(*io::Reactor::create({.entries = 64}));
    Asker asker(1);
    Answerer answerer;
    std::optional<Error> why, other_why;
    const auto keep = []<class Side>(io::Reactor* on, int fd, bool connects, Side* side,
                                     io::TlsContext tls,
                                     std::optional<Error>* result) -> io::Task<void> {
        result->emplace(co_await live(on, fd, connects, side, 20s, std::move(tls)));
    };
    io::TaskGroup group;
    group.start(keep(reactor.get(), ends[0], true, &asker, *one, &why));
    group.start(keep(reactor.get(), ends[1], false, &answerer, *other, &other_why));
    reactor->run_until_complete(
        [](io::TaskGroup* both) -> io::Task<void> { co_await both->wait(); }(&group));
    EXPECT_EQ(why->code, Errc::kNotPermitted) << to_string(*why);
    EXPECT_EQ(other_why->code, Errc::kNotPermitted) << to_string(*other_why);
}

/// It is given up within the time for a silence, though the kernel goes on taking what is sent to
/// it; and when it runs again it learns that, and is not taken for an error of its own.
TEST(PeerTwoSides, AProcessThatIsStoppedIsGivenUpAndLearnsOfItLater) {
    const std::array<int, 2> ends = tcp_pair();
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        ::close(ends[0]);
        auto reactor = io::Reactor::create({.entries = 64});
        Answerer answerer;
        if (!reactor) ::_exit(2);
        const Error why =
            (*reactor)->run_until_complete(live(reactor->get(), ends[1], false, &answerer, 20s));
        const bool closed =
            why.code == Errc::kClosed || why.sys_errno == ECONNRESET || why.sys_errno == EPIPE;
        ::_exit(closed ? 0 : 1);
    }
    ::close(ends[1]);
    auto reactor = std::move(*io::Reactor::create({.entries = 64}));
    Asker asker(UINT32_MAX);  // more than will be answered
    std::optional<Error> why;
    io::Clock::time_point stopped;
    std::uint64_t before = 0;
    reactor->run_until_complete([](io::Reactor* mine, int fd, Asker* asks, pid_t other,
                                   std::optional<Error>* ended, io::Clock::time_point* when,
                                   std::uint64_t* answered) -> io::Task<void> {
        io::TaskGroup group;
        group.start([](io::Reactor* on, int socket, Asker* side,
                       std::optional<Error>* result) -> io::Task<void> {
            result->emplace(co_await live(on, socket, true, side, 400ms));
        }(mine, fd, asks, ended));
        while (asks->answered < 500 && !*ended) co_await mine->sleep_for(1ms);
        EXPECT_EQ(::kill(other, SIGSTOP), 0);
        *when = io::Clock::now();
        *answered = asks->answered;
        co_await group.wait();
    }(reactor.get(), ends[0], &asker, child, &why, &stopped, &before));
    const auto after = io::Clock::now() - stopped;
    EXPECT_GE(before, 500U);
    EXPECT_EQ(why->code, Errc::kTimedOut) << to_string(*why);
    EXPECT_LT(after, 5s);
    ASSERT_EQ(::kill(child, SIGCONT), 0);
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace ublkd::peer
