// Replicas that are no members: bringing one in, and closing the stores of those that are out.
#include <algorithm>
#include <utility>

#include "ublkd/volume/host.h"

namespace ublkd::volume {

using replication::Membership;
using replication::Role;

/// Its store, made where there is none.
io::Task<Result<void>> Volume::Driver::open_replica(const ReplicaPlace& place) {
    if (stopping_ || find(place.member.replica) != nullptr)
        co_return fail(Errc::kBusy, "the replica is open");
    const store::ReplicaConfig config{.volume = config_.id,
                                      .incarnation = place.member.replica,
                                      .size_bytes = config_.size_bytes,
                                      .direct = place.direct,
                                      .boot_id = {}};
    const store::StoreOptions options{.budget = place.budget, .worker = place.worker};
    auto opening = store::ReplicaStore::create(reactor_, buffers_, place.folder, config, options);
    auto opened = co_await opening;
    if (!opened && opened.error().code == Errc::kExists) {
        // An interrupted call left it: it is copied from the start.
        auto again = store::ReplicaStore::open(reactor_, buffers_, place.folder, options);
        opened = co_await again;
    }
    if (!opened) co_return fail(opened.error());
    const store::Superblock& superblock = (*opened)->superblock();
    if (superblock.volume != config_.id || superblock.size_bytes != config_.size_bytes)
        co_return fail(Errc::kCorrupt, "a replica of another volume or size in its place");
    if (stopping_ || find(place.member.replica) != nullptr)
        co_return fail(Errc::kBusy, "the membership is being changed");
    std::erase_if(lost_,
                  [&](const Lost& known) { return known.member.replica == place.member.replica; });
    homes_[place.member.replica] = place.member.host;
    CO_TRY_ASSIGN(RunFile ids, RunFile::ids_of(config_.run_dir, config_.id, place.member.replica));
    CO_TRY(add_host(place, std::move(*opened), std::move(ids), false));
    std::erase_if(config_.replicas, [&](const ReplicaPlace& known) {
        return known.member.replica == place.member.replica;
    });
    config_.replicas.push_back(place);
    co_return Result<void>{};
}

io::Task<Result<void>> Volume::Driver::add_replica(ReplicaPlace place) {
    Host* const primary = serving();
    if (primary == nullptr) co_return fail(Errc::kBusy, "the volume does not serve yet");
    const Membership& record = *primary->node.record();
    if (record.has(place.member.replica)) co_return fail(Errc::kExists, "the replica is a member");
    if (record.members.size() >= replication::kMaxMembers)
        co_return fail(Errc::kExhausted, "three members");
    if (primary->node.joining() || find(place.member.replica) != nullptr)
        co_return fail(Errc::kBusy, "a replica is joining already");
    homes_[place.member.replica] = place.member.host;
    if (!elsewhere(place.member.replica)) {
        CO_TRY(co_await open_replica(place));
    }
    // The primary may have changed meanwhile.
    Host* const now = serving();
    if (now == nullptr || now->node.joining() || stopping_) {
        wake_maintenance();  // closes it again
        co_return fail(Errc::kBusy, "the membership is being changed");
    }
    bool added = false;
    step([&] { added = now->node.add(place.member); });
    if (!added) {
        wake_maintenance();  // closes it again
        co_return fail(Errc::kBusy, "the membership is being changed");
    }
    co_return Result<void>{};
}

Result<void> Volume::Driver::let_go(ReplicaId replica, std::uint64_t number) {
    Host* const primary = serving();
    bool going = false;
    if (primary != nullptr) step([&] { going = primary->node.let_go(replica, number); });
    if (!going) return fail(Errc::kBusy, "the membership is being changed");
    return {};
}

void Volume::Driver::close_replica(ReplicaId replica) {
    Host* const host = find(replica);
    if (host == nullptr) return;
    host->unwanted = true;
    if (host->node.role() != Role::kOut) ask_authority();  // where nobody asks it does not know
    wake_maintenance();
}

void Volume::Driver::wake_maintenance() {
    woken_ = true;
    if (stopping_ || maintaining_) return;
    maintaining_ = true;
    io::spawn(background_, maintain());
}

io::Task<void> Volume::Driver::maintain() {
    while (woken_ && !stopping_) {
        woken_ = false;
        co_await reactor_->yield();  // not from inside of a step
        while (!stopping_ && look_after_hosts()) co_await reactor_->yield();
        Host* out = nullptr;
        for (const auto& host : hosts_) {
            const Host* const primary = serving();
            const bool member =
                primary == nullptr || primary->node.record()->has(host->place.member.replica);
            const bool joining =
                primary != nullptr && primary->node.joining() == host->place.member.replica;
            const bool unwanted =
                host->unwanted && host->node.role() == Role::kOut;  // the primary is elsewhere
            if ((!member && !joining) || unwanted) out = host.get();
        }
        if (out != nullptr && !stopping_) {
            out->ids_file.remove();
            co_await close_host(out);
            woken_ = true;
        }
    }
    maintaining_ = false;
}

/// True where something was done that may make more possible.
bool Volume::Driver::look_after_hosts() {
    Host* const primary = serving();
    if (primary == nullptr) return false;
    const Membership record = *primary->node.record();
    for (const auto& host : hosts_) {
        const ReplicaId replica = host->place.member.replica;
        if (host.get() == primary || record.has(replica) || primary->node.joining() == replica)
            continue;
        if (host->node.role() != Role::kOut && host->node.number() < record.number) {
            step([&] { host->node.on_current(&record); });
            if (host->node.role() == Role::kOut) return true;
        }
    }
    return false;
}

/// Its node takes no part any more: waits for what its disk and its peers still have to answer,
/// then closes its store.
io::Task<void> Volume::Driver::close_host(Host* host) {
    step([&] { host->node.stop(); });
    while (host->node.open_ops() > 0 || comparing_ > 0)
        co_await reactor_->sleep_for(std::chrono::milliseconds(2));
    co_await host->gate.close();
    co_await host->replica->close();
    std::erase_if(hosts_, [&](const std::unique_ptr<Host>& known) { return known.get() == host; });
}

}  // namespace ublkd::volume
