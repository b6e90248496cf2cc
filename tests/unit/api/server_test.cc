// The HTTP server over a real unix socket: keep-alive, many clients at once, bodies that are too
// big, what is not HTTP, slow handlers, and an end that answers what is being handled.
#include "ublkd/api/server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>
#include <thread>

namespace ublkd::api {
namespace {

class Connection {
  public:
    explicit Connection(const std::string& path)
        : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
        connected = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        const timeval timeout{10, 0};
        setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    }
    ~Connection() { close(fd_); }
    void send_text(const std::string& text) {
        for (std::size_t done = 0; done < text.size();) {
            const auto sent = send(fd_, text.data() + done, text.size() - done, MSG_NOSIGNAL);
            if (sent <= 0) return;
            done += static_cast<std::size_t>(sent);
        }
    }
    /// One answer, whole; "" where the connection ended.
    std::string receive() {
        std::string text;
        std::size_t wanted = SIZE_MAX;
        char buffer[4096];
        while (text.size() < wanted) {
            const auto got = recv(fd_, buffer, sizeof buffer, 0);
            if (got <= 0) return "";
            text.append(buffer, static_cast<std::size_t>(got));
            const auto head = text.find("\r\n\r\n");
            const auto length = text.find("Content-Length: ");
            if (head != std::string::npos && length != std::string::npos) {
                wanted = head + 4 + std::strtoul(text.c_str() + length + 16, nullptr, 10);
            }
        }
        return text;
    }
    std::string get(const std::string& path) {
        send_text("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
        return receive();
    }
    bool connected = false;

  private:
    int fd_;
};

class ServerTest : public testing::Test {
  protected:
    ServerTest() {
        std::string pattern = std::filesystem::temp_directory_path() / "ublkd-api-XXXXXX";
        folder_ = mkdtemp(pattern.data());
        options_.socket_path = folder_ / "api.sock";
        table_.add({Method::kGet, "/quick", "Quick",
                    [](const Request&) -> ApiResult<Json> { return Json::object().set("a", 1); }});
        table_.add({Method::kGet, "/slow", "Slow", [this](const Request&) -> ApiResult<Json> {
                        entered_ = true;
                        std::this_thread::sleep_for(std::chrono::milliseconds(200));
                        return Json::object().set("slow", true);
                    }});
        table_.add({Method::kGet, "/wait", "Wait", [this](const Request&) -> ApiResult<Json> {
                        ++waiting_;
                        opened_.wait(false);
                        return Json::object().set("waited", true);
                    }});
        table_.add({Method::kPost, "/echo", "Echo",
                    [](const Request& request) -> ApiResult<Json> { return request.body; }});
        auto listening = Server::listen(options_);
        EXPECT_TRUE(listening);
        server_ = std::move(*listening);
        server_->serve(&table_);
    }
    ~ServerTest() override {
        opened_ = true;
        opened_.notify_all();
        server_.reset();
        std::filesystem::remove_all(folder_);
    }
    std::filesystem::path folder_;
    ServerOptions options_;
    RouteTable table_{[] { return true; }};
    std::unique_ptr<Server> server_;
    std::atomic<bool> entered_ = false;
    std::atomic<unsigned> waiting_ = 0;
    std::atomic<bool> opened_ = false;
};

TEST_F(ServerTest, OneConnectionServesManyRequests) {
    Connection client(options_.socket_path);
    for (int i = 0; i < 100; ++i) {
        const auto answer = client.get("/quick");
        ASSERT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
        ASSERT_TRUE(answer.ends_with("\r\n\r\n{\"a\": 1}\n"));
    }
}

TEST_F(ServerTest, ManyClientsAtOnceAreServed) {
    std::atomic<int> served = 0;
    std::vector<std::jthread> clients;
    for (int i = 0; i < 40; ++i) {
        clients.emplace_back([&] {
            Connection client(options_.socket_path);
            if (client.get("/slow").find("true") != std::string::npos) ++served;
        });
    }
    clients.clear();
    EXPECT_EQ(served, 40);
}

TEST_F(ServerTest, RequestsThatWaitHoldUpNoOther) {
    const unsigned clients = 100;  // more than threads are kept
    std::vector<std::unique_ptr<Connection>> pollers;
    for (unsigned i = 0; i < clients; ++i) {
        pollers.push_back(std::make_unique<Connection>(options_.socket_path));
        pollers.back()->send_text("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    Connection other(options_.socket_path);
    EXPECT_NE(other.get("/quick").find("200 OK"), std::string::npos);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (waiting_ < clients && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(waiting_, clients);
    EXPECT_NE(other.get("/quick").find("200 OK"), std::string::npos);
    opened_ = true;
    opened_.notify_all();
    for (auto& poller : pollers) EXPECT_NE(poller->receive().find("waited"), std::string::npos);
    EXPECT_NE(other.get("/quick").find("200 OK"), std::string::npos);  // threads that stay serve on
}

TEST_F(ServerTest, BodyArrivesWholeAndOneTooBigIsRefused) {
    const std::string text(500'000, 'x');
    Connection client(options_.socket_path);
    const std::string body = "{\"a\": \"" + text + "\"}";
    client.send_text("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " +
                     std::to_string(body.size()) + "\r\n\r\n" + body);
    EXPECT_TRUE(client.receive().ends_with(body + "\n"));
    client.send_text("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n");
    const auto refused = client.receive();
    EXPECT_TRUE(refused.starts_with("HTTP/1.1 413 ")) << refused;
    EXPECT_NE(refused.find("RequestTooLarge"), std::string::npos);
}

TEST_F(ServerTest, WhatIsNotHttpIsRefusedAndTheServerGoesOn) {
    for (const std::string& text :
         {std::string("nonsense\r\n\r\n"), std::string("GET / HTTP/9\r\n\r\n"),
          "GET /" + std::string(20'000, 'x') + " HTTP/1.1\r\n\r\n"}) {
        Connection client(options_.socket_path);
        client.send_text(text);
        const auto answer = client.receive();
        EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 400 ")) << answer;
        Connection next(options_.socket_path);
        EXPECT_TRUE(next.get("/quick").starts_with("HTTP/1.1 200"));
    }
}

TEST_F(ServerTest, ClientThatLeavesInTheMiddleHarmsNobody) {
    for (int i = 0; i < 50; ++i) {
        Connection client(options_.socket_path);
        client.send_text("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    }
    {
        Connection client(options_.socket_path);
        client.send_text("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");  // gone before its answer
    }
    Connection next(options_.socket_path);
    EXPECT_TRUE(next.get("/quick").starts_with("HTTP/1.1 200"));
}

TEST_F(ServerTest, StopAnswersWhatIsBeingHandled) {
    Connection client(options_.socket_path);
    Connection idle(options_.socket_path);
    client.send_text("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    while (!entered_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    server_->stop();
    EXPECT_NE(client.receive().find("\"slow\": true"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

TEST_F(ServerTest, LiveSocketIsNotTakenAndADeadOneIs) {
    const auto second = Server::listen(options_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::kBusy);
    server_.reset();
    // What a daemon that was killed leaves.
    const int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, options_.socket_path.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(bind(dead, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    close(dead);
    auto third = Server::listen(options_);
    ASSERT_TRUE(third);
    Connection client(options_.socket_path);  // before it serves
    (*third)->serve(&table_);
    EXPECT_TRUE(client.get("/quick").starts_with("HTTP/1.1 200"));
}

}  // namespace
}  // namespace ublkd::api
