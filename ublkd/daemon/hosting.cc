#include "ublkd/daemon/hosting.h"

#include <thread>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/log.h"
#include "ublkd/volume/founding.h"

namespace ublkd::daemon {
namespace {

/// Asks for the places one after the other, beginning with its own, until one is granted.
void ask(const Core& core, VolumeId volume, const std::vector<unsigned>& places, std::size_t first,
         Candidate& candidate) {
    const metadata::Holder holder{core.identity->host(), candidate.place.member.replica};
    for (std::size_t i = 0; i < places.size(); ++i) {
        const unsigned place = places[(first + i) % places.size()];
        const auto answer = core.permissions->request(place_name(volume, place), holder);
        if (!answer) {
            candidate.error = answer.error();
            return;
        }
        if (answer->answer == metadata::PermissionAnswer::kGranted) {
            candidate.granted = place;
            return;
        }
    }
}

/// Another host's prepares and asks by itself.
bool is_here(const Core& core, const Candidate& candidate) {
    return candidate.place.member.host == core.identity->host();
}

void prepare(const Core& core, const metadata::VolumeRecord& volume, Candidate& candidate) {
    if (!is_here(core, candidate)) return;
    volume::VolumeConfig config;
    config.id = volume.id;
    config.size_bytes = volume.size_bytes;
    config.boot_id = core.boot_id;
    Lane& lane = core.engine->lane_of(volume.id);
    const auto made = io::run_on(lane.reactor(), [&] {
        return volume::make_replica(&lane.reactor(), lane.volume_buffers.get(), &config,
                                    &candidate.place);
    });
    if (!made) candidate.error = made.error();
    (void)faults::hit("daemon.hosting.after_prepare");
}

void ask_if_prepared(const Core& core, VolumeId volume, const std::vector<unsigned>& places,
                     std::size_t first, Candidate& candidate) {
    if (candidate.error || !is_here(core, candidate)) return;
    ask(core, volume, places, first, candidate);
    (void)faults::hit("daemon.hosting.after_permission");
}

/// `work(index)` for each candidate, side by side.
template <class Work>
void for_each_of(const std::vector<Candidate>& candidates, Work work) {
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < candidates.size(); ++i)
        threads.emplace_back([&work, i] { work(i); });
}

}  // namespace

Result<std::vector<Candidate>> store_candidates(metadata::Transaction& tx, VolumeId volume,
                                                const std::vector<Candidate>& candidates) {
    std::vector<Candidate> kept;
    for (const Candidate& candidate : candidates) {
        TRY_ASSIGN(const auto pool, tx.get<metadata::PoolRecord>(candidate.place.member.pool));
        if (!pool || pool->state != metadata::PoolState::kAvailable) continue;
        metadata::ReplicaRecord replica;
        replica.id = candidate.place.member.replica;
        replica.volume = volume;
        replica.pool = candidate.place.member.pool;
        replica.created_ms = metadata::now_ms();
        TRY(tx.put(replica));
        kept.push_back(candidate);
    }
    return kept;
}

void prepare_and_ask(const Core& core, const metadata::VolumeRecord& volume,
                     const std::vector<unsigned>& places, std::vector<Candidate>& candidates) {
    for_each_of(candidates, [&](std::size_t i) {
        prepare(core, volume, candidates[i]);
        ask_if_prepared(core, volume.id, places, i, candidates[i]);
    });
}

void prepare_candidates(const Core& core, const metadata::VolumeRecord& volume,
                        std::vector<Candidate>& candidates) {
    for_each_of(candidates, [&](std::size_t i) { prepare(core, volume, candidates[i]); });
}

void ask_for_places(const Core& core, const metadata::VolumeRecord& volume,
                    const std::vector<unsigned>& places, std::vector<Candidate>& candidates) {
    for_each_of(candidates,
                [&](std::size_t i) { ask_if_prepared(core, volume.id, places, i, candidates[i]); });
}

void discard_replica(const Core& core, ReplicaId replica, PoolId pool) {
    const auto removed = core.pools->remove_replica(pool, replica);
    const auto stored = core.store->write([&](metadata::Transaction& tx) -> Result<void> {
        TRY_ASSIGN(auto record, tx.get<metadata::ReplicaRecord>(replica));
        if (!record) return {};
        if (removed) return tx.erase(*record);
        record->state = metadata::ReplicaState::kRemoving;
        return tx.put(*record);
    });
    if (!removed && core.pools->host_of_pool(pool) == core.identity->host())
        log::warn("replica {} will be deleted later: {}", replica.to_string(),
                  to_string(removed.error()));
    if (!stored) log::warn("replica {}: {}", replica.to_string(), to_string(stored.error()));
}

Result<void> seal_member(const Core& core, VolumeId volume, const volume::ReplicaPlace& place,
                         const replication::Membership& record) {
    Lane& lane = core.engine->lane_of(volume);
    return io::run_on(lane.reactor(), [&] {
        return volume::seal_member(&lane.reactor(), lane.volume_buffers.get(), &place, &record);
    });
}

}  // namespace ublkd::daemon
