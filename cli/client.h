// The API's client: HTTP over the daemon's unix socket by Boost.Beast, as the server has it
// (libcurl brings 30 libraries, whose loading took most of a command's time). One thread.
#pragma once

#include <chrono>
#include <expected>
#include <functional>
#include <string>
#include <string_view>

#include "ublkd/api/json.h"

namespace ublkd::cli {

/// Why a command failed, and with which exit code (cli.md's list).
struct Failure {
    int exit_code = 1;
    std::string code;  // the API's; "" where it is the CLI's own
    std::string message;
    std::string request_id{};
};
template <class T>
using Outcome = std::expected<T, Failure>;

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitNotAllowed = 4;
inline constexpr int kExitConflict = 5;
inline constexpr int kExitUnreachable = 6;
inline constexpr int kExitTimedOut = 7;
inline constexpr int kExitDegraded = 8;
inline constexpr int kExitInterrupted = 130;

/// The exit code for the API's `code`, by its form: docs/errors.md.
int exit_code_of(std::string_view code);

class Client {
  public:
    explicit Client(std::string socket) : socket_(std::move(socket)) {}
    /// `body` null: none. `timeout` 0: as long as it takes. `meanwhile`: called again and again
    /// while the answer does not come.
    Outcome<api::Json> call(const std::string& method, const std::string& path,
                            const api::Json& body = {},
                            std::chrono::milliseconds timeout = std::chrono::milliseconds(0),
                            const std::function<void()>& meanwhile = {});
    const std::string& socket() const { return socket_; }

  private:
    std::string socket_;
};

}  // namespace ublkd::cli
