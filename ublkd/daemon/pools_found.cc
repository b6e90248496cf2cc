// What lies in the pools, whatever the metadata say: for metadata that were restored or lost (R16).
#include <algorithm>

#include "ublkd/daemon/pools.h"
#include "ublkd/store/superblock_look.h"

namespace ublkd::daemon {

namespace {

constexpr auto kFindLimit = std::chrono::seconds(10);  // of one pool

}  // namespace

Result<std::vector<FoundReplica>> replicas_found_in(const store::Pool& pool) {
    TRY_ASSIGN(const auto entries, pool.replicas());
    std::vector<FoundReplica> found;
    for (const auto& entry : entries) {
        auto superblock = store::look_at_superblock(entry.folder, entry.id);
        if (!superblock && superblock.error().code == Errc::kNotFound) continue;  // it was removed
        if (!superblock) return fail(superblock.error());
        found.push_back({pool.id(), entry.id, std::move(*superblock)});
    }
    return found;
}

Result<std::vector<FoundReplica>> Pools::find_replicas(std::string* where) {
    std::vector<FoundReplica> found;
    for (const EntryRef& entry : all()) {
        *where = entry->record.path;
        const auto pool = pool_of(entry);
        if (!pool) return fail(Errc::kClosed, "the pool is not there");
        auto here = entry->work.ask(kFindLimit, [pool]() -> Result<std::vector<FoundReplica>> {
            TRY_ASSIGN(const bool in_place, pool->is_in_place());
            if (!in_place) return fail(Errc::kClosed, "the pool's file system is not mounted");
            return replicas_found_in(*pool);
        });
        if (!here) return fail(here.error());
        std::ranges::move(*here, std::back_inserter(found));
    }
    return found;
}

Result<store::Superblock> Pools::superblock_of(PoolId pool, ReplicaId replica) {
    const auto entry = find(pool);
    const auto opened = entry ? pool_of(entry) : nullptr;
    if (!opened) return fail(Errc::kClosed, "the pool is not there");
    return entry->work.ask(kFindLimit, [opened, replica] {
        return store::look_at_superblock(opened->replica_folder(replica), replica);
    });
}

}  // namespace ublkd::daemon
