// What is behind a TlsContext, and errors out of OpenSSL's queue: for tls.cc and tls_stream.cc.
#pragma once

#include <openssl/ssl.h>

#include <memory>

#include "ublkd/io/tls.h"

namespace ublkd::io {

struct TlsContext::Inside {
    std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> ctx{nullptr, &SSL_CTX_free};
    TlsPskKeys psk_keys;
    Sha256 authority{};  // of client_of()
    bool server = false;
    std::uint64_t records_per_key = kRecordsPerKey;
};

/// "TLS: " and `reason`, for Error::where: kept for ever, each text once. OpenSSL has a bounded
/// number of reasons.
const char* tls_text(const char* reason);
/// The last error in this thread's queue, which is then empty.
Error take_tls_error(Errc code);

}  // namespace ublkd::io
