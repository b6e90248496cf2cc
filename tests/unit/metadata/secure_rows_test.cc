// Goal: a store that is used over TLS is that of a server whose certificate counts, and serves
// clients with a certificate that counts; all others get nothing, and change nothing.
#include <gtest/gtest.h>

#include <chrono>

#include "tests/suites/metadata_suite.h"
#include "tests/unit/io/test_certificates.h"
#include "tests/unit/metadata/http_place.h"

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

TEST_F(SecureRowsTest, HttpsNeedsCertificates) {
    const std::string address = "https:" + std::string("//192.0.2.1:7070");
    const auto made = api::RemoteRows::make({.address = address});
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Errc::kInvalidArgument);
    EXPECT_TRUE(api::RemoteRows::make({.address = address, .tls = client_of(hosts_.issue())}));
}

}  // namespace
}  // namespace ublkd::metadata::test
