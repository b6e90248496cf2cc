// TLS 1.3, and nothing older: who this side is and whom it accepts, for Socket::start_tls(). Either
// by certificates, where only those of the given authorities count and never the system's, or, for
// a server, by keys that both sides know. No session is resumed and no early data taken, so each
// connection is proven anew.
//
// A context is a handle: cheap to copy, the same for any number of connections on any threads, and
// kept by each of them; new certificates are a new context. See docs/io.md; source: RFC 8446,
// SSL_CTX_new(3ssl).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/base/result.h"

struct ssl_ctx_st;
struct ssl_st;

namespace ublkd::io {

/// In PEM.
struct TlsCertificates {
    std::string authorities;  // who signs for the other side
    std::string certificate;  // this side's, then those between it and its authority
    std::string key;
};

struct TlsCertificateFiles {
    std::string authorities;
    std::string certificate;
    std::string key;
};
/// An error names the file. A key that everybody may read is refused. "": that one is not there.
std::expected<TlsCertificates, std::string> read_tls_files(const TlsCertificateFiles& files);

/// Keys by identity.
using TlsPskKeys = std::map<std::string, std::vector<std::byte>, std::less<>>;
/// Lines "identity:key in hex", as psktool(1) writes them. An error names the line, never a key.
std::expected<TlsPskKeys, std::string> parse_psk_keys(std::string_view text);

/// Who the other side has proven to be.
struct TlsPeer {
    std::vector<std::string> uris;       // of its certificate's subject alternative names
    std::vector<std::string> dns_names;  // the same
    std::string psk_identity;
};

/// Of a connection that is not ours (api/server.h).
TlsPeer tls_peer_of(const ssl_st* connection);
bool has_certificate(const ssl_st* connection);  // the other side

/// kAsked: who has none is let in, and TlsPeer is empty; one that does not count is refused.
enum class ClientCertificates { kRequired, kAsked, kNotAsked };

using Sha256 = std::array<std::byte, 32>;

class TlsContext {
  public:
    /// Nobody's.
    TlsContext() = default;
    /// Errors: kInvalidArgument; OpenSSL's reason stands in the text.
    static Result<TlsContext> server(const TlsCertificates& certificates,
                                     ClientCertificates clients = ClientCertificates::kRequired);
    /// The server's certificate is verified; whose it is, TlsPeer tells.
    static Result<TlsContext> client(const TlsCertificates& certificates);
    /// The same without certificates of its own: the server has to show its authority's, which is
    /// the one with this fingerprint, and has to be signed by it. Rule: rule.join_fingerprint.
    static TlsContext client_of(const Sha256& authority);
    static Result<TlsContext> psk_server(TlsPskKeys keys);

    explicit operator bool() const { return inside_ != nullptr; }

    /// After so many records of 16 KiB or less the sending key is changed: one key is not good for
    /// any number of them. Source: RFC 8446, 5.5.
    static constexpr std::uint64_t kRecordsPerKey = std::uint64_t{1} << 22;
    void set_records_per_key(std::uint64_t records);

    /// For sockets that are not ours (api/server.h); not of psk_server(). The caller frees it
    /// (SSL_CTX_free).
    ssl_ctx_st* share() const;

  private:
    friend class TlsStream;
    struct Inside;
    explicit TlsContext(std::shared_ptr<Inside> inside) : inside_(std::move(inside)) {}
    static Result<TlsContext> of_certificates(const TlsCertificates& certificates, bool server,
                                              ClientCertificates others);
    std::shared_ptr<Inside> inside_;
};

/// The context of the next connection: a handle, and every copy sees what replace() sets, so that
/// certificates are renewed under what uses them. Connections keep what they began with.
/// Thread-safe.
class TlsInUse {
  public:
    /// Nobody's.
    TlsInUse() = default;
    TlsInUse(TlsContext first);  // NOLINT(google-explicit-constructor)

    explicit operator bool() const { return shared_ != nullptr; }
    TlsContext now() const;
    /// Not of nobody's.
    void replace(TlsContext next);

  private:
    struct Shared;
    std::shared_ptr<Shared> shared_;
};

}  // namespace ublkd::io
