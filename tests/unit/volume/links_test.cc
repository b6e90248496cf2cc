// Goal: what a host asked over an older connection is over before anything is heard over its newer
// one: two joins under one number are told apart by nothing else (docs/replication.md). Method:
// real sockets, whose other ends send frames of the codec; a user that writes down what it is told.
#include "ublkd/volume/links.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/io/io_fixture.h"
#include "tests/unit/peer/messages.h"
#include "ublkd/base/fd.h"
#include "ublkd/replication/questions.h"

namespace ublkd::volume {
namespace {

using namespace peer::test;
using namespace std::chrono_literals;
using replication::Message;
using replication::MessageType;

constexpr AttachmentId kAttachment{7};
constexpr HostId kOther{2};

/// Answers nothing.
class Listener final : public LinkUser {
  public:
    bool on_asked(HostId, const Message& question) override {
        told.push_back(fmt::format("asked {}", question.token));
        routes[question.route] = question.token;
        return true;
    }
    void on_answered(const Message&) override { told.emplace_back("answered"); }
    void on_host_lost(Asker, HostId) override { told.emplace_back("lost"); }
    bool on_asker_gone(ReplicaId, std::uint64_t route) override {
        told.push_back(fmt::format("gone {}", routes[route]));
        return true;
    }
    std::vector<std::string> told;
    std::map<std::uint64_t, std::uint64_t> routes;
};

class LinksTest : public io::IoTest {
  protected:
    LinksTest()
        : buffers_(std::move(*io::BufferPool::create(4 * kMiB))),
          links_(reactor_.get(), buffers_.get(),
                 LinksConfig{.own = hello_of(HostId(1)), .limits = kLimits, .connect = {}},
                 &user_) {}
    ~LinksTest() override { run(links_.stop()); }

    /// A connection of the other host's members, or of its client; what is returned is its end.
    Fd connect(AttachmentId attachment) {
        std::array<int, 2> ends{};
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
        peer::Greeted greeted;
        std::size_t used = 0;
        peer::Hello hello = hello_of(kOther);
        hello.attachment = attachment;
        EXPECT_TRUE(greeted.decoder.next(encode(hello), used));
        greeted.other = greeted.decoder.hello();
        greeted.agreed = {.version = peer::kNewestVersion};
        accepting_ = io::Socket(*reactor_, ends[0]);
        greeted_ = std::move(greeted);
        return Fd(ends[1]);
    }
    void accept() { links_.accept(std::move(accepting_), std::move(greeted_)); }

    static void ask(const Fd& end, AttachmentId attachment, std::uint64_t token) {
        Message question;
        question.type = attachment ? MessageType::kRequest : MessageType::kConfirm;
        if (attachment) {
            question.kind = replication::OpKind::kFlush;
            question.attachment = attachment;
        } else {
            question.from = ReplicaId(5);
        }
        question.volume = kLimits.volume;
        question.to = ReplicaId(6);
        question.token = token;
        const Bytes frame = encoded(question);
        EXPECT_EQ(::send(end.get(), frame.data(), frame.size(), 0), ssize_t(frame.size()));
    }
    io::Task<void> sleep() { co_await reactor_->sleep_for(20ms); }
    void some_turns() { run(sleep()); }

    void older_one_is_over(AttachmentId attachment, const std::vector<std::string>& told) {
        const Fd older = connect(attachment);
        accept();
        ask(older, attachment, 1);
        some_turns();
        EXPECT_EQ(user_.told, std::vector<std::string>{"asked 1"});
        const Fd newer = connect(attachment);
        ask(newer, attachment, 2);
        ask(older, attachment, 3);
        accept();
        some_turns();
        EXPECT_EQ(user_.told, told);
    }

    std::unique_ptr<io::BufferPool> buffers_;
    Listener user_;
    Links links_;
    io::Socket accepting_;
    peer::Greeted greeted_;
};

TEST_F(LinksTest, AClientsOlderConnectionIsOverBeforeItsNewerOneIsHeard) {
    older_one_is_over(kAttachment, {"asked 1", "gone 1", "asked 2"});
}

TEST_F(LinksTest, AHostsOlderConnectionIsOverBeforeItsNewerOneIsHeard) {
    older_one_is_over({}, {"asked 1", "asked 2"});
}

TEST_F(LinksTest, OthersConnectionsStay) {
    const Fd client = connect(kAttachment);
    accept();
    const Fd members = connect({});
    accept();
    const Fd other_client = connect(AttachmentId(8));
    accept();
    ask(client, kAttachment, 1);
    some_turns();
    ask(members, {}, 2);
    some_turns();
    ask(other_client, AttachmentId(8), 3);
    some_turns();
    EXPECT_EQ(user_.told, (std::vector<std::string>{"asked 1", "asked 2", "asked 3"}));
}

TEST_F(LinksTest, OneThatIsReplacedAtOnceWithAQuestionUnderWayEndsInOrder) {
    const Fd older = connect(kAttachment);
    accept();
    Message ping;
    ping.type = MessageType::kPing;
    ping.volume = kLimits.volume;
    ping.from = ReplicaId(6);
    ping.attachment = kAttachment;
    ping.token = 9;
    links_.ask_client(ping);
    const Fd newer = connect(kAttachment);
    accept();
    some_turns();
    EXPECT_EQ(user_.told, std::vector<std::string>{"answered"}) << "that there is no answer";
    ask(newer, kAttachment, 2);
    some_turns();
    EXPECT_EQ(user_.told.back(), "asked 2");
}

/// Of one side of a pair.
class Side final : public LinkUser {
  public:
    bool on_asked(HostId, const Message& question) override {
        asked.push_back(question);
        return admits;
    }
    void on_answered(const Message& answer) override { answered.push_back(answer); }
    void on_host_lost(Asker, HostId) override { ++lost; }
    bool on_asker_gone(ReplicaId, std::uint64_t route) override {
        gone.push_back(route);
        return true;
    }
    std::vector<Message> asked;
    std::vector<Message> answered;
    std::vector<std::uint64_t> gone;
    unsigned lost = 0;
    bool admits = true;
};

/// Two hosts: the first one asks.
class LinkPairTest : public io::IoTest {
  protected:
    LinkPairTest()
        : buffers_(std::move(*io::BufferPool::create(64 * kMiB))),
          asking_(reactor_.get(), buffers_.get(), config(HostId(1)), &asker_),
          answering_(reactor_.get(), buffers_.get(), config(kOther), &answerer_) {}
    ~LinkPairTest() override {
        run(asking_.stop());
        run(answering_.stop());
        run(accepting_.close());
    }

    LinksConfig config(HostId host) {
        peer::Hello own = hello_of(host);
        own.attachment = host == kOther ? AttachmentId() : kAttachment;
        return {.own = own,
                .limits = kLimits,
                .connect = [this](io::Socket* into, io::Reactor*, HostId, auto) {
                    return connect(into);
                }};
    }
    io::Task<Result<void>> connect(io::Socket* into) {
        std::array<int, 2> ends{};
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
        io::spawn(accepting_, accept(io::Socket(*reactor_, ends[1])));
        *into = io::Socket(*reactor_, ends[0]);
        co_return Result<void>{};
    }
    io::Task<void> accept(io::Socket socket) {
        const auto limit = io::Clock::now() + 2s;
        auto hearing = peer::hear_hello(&socket, limit);
        auto greeted = co_await hearing;
        EXPECT_TRUE(greeted);
        auto answering = peer::answer_hello(&socket, &*greeted, hello_of(kOther), limit);
        EXPECT_TRUE(co_await answering);
        answering_.accept(std::move(socket), std::move(*greeted));
    }

    static Message request(replication::OpKind kind, std::uint64_t token, Range range = {}) {
        Message message;
        message.type = MessageType::kRequest;
        message.kind = kind;
        message.volume = kLimits.volume;
        message.to = ReplicaId(6);
        message.attachment = kAttachment;
        message.token = token;
        message.range = range;
        return message;
    }
    static Message of_member(MessageType type, std::uint64_t value) {
        Message message;
        message.type = type;
        message.volume = kLimits.volume;
        message.from = ReplicaId(5);
        message.to = ReplicaId(6);
        message.value = value;
        return message;
    }
    void answer(const Message& question, MessageType type) {
        Message answer = replication::answer_to(question, type);
        answer.route = question.route;
        answering_.answer(answer);
    }
    io::Task<void> sleep(std::chrono::milliseconds time) { co_await reactor_->sleep_for(time); }
    void some_turns() { run(sleep(30ms)); }

    std::unique_ptr<io::BufferPool> buffers_;
    io::Gate accepting_;
    Side asker_;
    Side answerer_;
    Links asking_;
    Links answering_;
};

TEST_F(LinkPairTest, QuestionsOfOneNodeWithoutTokensGetTheirOwnAnswers) {
    asking_.ask(Asker::kMembers, kOther, of_member(MessageType::kMark, 1));
    asking_.ask(Asker::kMembers, kOther, of_member(MessageType::kConfirm, 2));
    asking_.ask(Asker::kMembers, kOther, of_member(MessageType::kConfirm, 3));
    some_turns();
    ASSERT_EQ(answerer_.asked.size(), 3U);
    answer(answerer_.asked[2], MessageType::kConfirmed);
    answer(answerer_.asked[0], MessageType::kMarked);
    answer(answerer_.asked[1], MessageType::kConfirmed);
    some_turns();
    ASSERT_EQ(asker_.answered.size(), 3U);
    EXPECT_EQ(asker_.answered[0].value, 3U);
    EXPECT_EQ(asker_.answered[1].value, 1U);
    EXPECT_EQ(asker_.answered[2].value, 2U);
    for (const Message& answer : asker_.answered) EXPECT_EQ(answer.token, 0U) << "as it was asked";
    EXPECT_EQ(asker_.lost, 0U);
}

TEST_F(LinkPairTest, EachOfThoseQuestionsIsToldThatThereIsNoAnswer) {
    for (const std::uint64_t value : {1U, 2U, 3U})
        asking_.ask(Asker::kMembers, kOther, of_member(MessageType::kConfirm, value));
    some_turns();
    answerer_.admits = false;  // what comes next ends the connection
    asking_.ask(Asker::kMembers, kOther, of_member(MessageType::kConfirm, 4));
    some_turns();
    EXPECT_EQ(asker_.answered.size(), 4U);
    for (const Message& answer : asker_.answered) EXPECT_TRUE(answer.failed);
    EXPECT_EQ(asker_.lost, 1U);
}

/// The core makes a flush of a retried change with FUA.
TEST_F(LinkPairTest, AnAnswerIsOfTheKindThatWasAsked) {
    asking_.ask(Asker::kClient, kOther, request(replication::OpKind::kDiscard, 3, {0, 4096}));
    some_turns();
    ASSERT_EQ(answerer_.asked.size(), 1U);
    Message answer = replication::answer_to(answerer_.asked[0], MessageType::kAnswer);
    answer.route = answerer_.asked[0].route;
    answer.kind = replication::OpKind::kFlush;
    answering_.answer(answer);
    some_turns();
    ASSERT_EQ(asker_.answered.size(), 1U);
    EXPECT_EQ(asker_.answered[0].kind, replication::OpKind::kDiscard);
    EXPECT_EQ(asker_.answered[0].token, 3U);
    EXPECT_EQ(asker_.lost, 0U);
}

TEST_F(LinkPairTest, AHoldThatWasAnsweredIsOverWithItsConnection) {
    for (const std::uint64_t token : {3U, 11U}) {
        asking_.ask(Asker::kClient, kOther, request(replication::OpKind::kHold, token, {0, 4096}));
        some_turns();
        answer(answerer_.asked.back(), MessageType::kAnswer);
    }
    some_turns();
    ASSERT_EQ(asker_.answered.size(), 2U);
    const std::uint64_t second = answerer_.asked.back().route;
    Message release = request(replication::OpKind::kHold, 3);
    release.type = MessageType::kRelease;
    asking_.ask(Asker::kClient, kOther, release);
    some_turns();
    EXPECT_EQ(answerer_.asked.back().type, MessageType::kRelease);
    EXPECT_TRUE(answerer_.gone.empty());
    asking_.close_client(kOther);
    some_turns();
    EXPECT_EQ(answerer_.gone, std::vector<std::uint64_t>{second}) << "the other one was released";
}

/// More than a connection takes at once: what waits keeps its memory.
TEST_F(LinkPairTest, AnswersThatWaitForRoomHaveTheirOwnBytes) {
    constexpr std::size_t kReads = 60;
    constexpr std::size_t kBytes = 512 * kKiB;
    std::vector<std::vector<std::byte>> into(kReads, std::vector<std::byte>(kBytes));
    for (std::size_t i = 0; i < kReads; ++i) {
        Message read = request(replication::OpKind::kRead, 3 + 8 * i, {i * kBytes, kBytes});
        read.into = into[i];
        asking_.ask(Asker::kClient, kOther, read);
    }
    run(sleep(100ms));
    ASSERT_EQ(answerer_.asked.size(), kReads);
    for (const Message& question : answerer_.asked) {
        std::ranges::fill(question.into,
                          static_cast<std::byte>(question.range.offset_bytes / kBytes + 1));
        answer(question, MessageType::kAnswer);
    }
    std::vector<io::Buffer> others;  // whatever is free now is somebody else's
    while (io::Buffer other = buffers_->try_acquire(kBytes)) {
        std::ranges::fill(other.span(), std::byte{0xee});
        others.push_back(std::move(other));
    }
    for (int i = 0; i < 100 && asker_.answered.size() < kReads; ++i) run(sleep(20ms));
    ASSERT_EQ(asker_.answered.size(), kReads);
    for (std::size_t i = 0; i < kReads; ++i) {
        const auto wrong = std::ranges::find_if(
            into[i], [&](std::byte value) { return value != static_cast<std::byte>(i + 1); });
        EXPECT_EQ(wrong, into[i].end()) << i;
    }
}

}  // namespace
}  // namespace ublkd::volume
