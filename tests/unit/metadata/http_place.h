// A SqliteStore that is used over HTTP: the server with its threads as in a daemon, and an
// OptimisticStore over its client.
#pragma once

#include <memory>
#include <string>

#include "metadata/local_rows.h"
#include "metadata/optimistic_store.h"
#include "tests/unit/metadata/sqlite_fixture.h"
#include "ublkd/api/remote_rows.h"
#include "ublkd/api/route_table.h"
#include "ublkd/api/routes_rows.h"
#include "ublkd/api/row_json.h"
#include "ublkd/api/server.h"

namespace ublkd::metadata::test {

/// Serves `store` at `socket`.
class RowsServer {
  public:
    RowsServer(MetadataStore* store, const std::string& socket,
               std::optional<api::TlsListen> tls = {})
        : rows_(store) {
        api::add_row_routes(table_, &rows_);
        auto listening = api::Server::listen(
            {.socket_path = socket, .max_body_bytes = api::kRowsBodyMax, .tls = std::move(tls)});
        EXPECT_TRUE(listening) << to_string(listening.error());
        server_ = std::move(*listening);
        server_->serve(&table_);
    }
    std::uint16_t tls_port() const { return server_->tls_port(); }
    const api::RouteTable& table() const { return table_; }

  private:
    LocalRows rows_;
    api::RouteTable table_{[] { return true; }};
    std::unique_ptr<api::Server> server_;  // ends first
};

/// A client of its own.
class RemoteStore : private std::unique_ptr<api::RemoteRows>, public OptimisticStore {
  public:
    explicit RemoteStore(const std::string& address,
                         std::chrono::milliseconds deadline = std::chrono::milliseconds(60'000),
                         io::TlsContext tls = {})
        : std::unique_ptr<api::RemoteRows>(*api::RemoteRows::make(
              {.address = address, .tls = std::move(tls), .deadline = deadline})),
          OptimisticStore(this->std::unique_ptr<api::RemoteRows>::get()) {}
    using OptimisticStore::get;
};

class HttpPlace : public MetadataPlace {
  public:
    Result<std::unique_ptr<MetadataStore>> open() override {
        auto opened = SqliteStore::open(folder_.file("metadata.db"));
        if (!opened) return fail(opened.error());
        return std::make_unique<Stack>(std::move(*opened), folder_.file("rows.sock"));
    }

  private:
    struct Served {
        Served(std::unique_ptr<SqliteStore> opened, const std::string& socket)
            : store(std::move(opened)), server(store.get(), socket) {}
        std::unique_ptr<SqliteStore> store;
        RowsServer server;
    };
    struct Stack : private Served, public RemoteStore {
        Stack(std::unique_ptr<SqliteStore> opened, const std::string& socket)
            : Served(std::move(opened), socket), RemoteStore(socket) {}
    };
    TemporaryFolder folder_;
};

inline std::unique_ptr<MetadataPlace> make_http_place() { return std::make_unique<HttpPlace>(); }

}  // namespace ublkd::metadata::test
