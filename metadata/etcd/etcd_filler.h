// Puts a whole store into etcd, for a restore and for a move: more than one transaction of etcd
// takes, so the key `state` says meanwhile that the rows are being filled in, and no host uses them
// (EtcdRows gives kBusy). finish() makes them a store, at once. Killed before it, etcd is in charge
// of nothing; who begins anew takes the place of what was begun. Blocking; one thread. Fault
// points: etcd.fill.begun, etcd.fill.rows, etcd.fill.whole. docs/metadata.md, "Moving to etcd".
#pragma once

#include <memory>
#include <string>

#include "metadata/etcd/etcd_form.h"
#include "metadata/etcd/etcd_rows.h"
#include "metadata/whole_store.h"

namespace ublkd::metadata {

class EtcdFiller {
  public:
    /// Of access, prefix and deadline. Nobody is connected to yet.
    static Result<EtcdFiller> make(const EtcdOptions& options);

    /// What is there now.
    Result<EtcdThere> look();
    /// All of `rows` in the place of what is there, which has to be nothing, or what an earlier
    /// call of the same `by` began; or anything, with `replace`. Then they are read again and
    /// compared. Errors: kExists (metadata are there), kBusy (others fill it in), kCorrupt (what is
    /// read is something else), kConflict (others changed it meanwhile).
    Result<void> fill(const AllRows& rows, const std::string& by, bool replace);
    /// What `by` has filled in whole is the metadata from now on. ok where it is already; kNotFound
    /// where it has not.
    Result<void> finish(const std::string& by);

  private:
    EtcdFiller(EtcdKeys keys, std::unique_ptr<EtcdClient> client,
               std::chrono::milliseconds deadline)
        : keys_(std::move(keys)), client_(std::move(client)), deadline_(deadline) {}
    Result<api::Json> call(const char* path, const api::Json& body);
    /// `state` is `text` from now on, and `steps` are done with it, if it still is what `revision`
    /// put there.
    Result<std::uint64_t> set_state(const std::string& text, std::uint64_t revision,
                                    api::Json steps);
    Result<void> put_rows(const AllRows& rows, std::uint64_t revision);
    Result<void> compare(const AllRows& rows);

    EtcdKeys keys_;
    std::unique_ptr<EtcdClient> client_;
    std::chrono::milliseconds deadline_;
};

}  // namespace ublkd::metadata
