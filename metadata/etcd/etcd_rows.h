// RowService over etcd 3.4 or newer. Rows are keys; beside them a key `state` that each commit puts
// anew, so that its revision names the state of all of them. A mirror in memory (mirror.h) is
// brought up to that state before each answer, and what is asked is asked of the mirror: etcd knows
// no constraints. A commit is one Txn of etcd: if `state` still has the revision of the mirror, the
// rows are put and deleted, and so nothing that it was judged by has changed, rows that came into a
// list included (rule.etcd_state_compared). A Txn whose answer is lost is sent again, since it can
// be made only once, and found out by its client's key. Where that can not be found out within the
// deadline, nothing is answered before it is known that it has been made or never will be
// (rule.etcd_lost_is_over). Blocking; any thread; commits of one process come one after the other.
// Fault points: etcd.before_commit, etcd.after_commit.
//
// Owner: who has the OptimisticStore over it. docs/metadata.md, "etcd".
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "metadata/etcd/etcd_client.h"
#include "metadata/row_service.h"

namespace ublkd::metadata {

struct EtcdOptions {
    EtcdAccess access = {};
    std::string prefix = "ublkd";               // of all keys
    std::string seen_file = {};                 // etcd_seen.h; "": none
    std::chrono::milliseconds deadline{5'000};  // for one call
};

/// Errors beside those of RowService: kStale (etcd shows an older state than was seen, or it is
/// another cluster), kNotPermitted, kUnsupported (of another version of ublkd), kCorrupt.
class EtcdRows : public RowService {
  public:
    /// kInvalidArgument, kBusy (another process uses the seen file). Nobody is connected to yet.
    static Result<std::unique_ptr<EtcdRows>> make(const EtcdOptions& options);
    EtcdRows(const EtcdRows&) = delete;
    EtcdRows& operator=(const EtcdRows&) = delete;
    ~EtcdRows() override;

    Result<Rows> list(const Table& table, const Query& query) override;
    Result<Trial> try_last(const std::vector<Change>& changes) override;
    Result<Checked> check(const Observed& observed) override;
    Result<Checked> commit(const Observed& observed) override;

  private:
    struct Impl;
    explicit EtcdRows(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace ublkd::metadata
