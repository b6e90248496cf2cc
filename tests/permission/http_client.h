// A blocking HTTP/1.1 client for one unix socket: what an asking host would use, and nothing of the
// daemon's own code. One connection, kept alive; whatever goes wrong (refused, reset, cut off in
// the middle of an answer) is nullopt and closes it. Not thread-safe.
#pragma once

#include <optional>
#include <string>

namespace ublkd::permission_test {

struct Answer {
    int status = 0;
    std::string body;
};

class HttpClient {
  public:
    explicit HttpClient(std::string socket_path) : socket_path_(std::move(socket_path)) {}
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;
    ~HttpClient() { close(); }

    /// nullopt: no answer, the outcome of the request is unknown.
    std::optional<Answer> request(const std::string& method, const std::string& path,
                                  const std::string& body = "");
    void close();

  private:
    bool connect();
    bool send_all(const std::string& bytes);
    std::optional<Answer> receive();

    std::string socket_path_;
    int socket_ = -1;
};

}  // namespace ublkd::permission_test
