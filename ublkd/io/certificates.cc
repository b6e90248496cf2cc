#include "ublkd/io/certificates.h"

#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <memory>

#include "ublkd/base/check.h"

namespace ublkd::io {
namespace {

template <auto Free>
struct FreedBy {
    template <class T>
    void operator()(T* object) const {
        Free(object);
    }
};
using Memory = std::unique_ptr<BIO, FreedBy<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, FreedBy<X509_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, FreedBy<X509_REQ_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreedBy<EVP_PKEY_free>>;
using NumberPtr = std::unique_ptr<BIGNUM, FreedBy<BN_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, FreedBy<GENERAL_NAMES_free>>;

constexpr int kVersion3 = 2;
constexpr std::int64_t kMostBackdated = 3600;

int ask_no_password(char*, int, int, void*) { return -1; }

Memory memory_of(const std::string& text) {
    return Memory(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string text_of(const Memory& memory) {
    char* begin = nullptr;
    const long length = BIO_get_mem_data(memory.get(), &begin);
    return {begin, static_cast<std::size_t>(length)};
}

std::unexpected<Error> not_good(const char* what, Errc code = Errc::kInvalidArgument) {
    ERR_clear_error();
    return fail(code, what);
}

Result<X509Ptr> certificate_of(const std::string& pem) {
    X509Ptr made(PEM_read_bio_X509(memory_of(pem).get(), nullptr, ask_no_password, nullptr));
    if (!made) return not_good("the certificate is not PEM");
    return made;
}

Result<KeyPtr> key_of(const std::string& pem) {
    KeyPtr made(PEM_read_bio_PrivateKey(memory_of(pem).get(), nullptr, ask_no_password, nullptr));
    if (!made) return not_good("the key is not PEM");
    return made;
}

std::string pem_of(const X509* certificate) {
    const Memory memory(BIO_new(BIO_s_mem()));
    CHECK(PEM_write_bio_X509(memory.get(), certificate) == 1, "OpenSSL writes what it has made");
    return text_of(memory);
}

std::string pem_of(const EVP_PKEY* key) {
    const Memory memory(BIO_new(BIO_s_mem()));
    CHECK(PEM_write_bio_PrivateKey(memory.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
          "OpenSSL writes what it has made");
    return text_of(memory);
}

/// `named`, `issuer`: common names.
struct Draft {
    std::string named;
    const X509* issuer = nullptr;  // nullptr: itself
    std::int64_t begins_s = 0;
    std::int64_t life_s = 0;
};

X509Ptr begin_certificate(const Draft& draft, EVP_PKEY* key) {
    X509Ptr made(X509_new());
    const NumberPtr serial(BN_new());
    // 159 bits: positive, and 20 bytes at most. Source: RFC 5280, 4.1.2.2.
    const auto* const name = reinterpret_cast<const unsigned char*>(draft.named.c_str());
    const bool good =
        made && serial && X509_set_version(made.get(), kVersion3) == 1 &&
        BN_rand(serial.get(), 159, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
        BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(made.get())) != nullptr &&
        ASN1_TIME_set(X509_getm_notBefore(made.get()), draft.begins_s) != nullptr &&
        ASN1_TIME_set(X509_getm_notAfter(made.get()), draft.begins_s + draft.life_s) != nullptr &&
        X509_NAME_add_entry_by_txt(X509_get_subject_name(made.get()), "CN", MBSTRING_UTF8, name, -1,
                                   -1, 0) == 1 &&
        X509_set_issuer_name(
            made.get(),
            X509_get_subject_name(draft.issuer != nullptr ? draft.issuer : made.get())) == 1 &&
        X509_set_pubkey(made.get(), key) == 1;
    CHECK(good, "a certificate can be drafted");
    return made;
}

void extend(X509* certificate, const X509* issuer, int nid, const std::string& value) {
    X509V3_CTX context{};
    X509V3_set_ctx(&context, const_cast<X509*>(issuer), certificate, nullptr, nullptr, 0);
    const std::unique_ptr<X509_EXTENSION, FreedBy<X509_EXTENSION_free>> extension(
        X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
    CHECK(extension && X509_add_ext(certificate, extension.get(), -1) == 1,
          "an extension of this form");
}

/// Not by a configuration's text: the URI is another's.
void name_uri(X509* certificate, const std::string& uri) {
    const NamesPtr names(GENERAL_NAMES_new());
    GENERAL_NAME* const name = GENERAL_NAME_new();
    ASN1_IA5STRING* const text = ASN1_IA5STRING_new();
    CHECK(names && name != nullptr && text != nullptr &&
              ASN1_STRING_set(text, uri.data(), static_cast<int>(uri.size())) == 1,
          "OpenSSL has memory for a name");
    GENERAL_NAME_set0_value(name, GEN_URI, text);
    sk_GENERAL_NAME_push(names.get(), name);
    CHECK(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0,
                            X509V3_ADD_DEFAULT) == 1,
          "a name can be added");
}

/// A key on another curve, or of another kind, may be weak.
bool is_p256(const EVP_PKEY* key) {
    char group[32] = {};
    std::size_t length = 0;
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
           EVP_PKEY_get_group_name(key, group, sizeof group, &length) == 1 &&
           std::string_view(group, length) == "prime256v1";
}

std::int64_t seconds_of(const ASN1_TIME* time) {
    std::tm parts{};
    if (ASN1_TIME_to_tm(time, &parts) != 1) return 0;
    return timegm(&parts);
}

bool has_uri(const X509* certificate, const std::string& uri) {
    const NamesPtr names(static_cast<GENERAL_NAMES*>(
        X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
    for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
        const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
        if (name->type != GEN_URI) continue;
        const auto* const text = name->d.uniformResourceIdentifier;
        if (std::string_view(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                             static_cast<std::size_t>(ASN1_STRING_length(text))) == uri)
            return true;
    }
    return false;
}

}  // namespace

std::string make_private_key() {
    const KeyPtr key(EVP_EC_gen("P-256"));
    CHECK(key != nullptr, "OpenSSL makes a key");
    return pem_of(key.get());
}

KeyedCertificate make_authority(const std::string& name, std::chrono::seconds life) {
    const KeyPtr key(EVP_EC_gen("P-256"));
    CHECK(key != nullptr, "OpenSSL makes a key");
    const X509Ptr made = begin_certificate({.named = name,
                                            .begins_s = std::time(nullptr) - kMostBackdated,
                                            .life_s = life.count() + kMostBackdated},
                                           key.get());
    extend(made.get(), made.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    extend(made.get(), made.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
    extend(made.get(), made.get(), NID_subject_key_identifier, "hash");
    CHECK(X509_sign(made.get(), key.get(), EVP_sha256()) > 0, "a certificate can be signed");
    return {pem_of(made.get()), pem_of(key.get())};
}

Result<std::string> make_request(const std::string& key) {
    TRY_ASSIGN(const KeyPtr owned, key_of(key));
    const RequestPtr request(X509_REQ_new());
    const Memory memory(BIO_new(BIO_s_mem()));
    if (!request || X509_REQ_set_pubkey(request.get(), owned.get()) != 1 ||
        X509_REQ_sign(request.get(), owned.get(), EVP_sha256()) <= 0 ||
        PEM_write_bio_X509_REQ(memory.get(), request.get()) != 1)
        return not_good("a request cannot be made with this key");
    return text_of(memory);
}

Result<std::string> certify(const KeyedCertificate& authority, const std::string& request,
                            const Certified& what) {
    TRY_ASSIGN(const X509Ptr issuer, certificate_of(authority.certificate));
    TRY_ASSIGN(const KeyPtr key, key_of(authority.key));
    const RequestPtr asked(
        PEM_read_bio_X509_REQ(memory_of(request).get(), nullptr, ask_no_password, nullptr));
    if (!asked) return not_good("the request is not PEM");
    EVP_PKEY* const owned = X509_REQ_get0_pubkey(asked.get());
    if (owned == nullptr || !is_p256(owned) || X509_REQ_verify(asked.get(), owned) != 1)
        return not_good("the request is not signed by the owner of a key on P-256");
    const std::int64_t backdated = std::min<std::int64_t>(kMostBackdated, what.life.count() / 100);
    const X509Ptr made = begin_certificate({.named = "ublkd",
                                            .issuer = issuer.get(),
                                            .begins_s = std::time(nullptr) - backdated,
                                            .life_s = what.life.count() + backdated},
                                           owned);
    extend(made.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE");
    extend(made.get(), issuer.get(), NID_key_usage, "critical,digitalSignature");
    extend(made.get(), issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth");
    extend(made.get(), issuer.get(), NID_authority_key_identifier, "keyid");
    name_uri(made.get(), what.uri);
    if (X509_sign(made.get(), key.get(), EVP_sha256()) <= 0)
        return not_good("the authority's key does not sign");
    return pem_of(made.get()) + pem_of(issuer.get());
}

Result<CertificateTerm> term_of(const std::string& certificate) {
    TRY_ASSIGN(const X509Ptr read, certificate_of(certificate));
    CertificateTerm term{seconds_of(X509_get0_notBefore(read.get())),
                         seconds_of(X509_get0_notAfter(read.get())),
                         {}};
    const NumberPtr serial(ASN1_INTEGER_to_BN(X509_get0_serialNumber(read.get()), nullptr));
    char* const digits = serial ? BN_bn2hex(serial.get()) : nullptr;
    if (digits != nullptr) term.serial = digits;
    OPENSSL_free(digits);
    return term;
}

Result<Sha256> fingerprint_of(const std::string& certificate) {
    TRY_ASSIGN(const X509Ptr read, certificate_of(certificate));
    Sha256 fingerprint{};
    CHECK(X509_digest(read.get(), EVP_sha256(),
                      reinterpret_cast<unsigned char*>(fingerprint.data()), nullptr) == 1,
          "a certificate has a digest");
    return fingerprint;
}

Result<void> check_certified(const std::string& certificate, const std::string& authority,
                             const std::string& key, const std::string& uri) {
    TRY_ASSIGN(const X509Ptr read, certificate_of(certificate));
    TRY_ASSIGN(const X509Ptr issuer, certificate_of(authority));
    TRY_ASSIGN(const KeyPtr owned, key_of(key));
    if (X509_verify(read.get(), X509_get0_pubkey(issuer.get())) != 1)
        return not_good("the certificate is not signed by the authority", Errc::kNotPermitted);
    if (X509_check_private_key(read.get(), owned.get()) != 1)
        return not_good("the certificate is another key's", Errc::kNotPermitted);
    if (!has_uri(read.get(), uri))
        return not_good("the certificate is another host's", Errc::kNotPermitted);
    return {};
}

Sha256 sha256(std::span<const std::byte> bytes) {
    Sha256 digest{};
    CHECK(EVP_Digest(bytes.data(), bytes.size(), reinterpret_cast<unsigned char*>(digest.data()),
                     nullptr, EVP_sha256(), nullptr) == 1,
          "OpenSSL knows SHA-256");
    return digest;
}

Sha256 random_secret() {
    Sha256 secret{};
    CHECK(RAND_priv_bytes(reinterpret_cast<unsigned char*>(secret.data()),
                          static_cast<int>(secret.size())) == 1,
          "OpenSSL has random numbers");
    return secret;
}

bool is_same_secret(const Sha256& one, const Sha256& other) {
    return CRYPTO_memcmp(one.data(), other.data(), one.size()) == 0;
}

}  // namespace ublkd::io
