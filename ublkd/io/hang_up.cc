#include "ublkd/io/hang_up.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cstring>
#include <optional>

#include "ublkd/base/fd.h"

namespace ublkd::io {
namespace {

bool end_has_come(int fd) {
    pollfd asked{fd, POLLRDHUP, 0};
    return poll(&asked, 1, 0) > 0 && (asked.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/// Both ends of a TCP connection, as one of them names them.
struct Ends {
    sockaddr_storage local{};
    sockaddr_storage remote{};
};

std::optional<Ends> tcp_ends(int fd) {
    Ends ends;
    socklen_t local_bytes = sizeof ends.local;
    socklen_t remote_bytes = sizeof ends.remote;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&ends.local), &local_bytes) != 0 ||
        getpeername(fd, reinterpret_cast<sockaddr*>(&ends.remote), &remote_bytes) != 0)
        return std::nullopt;
    if (ends.local.ss_family != AF_INET && ends.local.ss_family != AF_INET6) return std::nullopt;
    return ends;
}

void put_address(const sockaddr_storage& from, __be32* address, __be16* port) {
    if (from.ss_family == AF_INET) {
        const auto* const v4 = reinterpret_cast<const sockaddr_in*>(&from);
        std::memcpy(address, &v4->sin_addr, sizeof v4->sin_addr);
        *port = v4->sin_port;
    } else {
        const auto* const v6 = reinterpret_cast<const sockaddr_in6*>(&from);
        std::memcpy(address, &v6->sin6_addr, sizeof v6->sin6_addr);
        *port = v6->sin6_port;
    }
}

constexpr int kNone = 0;  // there is no such socket, or the kernel has no tcp_diag

/// The state (TCP_ESTABLISHED and so on) of this machine's socket with these ends, or kNone.
/// nullopt: it could not be asked for.
std::optional<int> state_of(const Ends& ends) {
    const Fd asking(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!asking) return std::nullopt;
    struct {
        nlmsghdr header;
        inet_diag_req_v2 request;
    } question{};
    question.header.nlmsg_len = sizeof question;
    question.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    question.header.nlmsg_flags = NLM_F_REQUEST;
    question.request.sdiag_family = static_cast<__u8>(ends.local.ss_family);
    question.request.sdiag_protocol = IPPROTO_TCP;
    question.request.idiag_states = ~0U;
    inet_diag_sockid& id = question.request.id;
    put_address(ends.local, id.idiag_src, &id.idiag_sport);
    put_address(ends.remote, id.idiag_dst, &id.idiag_dport);
    id.idiag_cookie[0] = id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    if (send(asking.get(), &question, sizeof question, 0) < 0) return std::nullopt;
    alignas(nlmsghdr) std::byte answer[1024];
    // The kernel answers within send().
    const auto got = recv(asking.get(), answer, sizeof answer, MSG_DONTWAIT);
    nlmsghdr header;
    if (got < static_cast<ssize_t>(sizeof header)) return std::nullopt;
    std::memcpy(&header, answer, sizeof header);
    if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY) return kNone;
    inet_diag_msg message;
    if (got < static_cast<ssize_t>(NLMSG_LENGTH(sizeof message))) return std::nullopt;
    std::memcpy(&message, answer + NLMSG_HDRLEN, sizeof message);
    return message.idiag_state;
}

}  // namespace

bool has_hung_up(int fd) {
    if (end_has_come(fd)) return true;  // of a unix socket it comes at once
    // Asked again and again, a kernel without the module would try to load it each time.
    static std::atomic<bool> kernel_tells = true;
    const std::optional<Ends> ends = kernel_tells ? tcp_ends(fd) : std::nullopt;
    if (!ends) return false;
    const std::optional<int> state = state_of(Ends{ends->remote, ends->local});
    if (!state) return false;
    if (*state != kNone) return *state != TCP_ESTABLISHED && *state != TCP_CLOSE_WAIT;
    const std::optional<int> ours = state_of(*ends);
    if (ours && *ours != kNone) return true;
    if (end_has_come(fd)) return true;
    if (ours) kernel_tells = false;
    return false;
}

}  // namespace ublkd::io
