// Goal: a store that is used over TLS is that of a server whose certificate counts, and serves
// clients with a certificate that counts; all others get nothing, and change nothing. Where the
// server lets in who has none, such a one gets at the routes that are for it, and few at once.
#include <gtest/gtest.h>

#include <chrono>

#include "tests/suites/metadata_suite.h"
#include "tests/unit/io/test_certificates.h"
#include "tests/unit/metadata/http_place.h"
#include "ublkd/api/http_line.h"
#include "ublkd/api/post.h"
#include "ublkd/io/certificates.h"

namespace ublkd::metadata::test {
namespace {

io::TlsContext server_of(const io::TlsCertificates& certificates) {
    return *io::TlsContext::server(certificates);
}
io::TlsContext client_of(const io::TlsCertificates& certificates) {
    return *io::TlsContext::client(certificates);
}

Result<void> put_one(MetadataStore& store, const std::string& name) {
    return store.write([&](Transaction& tx) -> Result<void> {
        CounterRecord record{.name = name, .value = 1};
        return tx.put(record);
    });
}

class SecureRowsTest : public ::testing::Test {
  protected:
    void serve(const io::TlsCertificates& certificates) {
        sqlite_ = *SqliteStore::open(folder_.file("metadata.db"));
        server_ = std::make_unique<RowsServer>(
            sqlite_.get(), folder_.file("rows.sock"),
            api::TlsListen{.address = "127.0.0.1", .context = server_of(certificates)});
        ASSERT_NE(server_->tls_port(), 0);
    }
    std::string address() const {
        return "https:" + ("//127.0.0.1:" + std::to_string(server_->tls_port()));
    }
    std::unique_ptr<RemoteStore> client(const io::TlsCertificates& certificates) const {
        return std::make_unique<RemoteStore>(address(), std::chrono::milliseconds(10'000),
                                             client_of(certificates));
    }
    bool is_there(const std::string& name) const {
        return sqlite_->get<CounterRecord>(name)->has_value();
    }

    TemporaryFolder folder_;
    io::TestAuthority hosts_;
    std::unique_ptr<SqliteStore> sqlite_;
    std::unique_ptr<RowsServer> server_;
};

TEST_F(SecureRowsTest, WhoHasACertificateUsesTheStore) {
    serve(hosts_.issue());
    const auto store = client(hosts_.issue());
    for (const char* name : {"a", "b", "c"}) {
        const auto put = put_one(*store, name);
        ASSERT_TRUE(put) << to_string(put.error());
        EXPECT_TRUE(is_there(name));
        EXPECT_TRUE(store->get<CounterRecord>(std::string(name))->has_value());
    }
}

TEST_F(SecureRowsTest, ACertificateOfAnotherAuthorityChangesNothing) {
    serve(hosts_.issue());
    const io::TestAuthority others("others");
    io::TlsCertificates forged = others.issue();
    forged.authorities = hosts_.certificate();
    const auto store = client(forged);
    EXPECT_FALSE(put_one(*store, "a"));
    EXPECT_FALSE(store->get<CounterRecord>(std::string("a")));
    EXPECT_FALSE(is_there("a"));
}

TEST_F(SecureRowsTest, AServerOfAnotherAuthorityIsToldNothing) {
    const io::TestAuthority others("others");
    serve(others.issue());
    const auto store = client(hosts_.issue());
    const auto put = put_one(*store, "a");
    ASSERT_FALSE(put);
    EXPECT_EQ(put.error().code, Errc::kClosed);
    EXPECT_FALSE(is_there("a"));
}

class StrangersTest : public SecureRowsTest {
  protected:
    StrangersTest() {
        strangers_.add({api::Method::kPost, "/v1/hello", "Hello",
                        [](const api::Request& request) -> api::ApiResult<api::Json> {
                            return api::Json::object().set(
                                "Certified", request.caller.certified.empty() ? "no" : "yes");
                        }});
        const std::string key = io::make_private_key();
        const std::string certificate =
            *io::certify(authority_, *io::make_request(key),
                         {.uri = "ublkd:host:one", .life = std::chrono::hours(1)});
        own_ = {authority_.certificate, certificate, key};
        sqlite_ = *SqliteStore::open(folder_.file("metadata.db"));
        server_ = std::make_unique<RowsServer>(
            sqlite_.get(), folder_.file("rows.sock"),
            api::TlsListen{.address = "127.0.0.1",
                           .context = *io::TlsContext::server(own_, io::ClientCertificates::kAsked),
                           .strangers = &strangers_});
    }
    io::TlsContext nobody() const {
        return io::TlsContext::client_of(*io::fingerprint_of(authority_.certificate));
    }
    api::ApiResult<api::Json> ask(const io::TlsContext& context, const std::string& path) const {
        return api::post(context,
                         {.address = address(), .path = path, .body = api::Json::object()});
    }

    api::RouteTable strangers_{[] { return true; }};
    const io::KeyedCertificate authority_ = io::make_authority("hosts", std::chrono::hours(1));
    io::TlsCertificates own_;
};

TEST_F(StrangersTest, HaveRoutesOfTheirOwnAlone) {
    const auto told = ask(nobody(), "/v1/hello");
    ASSERT_TRUE(told) << told.error().message;
    EXPECT_EQ((*told)["Certified"].as_string(), "no");
    EXPECT_EQ(ask(nobody(), "/v1/rows/list").error().code, "InvalidAction.NotFound");
    // Nor are theirs for hosts.
    EXPECT_EQ(ask(client_of(own_), "/v1/hello").error().code, "InvalidAction.NotFound");
    EXPECT_EQ(ask(client_of(own_), "/v1/rows/list").error().code, "UnsupportedOperation");
}

TEST_F(StrangersTest, AFewAtOnceAreLetInAndHostsAllTheSame) {
    const auto far = *api::http_endpoint_of(address(), true);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    std::vector<std::unique_ptr<api::HttpLine>> idle;
    for (int i = 0; i < 8; ++i) {
        idle.push_back(std::make_unique<api::HttpLine>(nobody(), 1024));
        ASSERT_FALSE(idle.back()->connect(far, deadline));
    }
    EXPECT_FALSE(ask(nobody(), "/v1/hello"));
    EXPECT_TRUE(put_one(*client(own_), "a"));
    idle.clear();
    while (!ask(nobody(), "/v1/hello")) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
}

TEST_F(SecureRowsTest, HttpsNeedsCertificates) {
    const std::string address = "https:" + std::string("//192.0.2.1:7070");
    const auto made = api::RemoteRows::make({.address = address});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Errc::kInvalidArgument);
    EXPECT_TRUE(api::RemoteRows::make({.address = address, .tls = client_of(hosts_.issue())}));
}

}  // namespace
}  // namespace ublkd::metadata::test
