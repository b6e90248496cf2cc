#include "tests/permission/http_client.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace ublkd::permission_test {
namespace {

constexpr long kTimeoutSeconds = 20;

/// The value of Content-Length in `head`, nullopt where there is none.
std::optional<std::size_t> content_length(const std::string& head) {
    const char* const found = strcasestr(head.c_str(), "\r\ncontent-length:");
    if (found == nullptr) return std::nullopt;
    return std::strtoul(found + std::strlen("\r\ncontent-length:"), nullptr, 10);
}

}  // namespace

void HttpClient::close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
}

bool HttpClient::connect() {
    if (socket_ >= 0) return true;
    socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socket_ < 0 || socket_path_.size() >= sizeof address.sun_path) return false;
    std::memcpy(address.sun_path, socket_path_.c_str(), socket_path_.size());
    const timeval timeout{.tv_sec = kTimeoutSeconds, .tv_usec = 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    return ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

bool HttpClient::send_all(const std::string& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
        const ssize_t sent =
            ::send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        done += static_cast<std::size_t>(sent);
    }
    return true;
}

std::optional<Answer> HttpClient::receive() {
    std::string bytes;
    std::size_t wanted = SIZE_MAX;
    std::size_t head_bytes = 0;
    while (bytes.size() < wanted) {
        char part[4096];
        const ssize_t got = ::recv(socket_, part, sizeof part, 0);
        if (got <= 0) return std::nullopt;
        bytes.append(part, static_cast<std::size_t>(got));
        if (head_bytes != 0) continue;
        const std::size_t end = bytes.find("\r\n\r\n");
        if (end == std::string::npos) continue;
        head_bytes = end + 4;
        const auto length = content_length(bytes.substr(0, end + 2));
        if (!length) return std::nullopt;
        wanted = head_bytes + *length;
    }
    if (bytes.size() != wanted || bytes.compare(0, 9, "HTTP/1.1 ") != 0) return std::nullopt;
    return Answer{std::atoi(bytes.c_str() + 9), bytes.substr(head_bytes)};
}

std::optional<Answer> HttpClient::request(const std::string& method, const std::string& path,
                                          const std::string& body) {
    std::string message = method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n";
    if (!body.empty()) message += "Content-Type: application/json\r\n";
    message += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    std::optional<Answer> answer;
    if (connect() && send_all(message)) answer = receive();
    if (!answer) close();
    return answer;
}

}  // namespace ublkd::permission_test
