// Calls of etcd's v3 JSON gateway (/v3/kv/range, /v3/kv/txn, /v3/auth/authenticate) over HTTP/1.1,
// with TLS and a user's token as they are set. The one user of libcurl in metadata. A call goes to
// the endpoint that answered last, and to the next one where that does not answer, until its
// deadline; so each call has to be one that may be done twice. A token that has expired is renewed
// by itself. Blocking; thread-safe: each call has a connection of its own meanwhile, which is kept.
// Owner: EtcdRows. docs/metadata.md, "etcd".
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/api/json.h"
#include "ublkd/base/result.h"

namespace ublkd::metadata {

struct EtcdAccess {
    /// https://HOST:PORT, or http://ADDRESS:PORT of this machine (127.0.0.1, [::1]).
    std::vector<std::string> endpoints = {};
    std::string ca = {};                     // PEM files; "": the system's authorities
    std::string certificate = {}, key = {};  // "": none is shown
    std::string user = {}, password = {};    // "": no authentication
};

/// Where an answer came from.
struct EtcdHeader {
    std::uint64_t cluster = 0;
    std::uint64_t revision = 0;
};

/// Of the form that EtcdAccess::endpoints have.
bool is_etcd_endpoint(std::string_view text);
/// Base64 as JSON has it for bytes.
std::string to_base64(std::string_view bytes);
std::optional<std::string> from_base64(std::string_view text);

class EtcdClient {
  public:
    using TimePoint = std::chrono::steady_clock::time_point;

    /// kInvalidArgument: no such endpoint. Nobody is connected to yet.
    static Result<std::unique_ptr<EtcdClient>> make(const EtcdAccess& access);
    EtcdClient(const EtcdClient&) = delete;
    EtcdClient& operator=(const EtcdClient&) = delete;
    ~EtcdClient();

    /// What etcd answers to `body` at `path`. Where it is not known whether a call has been done
    /// (`*unsure` becomes true, and is never made false), it is made again. Errors: kClosed (no
    /// endpoint can be reached, or none has a leader), kTimedOut (no answer within `until`),
    /// kNotPermitted (TLS, password, or rights), kNoSpace, kExhausted (too much for one request),
    /// kLost (a revision that was asked for is compacted), kProtocol.
    Result<api::Json> call(const char* path, const api::Json& body, TimePoint until, bool* unsure);

  private:
    struct Impl;
    explicit EtcdClient(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::metadata
