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

}  // namespace
}  // namespace ublkd::volume
