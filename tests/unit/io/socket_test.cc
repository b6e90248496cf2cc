// Goal: unix and TCP streams: all bytes, both ways to move them, ends and refusals, listeners that
// stop and take over.
#include "ublkd/io/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>

#include "tests/unit/io/io_fixture.h"

namespace ublkd::io {
namespace {

class SocketTest : public IoTest {
  protected:
    Listener unix_listener(const std::string& name) {
        auto listener = Listener::listen_unix(*reactor_, folder() + "/" + name, SocketAccess{});
        EXPECT_TRUE(listener) << to_string(listener.error());
        return std::move(*listener);
    }
};

std::vector<std::byte> pattern(std::size_t bytes) {
    std::vector<std::byte> data(bytes);
    for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i * 31 + i / 251);
    return data;
}

/// A connected socket: a listener's queue takes it at once.
Socket client_of(Reactor* reactor, int family, const void* address, socklen_t length) {
    const int fd = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(::connect(fd, static_cast<const sockaddr*>(address), length), 0);
    return {*reactor, fd};
}

Socket connect_unix(Reactor* reactor, const std::string& path) {
    const auto address = unix_address(path);
    EXPECT_TRUE(address);
    return client_of(reactor, AF_UNIX, &*address, sizeof *address);
}

Socket connect_tcp(Reactor* reactor, std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return client_of(reactor, AF_INET, &address, sizeof address);
}

/// All of `into`; false where the other side closes before.
Task<bool> receive_all(Socket* socket, std::span<std::byte> into) {
    while (!into.empty()) {
        const auto got = co_await socket->receive_some(into);
        if (!got || *got == 0) co_return false;
        into = into.subspan(*got);
    }
    co_return true;
}

/// Takes one connection and sends back what comes, `bytes` of it.
Task<void> echo_once(Listener* listener, std::size_t bytes) {
    auto socket = co_await listener->accept();
    EXPECT_TRUE(socket);
    if (!socket) co_return;
    std::vector<std::byte> data(bytes);
    const bool got = co_await receive_all(&*socket, data);
    EXPECT_TRUE(got);
    const auto put = co_await socket->send_all(data);
    EXPECT_TRUE(put);
}

Task<void> check_echo(Socket* socket, std::size_t bytes) {
    const std::vector<std::byte> out = pattern(bytes);
    std::vector<std::byte> in(bytes);
    struct Local {
        static Task<void> send(Socket* to, const std::vector<std::byte>* data) {
            const auto put = co_await to->send_all(*data);
            EXPECT_TRUE(put);
        }
    };
    TaskGroup group;
    group.start(Local::send(socket, &out));
    const bool got = co_await receive_all(socket, in);
    EXPECT_TRUE(got);
    EXPECT_EQ(in, out);
    std::byte more[1];
    const auto end = co_await socket->receive_some(more);
    EXPECT_TRUE(end && *end == 0);  // the other side has closed
    co_await group.wait();
}

Task<void> unix_echo(Reactor* reactor, Listener* listener, std::string path) {
    constexpr std::size_t kBytes = 3'000'001;
    TaskGroup group;
    group.start(echo_once(listener, kBytes));
    Socket socket = connect_unix(reactor, path);
    co_await check_echo(&socket, kBytes);
    co_await group.wait();
}

TEST_F(SocketTest, UnixStreamCarriesAllBytes) {
    Listener listener = unix_listener("s");
    struct stat info{};
    ASSERT_EQ(stat((folder() + "/s").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0660U);
    run(unix_echo(reactor_.get(), &listener, folder() + "/s"));
}

Task<void> tcp_echo(Reactor* reactor, Listener* listener) {
    constexpr std::size_t kBytes = 1'000'001;
    TaskGroup group;
    group.start(echo_once(listener, kBytes));
    Socket socket = connect_tcp(reactor, listener->port());
    co_await check_echo(&socket, kBytes);
    co_await group.wait();
}

TEST_F(SocketTest, TcpStreamCarriesAllBytes) {
    auto listener = Listener::listen_tcp(*reactor_, "127.0.0.1", 0);
    ASSERT_TRUE(listener) << to_string(listener.error());
    EXPECT_NE(listener->port(), 0);
    run(tcp_echo(reactor_.get(), &*listener));
}

Task<void> direct_both_ways(Reactor* reactor, Listener* listener, std::string path) {
    constexpr std::size_t kBytes = 700'000;
    TaskGroup group;
    group.start(echo_once(listener, kBytes));
    Socket socket = connect_unix(reactor, path);
    const std::vector<std::byte> out = pattern(kBytes);
    std::vector<std::byte> in(kBytes);
    std::size_t sent = 0;
    while (sent < kBytes) {
        // 1,500 parts: more than one sendmsg() takes.
        std::vector<iovec> parts;
        for (std::size_t at = sent; at < kBytes && parts.size() < 1500; at += 100) {
            iovec part{};
            part.iov_base = const_cast<std::byte*>(out.data() + at);
            part.iov_len = std::min<std::size_t>(100, kBytes - at);
            parts.push_back(part);
        }
        const auto put = socket.try_send(parts);
        if (put) {
            sent += *put;
        } else {
            EXPECT_EQ(put.error().code, Errc::kBusy);
            const auto waited = co_await socket.wait_writable();
            EXPECT_TRUE(waited);
        }
    }
    std::size_t got = 0;
    while (got < kBytes) {
        const auto taken = socket.try_receive(std::span(in).subspan(got));
        if (taken) {
            EXPECT_GT(*taken, 0U);
            if (*taken == 0) break;
            got += *taken;
        } else {
            EXPECT_EQ(taken.error().code, Errc::kBusy);
            const auto waited = co_await socket.wait_readable();
            EXPECT_TRUE(waited);
        }
    }
    EXPECT_EQ(in, out);
    co_await group.wait();
}

TEST_F(SocketTest, DirectCallsNeverBlockAndMoveAllBytes) {
    Listener listener = unix_listener("d");
    run(direct_both_ways(reactor_.get(), &listener, folder() + "/d"));
}

TEST_F(SocketTest, OnlyIpAddressesAreListenedOn) {
    for (const char* const name : {"not an address", "localhost", ""}) {
        const auto listener = Listener::listen_tcp(*reactor_, name, 0);
        ASSERT_FALSE(listener) << name;
        EXPECT_EQ(listener.error().code, Errc::kInvalidArgument) << name;
    }
}

Task<void> accept_until_cancelled(Listener* listener, int* taken, Errc* last) {
    for (;;) {
        const auto socket = co_await listener->accept();
        if (!socket) {
            *last = socket.error().code;
            co_return;
        }
        ++*taken;
    }
}

Task<void> connect_and_stop(Reactor* reactor, Listener* listener, std::string path, int* taken,
                            Errc* last) {
    TaskGroup group;
    group.start(accept_until_cancelled(listener, taken, last));
    for (int i = 0; i < 10; ++i) (void)connect_unix(reactor, path);
    for (int i = 0; i < 50 && *taken < 10; ++i)
        co_await reactor->sleep_for(std::chrono::milliseconds(2));
    listener->shutdown();
    listener->shutdown();
    co_await group.wait();
    const auto after = co_await listener->accept();
    EXPECT_FALSE(after);
}

TEST_F(SocketTest, ListenerStopsWhileItAccepts) {
    int taken = 0;
    Errc last = Errc::kIo;
    Listener listener = unix_listener("l");
    run(connect_and_stop(reactor_.get(), &listener, folder() + "/l", &taken, &last));
    EXPECT_EQ(taken, 10);
    EXPECT_EQ(last, Errc::kCancelled);
}

Task<void> stop_at_once(Reactor* reactor, Listener* listener, std::string path, Errc* last) {
    // A connection arrives in the same turn as the end: it is closed, and accept() ends as
    // cancelled.
    int taken = 0;
    TaskGroup group;
    group.start(accept_until_cancelled(listener, &taken, last));
    const Socket client = connect_unix(reactor, path);
    listener->shutdown();
    co_await group.wait();
    EXPECT_EQ(taken, 0);
}

TEST_F(SocketTest, ConnectionThatRacesWithTheEndIsClosed) {
    Errc last = Errc::kIo;
    Listener listener = unix_listener("r");
    run(stop_at_once(reactor_.get(), &listener, folder() + "/r", &last));
    EXPECT_EQ(last, Errc::kCancelled);
}

TEST_F(SocketTest, StaleSocketIsReplacedALiveOneAndAFileAreNot) {
    const std::string path = folder() + "/t";
    {
        const Listener first = unix_listener("t");
    }  // closed, and its path left behind
    {
        const Listener second = unix_listener("t");
        const auto third =
            Listener::listen_unix(*reactor_, path, SocketAccess{.mode = 0600, .group = {}});
        ASSERT_FALSE(third);
        EXPECT_EQ(third.error().code, Errc::kBusy);
    }
    ASSERT_EQ(unlink(path.c_str()), 0);
    {
        std::ofstream(path) << "mine";
    }
    const auto over_file =
        Listener::listen_unix(*reactor_, path, SocketAccess{.mode = 0600, .group = {}});
    ASSERT_FALSE(over_file);
    EXPECT_EQ(over_file.error().code, Errc::kExists);
    std::string content;
    std::ifstream(path) >> content;
    EXPECT_EQ(content, "mine");
}

Task<void> accept_without_descriptors(Reactor* reactor, Listener* listener, std::string path) {
    const Socket client = connect_unix(reactor, path);
    std::vector<int> fillers;
    for (;;) {
        const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0) break;
        fillers.push_back(fd);
    }
    int taken = 0;
    Errc last = Errc::kIo;
    TaskGroup group;
    group.start(accept_until_cancelled(listener, &taken, &last));
    co_await reactor->sleep_for(std::chrono::milliseconds(30));
    EXPECT_EQ(taken, 0);
    for (const int fd : fillers) ::close(fd);
    for (int i = 0; i < 200 && taken == 0; ++i)
        co_await reactor->sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(taken, 1);
    listener->shutdown();
    co_await group.wait();
    EXPECT_EQ(last, Errc::kCancelled);
}

TEST_F(SocketTest, ListenerOutlivesARunOutOfDescriptors) {
    Listener listener = unix_listener("e");
    rlimit old{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
    rlimit small = old;
    small.rlim_cur = 64;
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &small), 0);
    run(accept_without_descriptors(reactor_.get(), &listener, folder() + "/e"));
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
}

Task<void> shutdown_wakes(Reactor* reactor, Socket* left) {
    struct Local {
        static Task<void> receive(Socket* socket, bool* ended) {
            std::byte byte[1];
            const auto got = co_await socket->receive_some(byte);
            *ended = got && *got == 0;
        }
    };
    bool ended = false;
    TaskGroup group;
    group.start(Local::receive(left, &ended));
    co_await reactor->yield();
    left->shutdown();
    co_await group.wait();
    EXPECT_TRUE(ended);
}

TEST_F(SocketTest, ShutdownEndsWhatIsPending) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    Socket left(*reactor_, ends[0]);
    const Socket right(*reactor_, ends[1]);
    run(shutdown_wakes(reactor_.get(), &left));
}

TEST_F(SocketTest, MovedSocketsCloseOnce) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    Socket left(*reactor_, ends[0]);
    Socket right(*reactor_, ends[1]);
    Socket moved = std::move(left);
    EXPECT_FALSE(left.is_open());  // NOLINT(bugprone-use-after-move): that is the question
    moved = std::move(right);      // closes the first end
    EXPECT_EQ(fcntl(ends[0], F_GETFD), -1);
    EXPECT_EQ(moved.fd(), ends[1]);
    std::byte byte[1];
    const auto got = moved.try_receive(byte);
    EXPECT_TRUE(got && *got == 0);
    const iovec part{byte, 1};
    const auto put = moved.try_send(std::span(&part, 1));
    ASSERT_FALSE(put);  // and no SIGPIPE
    EXPECT_EQ(put.error().code, Errc::kClosed);
}

}  // namespace
}  // namespace ublkd::io
