// Stopping a volume: what is flushed and marked, and in which order its stores are closed.
#include <algorithm>

#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {

using replication::Membership;

/// All nodes end before the first store is closed: they still answer each other.
io::Task<void> Volume::Driver::quiesce_hosts() {
    step([&] {
        for (const auto& host : hosts_) host->node.stop();
    });
    const auto busy = [](const std::unique_ptr<Host>& host) { return host->node.open_ops() > 0; };
    while (std::any_of(hosts_.begin(), hosts_.end(), busy))
        co_await reactor_->sleep_for(std::chrono::milliseconds(2));
}

io::Task<void> Volume::Driver::close_hosts() {
    co_await quiesce_hosts();
    if (links_) co_await links_->stop();
    while (!hosts_.empty()) co_await close_host(hosts_.back().get());
}

io::Task<Result<void>> Volume::Driver::flush_all() {
    Waiting request;
    request.kind = replication::OpKind::kFlush;
    co_await submitted(request);
    co_return request.result;
}

/// Whether no proposal is under way any more: a flush may wait for that, as may the health check
/// that comes first (R6). Of a volume that was deleted meanwhile each one is declined for ever.
io::Task<bool> Volume::Driver::is_settled() {
    const auto proposing = [](const std::unique_ptr<Host>& host) { return host->node.proposing(); };
    while (std::ranges::any_of(hosts_, proposing)) {
        if (retired_) co_return false;
        co_await reactor_->sleep_for(std::chrono::milliseconds(2));
    }
    co_return true;
}

io::Task<Result<void>> Volume::Driver::stop(Retries retries) {
    CHECK(!stopping_, "a volume is stopped once");
    co_await gate_.close();
    stopping_ = true;
    co_await background_.close();
    Host* const primary = serving();
    if (primary != nullptr && primary->node.joining()) {
        const ReplicaId joining = primary->node.joining();
        step([&] {
            primary->node.on_peer_lost(joining, Error{Errc::kCancelled, 0, "the volume stops"});
        });
    }
    // Members on other hosts go on: what stops here leaves, and comes back by a map. One of them
    // may have become primary, who would answer nobody here.
    const auto& known = client_->record();
    bool alone = !links_ || (known && std::ranges::all_of(known->members, [&](const auto& at) {
                                 return !elsewhere(at.replica);
                             }));
    if (alone) alone = co_await is_settled();
    Result<void> result;
    if (alone) result = co_await flush_all();
    faults::hit("volume.before_clean");
    if (result && alone) result = co_await mark_clean();
    if (result && alone && retries == Retries::kNone) {
        for (const auto& host : hosts_) host->ids_file.remove();
    }
    co_await close_hosts();
    co_return result;
}

/// Everything is durable on all members: their bits are cleared, unless a copy of R7 is still to be
/// done, and they are marked, so that the next start finds them in sync in whatever boot.
io::Task<Result<void>> Volume::Driver::mark_clean() {
    Host* const primary = serving();
    if (primary == nullptr || primary->node.self_failed())
        co_return fail(Errc::kIo, "no primary to stop in order");
    const Membership record = *primary->node.record();
    const bool equal = primary->node.regions_to_copy() == 0 && !primary->node.proposing();
    co_await quiesce_hosts();
    Result<void> result;
    // R10: all have the mark before the first bit is cleared for it.
    std::uint64_t through = 0;
    for (const auto& host : hosts_)
        through = std::max(through, host->replica->superblock().durable_through + 1);
    for (const auto& host : hosts_) {
        if (!equal || !record.has(host->place.member.replica)) continue;
        store::SuperblockChange change;
        change.durable_through = through;
        CO_TRY(co_await host->replica->update_superblock(change));
    }
    for (const auto& host : hosts_) {
        if (!record.has(host->place.member.replica)) continue;
        if (equal) {
            const replication::RegionSet regions = host->activity();
            const auto cleared = co_await host->replica->clear_activity(regions, through);
            if (!cleared) result = fail(cleared.error());
        }
        const auto marked = co_await host->replica->mark_clean();
        if (!marked) result = fail(marked.error());
        faults::hit("volume.marked_clean");
    }
    co_return result;
}

}  // namespace ublkd::volume
