#include "tests/unit/metadata/relay.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "ublkd/base/check.h"

namespace ublkd::metadata::test {
namespace {

bool send_all(int to, const std::string& text) {
    for (std::size_t done = 0; done < text.size();) {
        const auto sent = ::send(to, text.data() + done, text.size() - done, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        done += static_cast<std::size_t>(sent);
    }
    return true;
}

/// One HTTP message with its body; "" where the connection ended.
std::string receive_one(int from) {
    std::string text;
    std::size_t whole = SIZE_MAX;
    char buffer[65536];
    while (text.size() < whole) {
        const auto got = ::recv(from, buffer, sizeof buffer, 0);
        if (got <= 0) return "";
        text.append(buffer, static_cast<std::size_t>(got));
        const auto head = text.find("\r\n\r\n");
        const auto length = text.find("Content-Length: ");
        if (head != std::string::npos && length < head)
            whole = head + 4 + std::strtoul(text.c_str() + length + 16, nullptr, 10);
    }
    return text;
}

int connect_to(const std::string& socket) {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket.c_str(), sizeof address.sun_path - 1);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
    ::close(fd);
    return -1;
}

}  // namespace

Relay::Relay(std::string socket) : socket_(std::move(socket)) {
    listening_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    CHECK(::bind(listening_, reinterpret_cast<const sockaddr*>(&address), size) == 0, "a port");
    CHECK(::listen(listening_, 64) == 0, "it listens");
    CHECK(::getsockname(listening_, reinterpret_cast<sockaddr*>(&address), &size) == 0, "its name");
    port_ = ntohs(address.sin_port);
    accepting_ = std::thread([this] { accept_all(); });
}

Relay::~Relay() {
    ::shutdown(listening_, SHUT_RDWR);
    accepting_.join();
    {
        const std::lock_guard lock(mutex_);
        for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    ::close(listening_);
}

void Relay::set(Fault fault, std::string garbage) {
    const std::lock_guard lock(mutex_);
    fault_ = fault;
    garbage_ = std::move(garbage);
}

void Relay::accept_all() {
    for (;;) {
        const int client = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
        if (client < 0) return;
        ++connections_;
        const std::lock_guard lock(mutex_);
        open_.insert(client);
        threads_.emplace_back([this, client] { serve(client); });
    }
}

void Relay::serve(int client) {
    const int server = connect_to(socket_);
    if (server >= 0) {
        const std::lock_guard lock(mutex_);
        open_.insert(server);
    }
    for (;;) {
        const std::string request = receive_one(client);
        if (request.empty() || !answer(client, server, request)) break;
    }
    const std::lock_guard lock(mutex_);
    for (const int fd : {client, server}) {
        open_.erase(fd);
        if (fd >= 0) ::close(fd);
    }
}

/// Whether the connection goes on.
bool Relay::answer(int client, int server, const std::string& request) {
    Fault fault;
    std::string garbage;
    {
        const std::lock_guard lock(mutex_);
        fault = fault_;
        garbage = garbage_;
        if (fault == Fault::kLoseCommit) {
            if (request.starts_with("POST /v1/rows/commit"))
                fault_ = Fault::kNone;
            else
                fault = Fault::kNone;
        }
    }
    if (fault == Fault::kSilent) return true;
    if (fault == Fault::kGarbage) {
        send_all(client, garbage);
        return false;
    }
    if (server < 0 || !send_all(server, request)) return false;
    const std::string answered = receive_one(server);
    if (answered.empty() || fault == Fault::kLoseCommit) return false;
    return send_all(client, answered);
}

}  // namespace ublkd::metadata::test
