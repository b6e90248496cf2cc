#include "ublkd/volume/founding.h"

#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::volume {

using store::ReplicaStore;

io::Task<Result<void>> make_replica(io::Reactor* reactor, io::BufferPool* buffers,
                                    const VolumeConfig* volume, const ReplicaPlace* place) {
    const store::ReplicaConfig config{.volume = volume->id,
                                      .incarnation = place->member.replica,
                                      .size_bytes = volume->size_bytes,
                                      .direct = place->direct,
                                      .boot_id = volume->boot_id};
    store::StoreOptions options{.budget = place->budget, .worker = place->worker};
    auto making = ReplicaStore::create(reactor, buffers, place->folder, config, options);
    auto made = co_await making;
    if (!made) co_return fail(made.error());
    co_return Result<void>();  // made clean; closed here
}

static io::Task<Result<void>> seal(ReplicaStore* replica, const replication::Membership* record) {
    store::SuperblockChange change;
    change.number = record->number;
    change.record = store::RecordBytes(replication::encode(*record));
    auto updating = replica->update_superblock(change);
    CO_TRY(co_await updating);
    auto marking = replica->mark_clean();
    co_return co_await marking;
}

io::Task<Result<void>> seal_member(io::Reactor* reactor, io::BufferPool* buffers,
                                   const ReplicaPlace* place,
                                   const replication::Membership* record) {
    store::StoreOptions options{.budget = place->budget, .worker = place->worker};
    auto opening = ReplicaStore::open(reactor, buffers, place->folder, options);
    auto opened = co_await opening;
    if (!opened) co_return fail(opened.error());
    if ((*opened)->superblock().number != 0) {
        auto leaving = (*opened)->close();
        co_await leaving;
        co_return Result<void>{};
    }
    auto sealing = seal(opened->get(), record);
    const Result<void> sealed = co_await sealing;
    auto closing = (*opened)->close();
    co_await closing;
    co_return sealed;
}

}  // namespace ublkd::volume
