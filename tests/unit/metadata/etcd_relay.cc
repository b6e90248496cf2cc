#include "tests/unit/metadata/etcd_relay.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>

namespace ublkd::metadata::test {
namespace {

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

bool send_all(int to, const std::string& bytes) {
    return ::send(to, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
}

/// One HTTP message whose length is told; "" where the other side has ended.
std::string receive(int from, const std::atomic<bool>& ended) {
    std::string message;
    std::size_t whole = std::string::npos;
    while (message.size() < whole) {
        pollfd waiting{from, POLLIN, 0};
        if (::poll(&waiting, 1, 50) == 0) {
            if (ended) return "";
            continue;
        }
        std::array<char, 65536> buffer{};
        const auto got = ::recv(from, buffer.data(), buffer.size(), 0);
        if (got <= 0) return "";
        message.append(buffer.data(), static_cast<std::size_t>(got));
        const auto head = message.find("\r\n\r\n");
        const auto length = message.find("Content-Length: ");
        if (head == std::string::npos || length > head) continue;
        std::size_t count = 0;
        std::from_chars(message.data() + length + 16, message.data() + head, count);
        whole = head + 4 + count;
    }
    return message;
}

}  // namespace

EtcdRelay::EtcdRelay(std::uint16_t etcd_port) : etcd_port_(etcd_port) {
    auto address = loopback(0);
    socklen_t size = sizeof address;
    listening_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::bind(listening_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listening_, 64);
    ::getsockname(listening_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    accepting_ = std::jthread([this] {
        while (!ended_) {
            pollfd waiting{listening_, POLLIN, 0};
            if (::poll(&waiting, 1, 50) <= 0) continue;
            const int client = ::accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
            const std::lock_guard lock(mutex_);
            threads_.emplace_back([this, client] { serve(client); });
        }
    });
}

EtcdRelay::~EtcdRelay() {
    ended_ = true;
    {
        const std::lock_guard lock(mutex_);
        released_ = true;
    }
    changed_.notify_all();
    accepting_.join();
    threads_.clear();
    ::close(listening_);
}

void EtcdRelay::serve(int client) {
    const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const auto address = loopback(etcd_port_);
    ::connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    for (;;) {
        const std::string request = receive(client, ended_);
        if (request.empty()) break;
        const bool commit = request.find("\"compare\"") != std::string::npos ||
                            request.find("request_put") != std::string::npos;
        if (commit && hold_) {
            pass_commit(server, request);
            break;
        }
        if (!send_all(server, request)) break;
        const std::string answer = receive(server, ended_);
        if (answer.empty() || (commit && lose_.exchange(false))) break;
        if (!send_all(client, answer)) break;
    }
    ::close(client);
    ::close(server);
}

void EtcdRelay::pass_commit(int server, const std::string& request) {
    std::unique_lock lock(mutex_);
    ++held_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return released_; });
    lock.unlock();
    if (send_all(server, request)) (void)receive(server, ended_);
    lock.lock();
    --held_;
    changed_.notify_all();
}

void EtcdRelay::wait_for_held() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return held_ != 0; });
}

void EtcdRelay::let_go() {
    std::unique_lock lock(mutex_);
    released_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return held_ == 0; });
    released_ = false;
}

}  // namespace ublkd::metadata::test
