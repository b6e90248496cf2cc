// One request to another host's ublkd over TLS, over a connection of its own: what joins a cluster,
// and what asks for a certificate (docs/cluster.md). Blocking; no state.
#pragma once

#include <chrono>
#include <string>

#include "ublkd/api/errors.h"
#include "ublkd/api/json.h"
#include "ublkd/io/tls.h"

namespace ublkd::api {

struct Post {
    std::string address;  // https://ADDRESS:PORT
    std::string path;
    Json body;
    std::chrono::milliseconds deadline{10'000};  // connecting included
};

/// What the other side answers, or its refusal as it gave it. Unavailable: it was not reached, or
/// is not whom `context` asks for; nothing was sent. RequestTimeout: it may have been done.
ApiResult<Json> post(const io::TlsContext& context, const Post& request);

}  // namespace ublkd::api
