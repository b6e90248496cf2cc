#include "tests/unit/io/test_certificates.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <cstdlib>

namespace ublkd::io {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;

constexpr int kDay = 24 * 60 * 60;

void must(bool done) {
    if (!done) std::abort();
}

std::string text_of(BIO* bio) {
    char* text = nullptr;
    const long bytes = BIO_get_mem_data(bio, &text);
    return {text, static_cast<std::size_t>(bytes)};
}

std::string pem_of(X509* certificate) {
    const Bio bio(BIO_new(BIO_s_mem()), &BIO_free);
    must(PEM_write_bio_X509(bio.get(), certificate) == 1);
    return text_of(bio.get());
}

std::string pem_of(EVP_PKEY* key, const EVP_CIPHER* cipher = nullptr) {
    char password[] = "secret";
    const Bio bio(BIO_new(BIO_s_mem()), &BIO_free);
    must(PEM_write_bio_PKCS8PrivateKey(bio.get(), key, cipher,
                                       cipher != nullptr ? password : nullptr,
                                       cipher != nullptr ? 6 : 0, nullptr, nullptr) == 1);
    return text_of(bio.get());
}

void add_extension(X509* certificate, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
    must(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/// Everything but extensions, issuer and signature.
Certificate blank(const std::string& name, EVP_PKEY* key, const TestAuthority::Wanted& wanted) {
    Certificate certificate(X509_new(), &X509_free);
    X509_set_version(certificate.get(), 2);
    std::uint64_t serial = 0;
    must(RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) == 1);
    ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), serial | 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate.get()), wanted.begins_in_days * kDay);
    X509_gmtime_adj(X509_getm_notAfter(certificate.get()), wanted.ends_in_days * kDay);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    must(X509_set_pubkey(certificate.get(), key) == 1);
    return certificate;
}

}  // namespace

struct TestAuthority::Inside {
    Key key{EVP_EC_gen("P-256"), &EVP_PKEY_free};
    Certificate certificate{nullptr, &X509_free};
};

TestAuthority::TestAuthority(const std::string& name) : inside_(std::make_unique<Inside>()) {
    inside_->certificate = blank(name, inside_->key.get(), Wanted());
    X509* const certificate = inside_->certificate.get();
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(certificate, NID_key_usage, "critical,keyCertSign");
    add_extension(certificate, NID_subject_key_identifier, "hash");
    must(X509_sign(certificate, inside_->key.get(), EVP_sha256()) > 0);
}
TestAuthority::~TestAuthority() = default;

std::string TestAuthority::certificate() const { return pem_of(inside_->certificate.get()); }

TlsCertificates TestAuthority::issue(const Wanted& wanted) const {
    const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
    const Certificate certificate = blank("issued", key.get(), wanted);
    X509_set_issuer_name(certificate.get(), X509_get_subject_name(inside_->certificate.get()));
    if (!wanted.names.empty()) add_extension(certificate.get(), NID_subject_alt_name, wanted.names);
    must(X509_sign(certificate.get(), inside_->key.get(), EVP_sha256()) > 0);
    return {.authorities = pem_of(inside_->certificate.get()),
            .certificate = pem_of(certificate.get()),
            .key = pem_of(key.get())};
}

std::string with_password(const std::string& key_pem) {
    const Bio bio(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())), &BIO_free);
    const Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
    must(key != nullptr);
    return pem_of(key.get(), EVP_aes_128_cbc());
}

}  // namespace ublkd::io
