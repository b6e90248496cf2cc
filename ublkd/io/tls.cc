#include "ublkd/io/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <cstring>
#include <mutex>
#include <set>
#include <utility>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/io/tls_context.h"
#include "ublkd/io/tls_stream.h"

namespace ublkd::io {
namespace {

constexpr std::size_t kMaxPemBytes = 1024 * 1024;
constexpr std::size_t kMinPskBytes = 16;
constexpr std::size_t kMaxPskBytes = 512;  // TLS13_MAX_RESUMPTION_PSK_LENGTH of OpenSSL
constexpr std::size_t kReadAheadBytes = 32 * 1024;

template <auto Free>
struct Freed {
    template <class T>
    void operator()(T* object) const {
        Free(object);
    }
};
using Bio = std::unique_ptr<BIO, Freed<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freed<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using Session = std::unique_ptr<SSL_SESSION, Freed<SSL_SESSION_free>>;

Bio bio_of(const std::string& text) {
    return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// In place of OpenSSL's own, which asks at the terminal.
int no_password(char*, int, int, void*) { return -1; }

std::unexpected<Error> refused(const char* what) {
    ERR_clear_error();
    return fail(Errc::kInvalidArgument, what);
}

/// Calls `take` with each certificate of `text`. False: there is none, or one that is malformed.
template <class Take>
bool each_certificate(const std::string& text, Take take) {
    const Bio bio = bio_of(text);
    std::size_t count = 0;
    for (;; ++count) {
        Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, no_password, nullptr));
        if (!certificate) break;
        if (!take(std::move(certificate))) return false;
    }
    const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    return count > 0 && at_end;
}

Result<void> trust(SSL_CTX* ctx, const std::string& authorities) {
    X509_STORE* const store = SSL_CTX_get_cert_store(ctx);
    const bool taken = each_certificate(authorities, [&](const Certificate& authority) {
        // The other side may look among its certificates for one of these.
        return X509_STORE_add_cert(store, authority.get()) == 1 &&
               SSL_CTX_add_client_CA(ctx, authority.get()) == 1;
    });
    if (!taken) return refused("TLS: the authorities' certificates are not PEM");
    return {};
}

Result<void> be(SSL_CTX* ctx, const TlsCertificates& certificates) {
    bool first = true;
    Error why{Errc::kInvalidArgument, 0, "TLS: the certificate is not PEM"};
    const bool taken = each_certificate(certificates.certificate, [&](Certificate certificate) {
        const bool used = std::exchange(first, false)
                              ? SSL_CTX_use_certificate(ctx, certificate.get()) == 1
                              : SSL_CTX_add1_chain_cert(ctx, certificate.get()) == 1;
        if (!used) why = take_tls_error(Errc::kInvalidArgument);
        return used;
    });
    ERR_clear_error();
    if (!taken) return fail(why);
    const Bio bio = bio_of(certificates.key);
    const PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
    if (!key) return refused("TLS: the key is not PEM, or has a password");
    if (SSL_CTX_use_PrivateKey(ctx, key.get()) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return refused("TLS: the key is not the certificate's");
    return {};
}

SSL_CTX* new_ctx(bool server) {
    SSL_CTX* const ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    CHECK(ctx != nullptr, "OpenSSL has memory for a context");
    CHECK(SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1, "OpenSSL knows TLS 1.3");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_read_ahead(ctx, 1);  // else each record costs two receives
    SSL_CTX_set_default_read_buffer_len(ctx, kReadAheadBytes);
    SSL_CTX_set_default_passwd_cb(ctx, no_password);
    return ctx;
}

int find_psk(SSL* ssl, const unsigned char* identity, std::size_t identity_bytes,
             SSL_SESSION** session) {
    *session = nullptr;
    const std::string_view name(reinterpret_cast<const char*>(identity), identity_bytes);
    const std::vector<std::byte>* const key = TlsStream::of(ssl)->find_psk(name);
    if (key == nullptr) return 1;  // then it has no way to prove anything, and is refused
    static constexpr unsigned char kAes128GcmSha256[2] = {0x13, 0x01};
    Session made(SSL_SESSION_new());
    const SSL_CIPHER* const cipher = SSL_CIPHER_find(ssl, kAes128GcmSha256);
    if (!made || cipher == nullptr ||
        SSL_SESSION_set1_master_key(made.get(), reinterpret_cast<const unsigned char*>(key->data()),
                                    key->size()) != 1 ||
        SSL_SESSION_set_cipher(made.get(), cipher) != 1 ||
        SSL_SESSION_set_protocol_version(made.get(), TLS1_3_VERSION) != 1)
        return 0;
    *session = made.release();
    return 1;
}

/// In place of OpenSSL's own. `authority`: the fingerprint of whom the server has to be signed by.
int verify_by_fingerprint(X509_STORE_CTX* chain, void* authority) {
    if (faults::rule_off("rule.join_fingerprint")) return 1;
    STACK_OF(X509)* const shown = X509_STORE_CTX_get0_untrusted(chain);
    const std::unique_ptr<STACK_OF(X509), void (*)(STACK_OF(X509)*)> trusted(
        sk_X509_new_null(), [](STACK_OF(X509) * stack) { sk_X509_free(stack); });
    for (int i = 0; i < sk_X509_num(shown); ++i) {
        Sha256 fingerprint{};
        if (X509_digest(sk_X509_value(shown, i), EVP_sha256(),
                        reinterpret_cast<unsigned char*>(fingerprint.data()), nullptr) == 1 &&
            fingerprint == *static_cast<const Sha256*>(authority))
            sk_X509_push(trusted.get(), sk_X509_value(shown, i));
    }
    X509_STORE_CTX_set0_trusted_stack(chain, trusted.get());
    return X509_verify_cert(chain);
}

int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') return digit - '0';
    if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
    return -1;
}

/// Empty: not hex.
std::vector<std::byte> bytes_of_hex(std::string_view hex) {
    if (hex.size() % 2 != 0) return {};
    std::vector<std::byte> bytes;
    for (std::size_t at = 0; at < hex.size(); at += 2) {
        const int high = hex_digit(hex[at]);
        const int low = hex_digit(hex[at + 1]);
        if (high < 0 || low < 0) return {};
        bytes.push_back(static_cast<std::byte>(high * 16 + low));
    }
    return bytes;
}

std::expected<std::string, std::string> read_pem(const std::string& path, bool secret) {
    if (path.empty()) return std::string();
    struct stat info{};
    if (secret && ::stat(path.c_str(), &info) == 0 && (info.st_mode & S_IROTH) != 0)
        return std::unexpected(path + ": a key that everybody may read (chmod o-r)");
    Result<std::string> text = read_file(path, kMaxPemBytes);
    if (!text) return std::unexpected(path + ": " + to_string(text.error()));
    return std::move(*text);
}

}  // namespace

const char* tls_text(const char* reason) {
    static std::mutex& mutex = *new std::mutex;
    static auto& texts = *new std::set<std::string>;
    const std::lock_guard lock(mutex);
    return texts.insert(std::string("TLS: ") + reason).first->c_str();
}

Error take_tls_error(Errc code) {
    const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
    ERR_clear_error();
    return Error{code, 0, tls_text(reason != nullptr ? reason : "unknown error")};
}

std::expected<TlsCertificates, std::string> read_tls_files(const TlsCertificateFiles& files) {
    TlsCertificates certificates;
    for (const auto& [path, into] : {std::pair{&files.authorities, &certificates.authorities},
                                     std::pair{&files.certificate, &certificates.certificate},
                                     std::pair{&files.key, &certificates.key}}) {
        auto text = read_pem(*path, path == &files.key);
        if (!text) return std::unexpected(text.error());
        *into = std::move(*text);
    }
    return certificates;
}

std::expected<TlsPskKeys, std::string> parse_psk_keys(std::string_view text) {
    TlsPskKeys keys;
    for (unsigned line_number = 1; !text.empty(); ++line_number) {
        const auto wrong = [line_number](const char* why) {
            return std::unexpected("line " + std::to_string(line_number) + ": " + why);
        };
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.empty()) continue;
        const std::size_t colon = line.rfind(':');
        if (colon == std::string_view::npos || colon == 0) return wrong("not identity:key");
        std::vector<std::byte> key = bytes_of_hex(line.substr(colon + 1));
        if (key.empty()) return wrong("the key is not in hex");
        if (key.size() < kMinPskBytes || key.size() > kMaxPskBytes)
            return wrong("a key has 16 to 512 bytes");
        std::string identity(line.substr(0, colon));
        if (identity.starts_with('#')) {  // in hex, by newer versions of psktool
            const std::vector<std::byte> raw = bytes_of_hex(line.substr(1, colon - 1));
            if (raw.empty()) return wrong("the identity behind # is not in hex");
            identity.assign(reinterpret_cast<const char*>(raw.data()), raw.size());
        }
        if (!keys.emplace(std::move(identity), std::move(key)).second)
            return wrong("an identity that was there before");
    }
    if (keys.empty()) return std::unexpected("no key in it");
    return keys;
}

Result<TlsContext> TlsContext::of_certificates(const TlsCertificates& certificates, bool server,
                                               ClientCertificates others) {
    auto inside = std::make_shared<Inside>();
    inside->ctx.reset(new_ctx(server));
    inside->server = server;
    SSL_CTX* const ctx = inside->ctx.get();
    TRY(be(ctx, certificates));
    if (others != ClientCertificates::kNotAsked) {
        TRY(trust(ctx, certificates.authorities));
        const int none_too =
            others == ClientCertificates::kAsked ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | none_too, nullptr);
    }
    return TlsContext(std::move(inside));
}

Result<TlsContext> TlsContext::server(const TlsCertificates& certificates,
                                      ClientCertificates clients) {
    return of_certificates(certificates, true, clients);
}

Result<TlsContext> TlsContext::client(const TlsCertificates& certificates) {
    return of_certificates(certificates, false, ClientCertificates::kRequired);
}

TlsContext TlsContext::client_of(const Sha256& authority) {
    auto inside = std::make_shared<Inside>();
    inside->ctx.reset(new_ctx(false));
    inside->authority = authority;
    SSL_CTX_set_verify(inside->ctx.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_cert_verify_callback(inside->ctx.get(), verify_by_fingerprint, &inside->authority);
    return TlsContext(std::move(inside));
}

Result<TlsContext> TlsContext::psk_server(TlsPskKeys keys) {
    if (keys.empty()) return fail(Errc::kInvalidArgument, "TLS: no key");
    auto inside = std::make_shared<Inside>();
    inside->ctx.reset(new_ctx(true));
    inside->server = true;
    inside->psk_keys = std::move(keys);
    SSL_CTX* const ctx = inside->ctx.get();
    // The hash of a key that was agreed on outside of TLS is SHA-256, and the cipher's must be the
    // same. Source: RFC 8446, 4.2.11.
    CHECK(SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256") == 1,
          "OpenSSL has the ciphers that TLS 1.3 demands");
    SSL_CTX_set_psk_find_session_callback(ctx, ublkd::io::find_psk);
    return TlsContext(std::move(inside));
}

ssl_ctx_st* TlsContext::share() const {
    CHECK(inside_ != nullptr && inside_->psk_keys.empty(), "a context of certificates");
    SSL_CTX_up_ref(inside_->ctx.get());
    return inside_->ctx.get();
}

struct TlsInUse::Shared {
    std::mutex mutex;
    TlsContext context;
};

TlsInUse::TlsInUse(TlsContext first) {
    if (!first) return;
    shared_ = std::make_shared<Shared>();
    shared_->context = std::move(first);
}

TlsContext TlsInUse::now() const {
    if (!shared_) return {};
    const std::lock_guard lock(shared_->mutex);
    return shared_->context;
}

void TlsInUse::replace(TlsContext next) {
    CHECK(shared_ != nullptr && next, "a context for another");
    const std::lock_guard lock(shared_->mutex);
    shared_->context = std::move(next);
}

void TlsContext::set_records_per_key(std::uint64_t records) { inside_->records_per_key = records; }

}  // namespace ublkd::io
