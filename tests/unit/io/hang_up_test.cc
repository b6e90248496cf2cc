// Goal: whether the other side has hung up is told at once, also behind unread data, and of no side
// that is still there.
#include "ublkd/io/hang_up.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstddef>

#include "ublkd/base/fd.h"

namespace ublkd::io {
namespace {

struct Pair {
    Fd client;
    Fd server;
};

Pair unix_pair() {
    int ends[2] = {-1, -1};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    return {Fd(ends[0]), Fd(ends[1])};
}

Pair tcp_pair(int family) {
    const Fd listener(socket(family, SOCK_STREAM, 0));
    sockaddr_storage address{};
    address.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET) {
        reinterpret_cast<sockaddr_in*>(&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else {
        reinterpret_cast<sockaddr_in6*>(&address)->sin6_addr = in6addr_loopback;
    }
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    socklen_t bytes = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
    EXPECT_EQ(bind(listener.get(), generic, bytes), 0);
    EXPECT_EQ(listen(listener.get(), 1), 0);
    EXPECT_EQ(getsockname(listener.get(), generic, &bytes), 0);
    Pair pair{Fd(socket(family, SOCK_STREAM, 0)), Fd()};
    EXPECT_EQ(connect(pair.client.get(), generic, bytes), 0);
    pair.server = Fd(accept(listener.get(), nullptr, nullptr));
    return pair;
}

/// Until neither the receiver nor the sender takes any more.
void fill(int fd) {
    const std::array<std::byte, 65536> data{};
    while (send(fd, data.data(), data.size(), MSG_DONTWAIT) > 0) {
    }
}

template <class MakePair>
void tells_each_end(MakePair make_pair) {
    for (const bool unread : {false, true}) {
        Pair closed = make_pair();
        Pair half_closed = make_pair();
        Pair there = make_pair();
        for (const Pair* pair : {&closed, &half_closed, &there}) {
            if (unread) fill(pair->client.get());
            EXPECT_FALSE(has_hung_up(pair->server.get()));
        }
        closed.client.close();
        EXPECT_EQ(shutdown(half_closed.client.get(), SHUT_WR), 0);
        EXPECT_TRUE(has_hung_up(closed.server.get())) << unread;
        EXPECT_TRUE(has_hung_up(half_closed.server.get())) << unread;
        EXPECT_FALSE(has_hung_up(there.server.get())) << unread;
    }
}

TEST(HangUp, OfAUnixSocketIsToldAtOnce) {
    tells_each_end([] { return unix_pair(); });
}

TEST(HangUp, OfALoopbackConnectionIsToldAtOnce) {
    tells_each_end([] { return tcp_pair(AF_INET); });
    tells_each_end([] { return tcp_pair(AF_INET6); });
}

TEST(HangUp, BehindDataThatFillsTheWindowIsNotSeenByPoll) {
    Pair pair = tcp_pair(AF_INET);
    fill(pair.client.get());
    pair.client.close();
    pollfd asked{pair.server.get(), POLLRDHUP, 0};
    EXPECT_EQ(poll(&asked, 1, 100), 0) << "this is why has_hung_up() asks the kernel otherwise";
    EXPECT_TRUE(has_hung_up(pair.server.get()));
}

TEST(HangUp, AResetIsOne) {
    Pair pair = tcp_pair(AF_INET);
    const linger abort{1, 0};
    ASSERT_EQ(setsockopt(pair.client.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort), 0);
    pair.client.close();
    EXPECT_TRUE(has_hung_up(pair.server.get()));
}

TEST(HangUp, AClientThatMayStillSendIsThereThoughItGetsNothingMore) {
    Pair pair = tcp_pair(AF_INET);
    ASSERT_EQ(shutdown(pair.server.get(), SHUT_WR), 0);
    EXPECT_FALSE(has_hung_up(pair.server.get()));
}

}  // namespace
}  // namespace ublkd::io
