// RowService of another host's ublkd, over HTTP/1.1: the client of routes_rows.h. Blocking, each
// call within a deadline; any thread may call, each call has a connection of its own meanwhile,
// which is kept for the next one. What only asks is sent again where a kept connection turns out
// to have ended; a commit never is, since it may have been made (rule.commit_sent_once). A commit
// whose answer was lost is over when this client's next call is answered (routes_rows.cc): what is
// read then stays so.
//
// Owner: who has the OptimisticStore over it. docs/metadata.md, "A store on another host".
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "metadata/row_service.h"
#include "ublkd/io/tls.h"

namespace ublkd::api {

struct RemoteRowsOptions {
    /// The path of a unix socket, https://ADDRESS:PORT, or http://ADDRESS:PORT of this machine
    /// (127.0.0.1, [::1]).
    std::string address;
    io::TlsInUse tls{};                         // a client's, for https
    std::chrono::milliseconds deadline{5'000};  // for one call, connecting included
};

/// Errors beside those of RowService and of the far store: kNotPermitted, kUnsupported (it knows
/// other tables: another version), kProtocol (what answers is no ublkd).
class RemoteRows : public metadata::RowService {
  public:
    /// kInvalidArgument: no such address. Nobody is connected to yet.
    static Result<std::unique_ptr<RemoteRows>> make(const RemoteRowsOptions& options);
    RemoteRows(const RemoteRows&) = delete;
    RemoteRows& operator=(const RemoteRows&) = delete;
    ~RemoteRows() override;

    Result<metadata::Rows> list(const metadata::Table& table,
                                const metadata::Query& query) override;
    Result<metadata::Trial> try_last(const std::vector<metadata::Change>& changes) override;
    Result<metadata::Checked> check(const metadata::Observed& observed) override;
    Result<metadata::Checked> commit(const metadata::Observed& observed) override;

  private:
    struct Impl;
    explicit RemoteRows(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::api
