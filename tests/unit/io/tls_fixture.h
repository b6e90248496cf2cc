// Two sockets and what it takes to put TLS between them.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <fstream>
#include <optional>

#include "tests/unit/io/io_fixture.h"
#include "tests/unit/io/test_certificates.h"
#include "ublkd/io/socket.h"

namespace ublkd::io {

inline Clock::time_point soon() { return Clock::now() + std::chrono::seconds(10); }

inline std::vector<std::byte> random_bytes(std::size_t bytes, std::uint32_t seed) {
    std::vector<std::byte> data(bytes);
    for (std::byte& each : data) {
        seed = seed * 1664525 + 1013904223;
        each = static_cast<std::byte>(seed >> 24);
    }
    return data;
}

class TlsTest : public IoTest {
  protected:
    void SetUp() override { connect_anew(); }

    void connect_anew() {
        int ends[2];
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        server_ = Socket(*reactor_, ends[0]);
        client_ = Socket(*reactor_, ends[1]);
    }

    static TlsContext server_context(const TlsCertificates& certificates,
                                     ClientCertificates clients = ClientCertificates::kRequired) {
        auto context = TlsContext::server(certificates, clients);
        EXPECT_TRUE(context) << to_string(context.error());
        return *context;
    }
    static TlsContext client_context(const TlsCertificates& certificates) {
        auto context = TlsContext::client(certificates);
        EXPECT_TRUE(context) << to_string(context.error());
        return *context;
    }

    struct Outcome {
        std::optional<Result<TlsPeer>> server, client;
    };
    /// Both handshakes, to their ends.
    Outcome shake_hands(TlsContext server, TlsContext client) {
        Outcome outcome;
        run(both(&server_, std::move(server), &outcome.server, &client_, std::move(client),
                 &outcome.client));
        return outcome;
    }
    void agree() {
        const Outcome outcome =
            shake_hands(server_context(authority_.issue()), client_context(authority_.issue()));
        ASSERT_TRUE(*outcome.server) << to_string(outcome.server->error());
        ASSERT_TRUE(*outcome.client) << to_string(outcome.client->error());
    }
    Result<TlsPeer> serve(TlsContext context, Clock::time_point deadline = soon()) {
        return run(server_.start_tls(std::move(context), deadline));
    }
    std::string file(const std::string& name, const std::string& content) {
        std::ofstream(folder() + "/" + name) << content;
        return folder() + "/" + name;
    }

    TestAuthority authority_;
    Socket server_, client_;

  private:
    static Task<void> one(Socket* socket, TlsContext context,
                          std::optional<Result<TlsPeer>>* outcome) {
        outcome->emplace(co_await socket->start_tls(std::move(context), soon()));
        if (!*outcome) socket->shutdown();
    }
    static Task<void> both(Socket* server, TlsContext server_side,
                           std::optional<Result<TlsPeer>>* first, Socket* client,
                           TlsContext client_side, std::optional<Result<TlsPeer>>* second) {
        TaskGroup group;
        group.start(one(server, std::move(server_side), first));
        group.start(one(client, std::move(client_side), second));
        co_await group.wait();
    }
};

}  // namespace ublkd::io
