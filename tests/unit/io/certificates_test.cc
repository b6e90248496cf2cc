// Goal: what certify() signs counts for everybody, names whom the authority says and nobody else,
// and a client that knows a fingerprint alone takes the servers of that authority alone. Method:
// the openssl program judges; both sides of a handshake are ours.
#include "ublkd/io/certificates.h"

#include <gmock/gmock.h>

#include <ctime>
#include <sstream>

#include "tests/unit/io/tls_fixture.h"
#include "tests/unit/io/tls_program.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::io {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kLife = std::chrono::hours(24 * 90);
constexpr const char* kUri = "ublkd:host:one";

class CertificatesTest : public TlsTest {
  protected:
    /// What the openssl program says; `status` is its exit status.
    std::string openssl(const std::vector<std::string>& arguments, int status = 0) {
        std::vector<std::string> words{
            "/bin/sh", "-c", "exec \"$0\" \"$@\" > '" + folder() + "/said' 2>&1 < /dev/null",
            "openssl"};
        words.insert(words.end(), arguments.begin(), arguments.end());
        EXPECT_EQ(Program(words, 0, 1).wait(), status);
        std::ostringstream said;
        said << std::ifstream(folder() + "/said").rdbuf();
        return said.str();
    }
    Result<std::string> issue(const std::string& uri = kUri) {
        return certify(hosts_, *make_request(key_), {.uri = uri, .life = kLife});
    }
    TlsCertificates whole() { return {hosts_.certificate, *issue(), key_}; }
    Outcome shake_hands_by_fingerprint(const Sha256& fingerprint) {
        return shake_hands(server_context(whole(), ClientCertificates::kAsked),
                           TlsContext::client_of(fingerprint));
    }

    const KeyedCertificate hosts_ = make_authority("hosts", 3650 * 24h);
    const std::string key_ = make_private_key();
};

TEST_F(CertificatesTest, OpensslTakesThem) {
    const std::string authority = file("ca.pem", hosts_.certificate);
    const std::string host = file("host.pem", *issue());
    for (const char* purpose : {"sslserver", "sslclient"}) {
        EXPECT_THAT(
            openssl({"verify", "-x509_strict", "-purpose", purpose, "-CAfile", authority, host}),
            HasSubstr("host.pem: OK"));
    }
    const std::string text = openssl({"x509", "-in", host, "-noout", "-text"});
    EXPECT_THAT(text, HasSubstr("URI:ublkd:host:one\n"));
    EXPECT_THAT(text, HasSubstr("CA:FALSE"));
    EXPECT_THAT(text, HasSubstr("ASN1 OID: prime256v1"));
    EXPECT_THAT(openssl({"x509", "-in", authority, "-noout", "-text"}),
                HasSubstr("CA:TRUE, pathlen:0"));
    const auto term = term_of(*issue());
    ASSERT_TRUE(term);
    EXPECT_NEAR(static_cast<double>(term->ends_s),
                static_cast<double>(std::time(nullptr)) + 7776000, 5);
    EXPECT_NEAR(static_cast<double>(term->begins_s), static_cast<double>(std::time(nullptr)) - 3600,
                5);
}

TEST_F(CertificatesTest, AnotherAuthoritysIsNotGood) {
    const KeyedCertificate others = make_authority("hosts", kLife);
    EXPECT_THAT(openssl({"verify", "-CAfile", file("ca.pem", others.certificate),
                         file("host.pem", *issue())},
                        2),
                Not(HasSubstr("OK")));
    EXPECT_EQ(check_certified(*issue(), others.certificate, key_, kUri).error().code,
              Errc::kNotPermitted);
    EXPECT_TRUE(check_certified(*issue(), hosts_.certificate, key_, kUri));
    EXPECT_FALSE(check_certified(*issue(), hosts_.certificate, make_private_key(), kUri));
    EXPECT_FALSE(check_certified(*issue("ublkd:host:two"), hosts_.certificate, key_, kUri));
}

TEST_F(CertificatesTest, ANameBringsNothingElseWithIt) {
    const std::string host = file("host.pem", *issue("ublkd:host:one,URI:ublkd:host:two,CA:TRUE"));
    const std::string text = openssl({"x509", "-in", host, "-noout", "-ext", "subjectAltName"});
    EXPECT_THAT(text, Not(HasSubstr(", URI:ublkd:host:two")));
}

TEST_F(CertificatesTest, OnlyAnOwnersRequestIsSigned) {
    for (const std::string& wrong :
         {std::string(), std::string("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"), key_,
          hosts_.certificate}) {
        EXPECT_FALSE(certify(hosts_, wrong, {.uri = kUri, .life = kLife}));
    }
    // Signed by another key than it has in it.
    std::string forged = *make_request(key_);
    const std::string other = *make_request(make_private_key());
    const auto middle = forged.size() / 2;
    forged = forged.substr(0, middle) + other.substr(middle);
    EXPECT_FALSE(certify(hosts_, forged, {.uri = kUri, .life = kLife}));
    openssl({"req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout",
             folder() + "/rsa.pem", "-out", folder() + "/rsa.csr"});
    std::ostringstream rsa;
    rsa << std::ifstream(folder() + "/rsa.csr").rdbuf();
    EXPECT_FALSE(certify(hosts_, rsa.str(), {.uri = kUri, .life = kLife}));
}

TEST_F(CertificatesTest, AFingerprintIsEnoughToKnowTheServer) {
    const Outcome outcome = shake_hands_by_fingerprint(*fingerprint_of(hosts_.certificate));
    ASSERT_TRUE(*outcome.client) << to_string(outcome.client->error());
    ASSERT_TRUE(*outcome.server) << to_string(outcome.server->error());
    EXPECT_EQ((*outcome.client)->uris, std::vector<std::string>{kUri});
    EXPECT_TRUE((*outcome.server)->uris.empty());
}

TEST_F(CertificatesTest, AServerOfAnotherAuthorityIsNotTakenByItsFingerprint) {
    const Sha256 other = *fingerprint_of(make_authority("hosts", kLife).certificate);
    EXPECT_FALSE(*shake_hands_by_fingerprint(other).client);
    // Nor one that shows the right authority's certificate, and is not signed by it.
    connect_anew();
    const KeyedCertificate liar = make_authority("hosts", kLife);
    const std::string signed_by_liar =
        *certify(liar, *make_request(key_), {.uri = kUri, .life = kLife});
    const TlsCertificates shown{hosts_.certificate, signed_by_liar + hosts_.certificate, key_};
    EXPECT_FALSE(*shake_hands(server_context(shown, ClientCertificates::kAsked),
                              TlsContext::client_of(*fingerprint_of(hosts_.certificate)))
                      .client);
}

#ifdef UBLKD_FAULTS
TEST_F(CertificatesTest, WithoutTheRuleAnyServerIsTaken) {
    ASSERT_TRUE(faults::arm("rule.join_fingerprint=off"));
    EXPECT_TRUE(*shake_hands_by_fingerprint({}).client);
    faults::disarm_all();
}
#endif

TEST_F(CertificatesTest, WhoIsAskedShowsOneThatCountsOrNone) {
    const TestAuthority others("others");
    TlsCertificates strangers = others.issue();
    strangers.authorities = hosts_.certificate;
    EXPECT_FALSE(
        *shake_hands(server_context(whole(), ClientCertificates::kAsked), client_context(strangers))
             .server);
}

TEST_F(CertificatesTest, WhatIsReplacedIsUsedByTheNext) {
    TlsInUse server(server_context(whole()));
    const TlsInUse copy = server;
    const TestAuthority others("others");
    server.replace(server_context(others.issue()));
    ASSERT_TRUE(*shake_hands(copy.now(), client_context(others.issue())).client);
    EXPECT_FALSE(TlsInUse());
    EXPECT_FALSE(TlsInUse(TlsContext()));
}

}  // namespace
}  // namespace ublkd::io
