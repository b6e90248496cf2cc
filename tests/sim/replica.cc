// The effects of a node in a run.
#include <algorithm>
#include <utility>

#include "tests/sim/world.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::sim {

using replication::OpKind;

namespace {
constexpr std::uint32_t kHealthMs = 100;

void note_active(const Range& range, std::set<std::uint32_t>* regions) {
    for (std::uint64_t at = range.offset_bytes / kRegion; at * kRegion < range.end_bytes(); ++at)
        regions->insert(static_cast<std::uint32_t>(at));
}
}  // namespace

Replica::Replica(World* owner, Process* where, Disk* own)
    : world(owner),
      process(where),
      place(own),
      serial(owner->next_serial()),
      ids(own->ids.get()),
      node({.volume = kVolume,
            .self = own->member,
            .size_bytes = kVolumeBytes,
            .region_bytes = kRegion,
            .unit_bytes = kUnit,
            .copy_bytes = kPageBytes,
            .copy_bytes_per_second = owner->scenario.copy_bytes_per_second,
            .wait_on_full = owner->scenario.wait_on_full,
            .durable_changes = owner->scenario.durable,
            .health_ms = owner->hosts() ? kHealthMs : 0},
           this, &ids),
      known_lost(own->lost) {
    std::erase_if(own->dirty, [&](const auto& map) {
        return std::none_of(own->lost.begin(), own->lost.end(),
                            [&](const auto& entry) { return entry.replica == map.first; });
    });
}

void Replica::after(std::uint64_t microseconds, std::function<void()> function) {
    world->clock.after(microseconds, &process->running,
                       [this, where = world, id = place->member.replica, mine = serial,
                        function = std::move(function)] {
                           const Replica* const open = where->replica(id);
                           if (open == this && open->serial == mine) function();
                       });
}

void Replica::send(const replication::Message& message) {
    if (message.type == replication::MessageType::kHealth) {
        health_asked = message.token;
        told_well = false;
    }
    if (message.type == replication::MessageType::kAnswer && message.kind == OpKind::kRead &&
        message.failed && message.error.code == Errc::kIo)
        world->check_read_error(*this, message.token);
    if (message.type == replication::MessageType::kAnswer && is_change(message.kind) &&
        !message.failed)
        world->check_answer(*this, message);
    if (message.type == replication::MessageType::kAnswer && message.kind == OpKind::kHold &&
        !message.failed)
        world->check_hold(*this, message.token);
    const bool of_cut = message.kind == OpKind::kCut || message.kind == OpKind::kCutHolds;
    if (message.type == replication::MessageType::kAnswer && of_cut && !message.failed)
        world->check_cut_members(*this, message.cut);
    world->network.send(place->member.replica.value(), message);
}

void Replica::hear_health(const replication::Message& message) {
    if (message.type != replication::MessageType::kHealthy || message.failed) return;
    const auto& record = node.record();
    if (message.token == health_asked && record && message.from == record->primary &&
        message.number == record->number && message.value > 0)
        told_well = true;
}

// ---- the disk

/// As the store does it: a change is noted as active in memory at the call; when that is on the
/// disk, in the maps of who is lost; and when those are, the write begins. A death leaves torn what
/// had begun.
void Replica::disk(const replication::DiskRequest& request) {
    DiskOp op{.id = world->next_serial(), .request = request};
    if (request.kind == OpKind::kFlush) op.snapshot = place->snapshot();
    const std::uint64_t us = world->timing.spread(20, 3000);
    if (is_change(request.kind)) after(us / 2, [this, id = op.id] { begin_disk_op(id); });
    after(us, [this, id = op.id] { end_disk_op(id); });
    disk_ops.push_back(std::move(op));
}

void Replica::begin_disk_op(std::uint64_t id) {
    DiskOp& op = *std::find_if(disk_ops.begin(), disk_ops.end(),
                               [&](const DiskOp& open) { return open.id == id; });
    note_active(op.request.range, &place->activity);
    if (!faults::rule_off("rule.dirty_bit_first")) place->mark_dirty(op.request.range);
    op.begun = true;
}

void Replica::end_disk_op(std::uint64_t id) {
    const auto at = std::find_if(disk_ops.begin(), disk_ops.end(),
                                 [&](const DiskOp& op) { return op.id == id; });
    const DiskOp op = std::move(*at);
    disk_ops.erase(at);
    const replication::DiskRequest& request = op.request;
    const std::size_t first = request.range.offset_bytes / kSectorBytes;
    const std::size_t end = request.range.end_bytes() / kSectorBytes;
    Result<void> result;
    if (place->failed) {
        result = fail(Errc::kIo, "disk");
    } else if (request.kind == OpKind::kWrite && place->full && world->timing.one_in(2)) {
        place->apply(request, &world->timing);
        result = fail(Errc::kNoSpace, "disk");
    } else if (request.kind == OpKind::kRead) {
        std::copy_n(place->now.begin() + static_cast<std::ptrdiff_t>(request.range.offset_bytes),
                    request.into.size(), request.into.begin());
        if (world->unreadable && world->timing.one_in(20)) {
            result = fail(Errc::kIo, "sector");
            place->unread.insert(request.range.offset_bytes);
        }
    } else if (request.kind == OpKind::kFlush) {
        place->flushed(op.snapshot);
    } else if (request.kind == OpKind::kCut) {
        place->cuts[request.cut] = place->now;
    } else {
        place->apply(request, nullptr);
        if (faults::rule_off("rule.dirty_bit_first")) place->mark_dirty(request.range);
        if (request.fua) place->make_durable(first, end);
    }
    if (tracing)
        trace(world->clock.now_us(), "disk %llu: %s, sectors %zu+%zu, token %llx: %s",
              static_cast<unsigned long long>(place->member.replica.value()),
              to_string(request.kind), first, end - first,
              static_cast<unsigned long long>(request.token),
              result ? "done" : ublkd::to_string(result.error().code));
    node.on_disk(request.token, result);
}

void Replica::store(const replication::StoreRequest& request) {
    StoreOp op{.token = request.token, .record = {}, .left_by = {}, .pending = {}, .boot = 0};
    if (request.record != nullptr) op.record = *request.record;
    if (request.pending != nullptr) op.pending = *request.pending;
    op.keep_record = request.keep_record;
    if (request.left_by != nullptr) op.left_by = *request.left_by;
    op.boot = request.in_sync ? process->boot : 0;
    op.ids_anew = request.in_sync && !place->ids_of_member;
    place->ids_of_member = place->ids_of_member || request.in_sync;
    op.durable_through = request.durable_through.value_or(0);
    op.lost = request.lost;
    for (std::size_t i = 0; i < op.lost.size(); ++i) {
        if (!op.lost[i].replica || op.lost[i] == known_lost[i]) continue;
        auto& units = place->dirty[op.lost[i].replica];
        units.clear();
        if (faults::rule_off("rule.map_begins_active")) continue;
        for (const std::uint32_t region : activity()) {
            for (std::uint32_t unit = 0; unit < kRegion / kUnit; ++unit)
                units.insert(region * (kRegion / kUnit) + unit);
        }
    }
    known_lost = op.lost;
    store_ops.push_back(std::move(op));
    after(world->timing.spread(50, 5000), [this] { end_store_op(); });
}

void Replica::apply_store(const StoreOp& op) {
    place->durable_through = std::max(place->durable_through, op.durable_through);
    if (op.marks) return;
    if (!op.keep_record) place->record = op.record;
    place->left_by = op.left_by;
    place->lost = op.lost;
    if (op.pending) place->pending = *op.pending;
    if ((op.boot != place->boot || op.ids_anew) && op.record)
        place->in_sync_from = op.record->number;
    place->boot = op.boot;
    place->clean = false;
}

void Replica::end_store_op() {
    const StoreOp op = std::move(store_ops.front());
    store_ops.pop_front();
    if (place->full && !op.marks && world->timing.one_in(4)) {
        trace(world->clock.now_us(), "superblock %llu finds no space",
              static_cast<unsigned long long>(place->member.replica.value()));
        node.on_stored(op.token, fail(Errc::kNoSpace, "disk"));
        return;
    }
    if (!place->failed) apply_store(op);
    if (op.marks) {
        node.on_marked(op.durable_through,
                       place->failed ? Result<void>(fail(Errc::kIo, "disk")) : Result<void>());
        return;
    }
    if (tracing)
        trace(world->clock.now_us(), "superblock %llu: number %llu%s: %s",
              static_cast<unsigned long long>(place->member.replica.value()),
              static_cast<unsigned long long>(op.record ? op.record->number : 0),
              op.boot != 0 ? ", in sync" : ", out of sync", place->failed ? "failed" : "stored");
    node.on_stored(op.token,
                   place->failed ? Result<void>(fail(Errc::kIo, "disk")) : Result<void>());
}

void Replica::die() {
    if (place->failed) return;
    for (const DiskOp& op : disk_ops) {
        if (op.begun) place->apply(op.request, &world->timing);
    }
    for (const StoreOp& op : store_ops) {
        if (world->timing.one_in(2)) apply_store(op);
    }
}

void Replica::extent(std::uint64_t token, Range range) {
    after(world->timing.spread(10, 200), [this, token, range] {
        const auto zero = [&](std::uint64_t at) {
            return is_all_zero(std::span(place->now).subspan(at, kPageBytes));
        };
        block::Extent extent{.length_bytes = kPageBytes, .allocated = !zero(range.offset_bytes)};
        while (extent.length_bytes < range.length_bytes &&
               zero(range.offset_bytes + extent.length_bytes) == !extent.allocated)
            extent.length_bytes += kPageBytes;
        node.on_extent(token, extent);
    });
}

replication::RegionSet Replica::activity() {
    std::set<std::uint32_t> regions = place->activity;
    for (const DiskOp& op : disk_ops) {
        if (is_change(op.request.kind)) note_active(op.request.range, &regions);
    }
    return {regions.begin(), regions.end()};
}

void Replica::mark(std::uint64_t through) {
    StoreOp op{};
    op.durable_through = through;
    op.marks = true;
    store_ops.push_back(std::move(op));
    after(world->timing.spread(50, 5000), [this] { end_store_op(); });
}

replication::UnitSet Replica::dirty(ReplicaId lost) {
    const auto& units = place->dirty[lost];
    return {units.begin(), units.end()};
}

void Replica::clear_activity(const replication::RegionSet& regions, std::uint64_t through) {
    place->cleared_through = through;
    for (const std::uint32_t region : regions) place->activity.erase(region);
}

// ---- memory, the authority, timers

void Replica::acquire_buffer(std::uint64_t token, std::size_t bytes) {
    after(world->timing.spread(1, 50), [this, token, bytes] {
        buffers.push_back(world->memory(bytes));
        node.on_buffer(token, {.bytes = *buffers.back(),
                               .handle = static_cast<std::uint32_t>(buffers.size() - 1)});
    });
}

void Replica::release_buffer(std::uint32_t handle) {
    // Whoever still reads it would see this.
    std::fill(buffers[handle]->begin(), buffers[handle]->end(), std::byte{0xdd});
}

void Replica::propose(const replication::Proposal& proposal) {
    world->authority.propose(*this, proposal);
}

void Replica::ask_authority() { world->authority.ask(*this); }

void Replica::start_timer(replication::TimerKind kind, std::uint32_t milliseconds) {
    // No rule depends on a clock being right: a timer ends at any time up to what was asked for.
    const std::uint64_t us = world->timing.spread(50, std::uint64_t{milliseconds} * 300 + 100);
    after(us, [this, kind] { node.on_timer(kind); });
}

void Replica::notice(const replication::Notice& notice) { world->on_notice(*this, notice); }

}  // namespace ublkd::sim
