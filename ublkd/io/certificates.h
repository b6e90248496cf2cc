// Makes and reads certificates: an authority of one's own, requests, and what it signs for them.
// EC P-256 and SHA-256 alone. A certificate of certify() is for both sides of TLS, names nobody but
// the URI that the authority says, and is followed by the authority's own, so that who knows that
// one's fingerprint alone can verify it (TlsContext::client_of). PEM in and out. No state;
// thread-safe. Source: RFC 5280; X509_REQ_verify(3ssl).
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ublkd/base/result.h"
#include "ublkd/io/tls.h"

namespace ublkd::io {

struct KeyedCertificate {
    std::string certificate;
    std::string key;
};

std::string make_private_key();
KeyedCertificate make_authority(const std::string& name, std::chrono::seconds life);
/// For a certificate of this key; it asks for no name. kInvalidArgument: no key.
Result<std::string> make_request(const std::string& key);

struct Certified {
    std::string uri;  // ASCII
    std::chrono::seconds life{};
};
/// kInvalidArgument: no request for a key on P-256 that its owner has signed. It begins a hundredth
/// of its life ago, an hour at most: clocks differ.
Result<std::string> certify(const KeyedCertificate& authority, const std::string& request,
                            const Certified& what);

struct CertificateTerm {
    std::int64_t begins_s = 0, ends_s = 0;  // since 1970
    std::string serial;                     // in hex
};
/// Of the first one in `certificate`.
Result<CertificateTerm> term_of(const std::string& certificate);
Result<Sha256> fingerprint_of(const std::string& certificate);
/// kNotPermitted: the first one in `certificate` is not signed by `authority`, is not of `key`, or
/// has another URI.
Result<void> check_certified(const std::string& certificate, const std::string& authority,
                             const std::string& key, const std::string& uri);

Sha256 sha256(std::span<const std::byte> bytes);
Sha256 random_secret();
/// In a time that says nothing of where they differ.
bool is_same_secret(const Sha256& one, const Sha256& other);

}  // namespace ublkd::io
