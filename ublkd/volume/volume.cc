#include "ublkd/volume/volume.h"

#include <algorithm>
#include <utility>

#include "ublkd/base/fault_injection.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {

using replication::OpKind;

const char* to_string(VolumeState state) noexcept {
    switch (state) {
        case VolumeState::kOk:
            return "ok";
        case VolumeState::kDegraded:
            return "degraded";
        case VolumeState::kSyncing:
            return "syncing";
        case VolumeState::kBlocked:
            return "blocked";
    }
    return "unknown";
}

io::Task<Result<std::unique_ptr<Volume>>> Volume::start(io::Reactor* reactor,
                                                        io::BufferPool* buffers,
                                                        VolumeConfig config,
                                                        replication::AuthorityClient* authority,
                                                        VolumeEvents* events) {
    auto driver = std::make_unique<Driver>(reactor, buffers, std::move(config), authority, events);
    CO_TRY(co_await driver->start());
    co_return std::unique_ptr<Volume>(new Volume(std::move(driver)));
}

Volume::Volume(std::unique_ptr<Driver> driver) : driver_(std::move(driver)) {}
Volume::~Volume() = default;

const block::Geometry& Volume::geometry() const { return driver_->geometry(); }
io::Task<Result<void>> Volume::stop(Retries retries) { return driver_->stop(retries); }
void Volume::end_verify() { driver_->end_verify(); }
void Volume::set_on_full(OnFull on_full) { driver_->set_on_full(on_full); }
void Volume::accept(io::Socket socket, peer::Greeted greeted) {
    driver_->accept(std::move(socket), std::move(greeted));
}
Result<void> Volume::set_attachment(AttachmentId attachment, Retries of_former) {
    return driver_->set_attachment(attachment, of_former);
}
void Volume::take_over(const std::set<ReplicaId>& but) { driver_->take_over(but); }

Result<void> Volume::let_go(ReplicaId replica, std::uint64_t number) {
    return driver_->let_go(replica, number);
}
unsigned Volume::connections_of_others() const { return driver_->connections_of_others(); }
VolumeStatus Volume::status() const { return driver_->status(); }
replication::HostReport Volume::known() const { return driver_->known(); }
void Volume::try_disks(PoolId pool) { driver_->try_disks(pool); }

void Volume::close_replica(ReplicaId replica) { driver_->close_replica(replica); }

io::Task<Result<void>> Volume::open_replica(ReplicaPlace place) {
    auto opening = driver_->open_replica(place);
    co_return co_await opening;
}

io::Task<Result<void>> Volume::add_replica(ReplicaPlace place) {
    return driver_->add_replica(std::move(place));
}

namespace {

/// Keeps a request counted while it runs.
class Entered {
  public:
    explicit Entered(io::Gate& gate) : gate_(gate.try_enter() ? &gate : nullptr) {}
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;
    ~Entered() {
        if (gate_ != nullptr) gate_->leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

  private:
    io::Gate* gate_;
};

}  // namespace

io::Task<Result<void>> Volume::set_attachments(std::vector<AttachmentId> wanted,
                                               std::vector<AttachmentId> taken_off,
                                               io::Clock::time_point deadline) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    auto setting = driver_->set_attachments(&wanted, &taken_off, deadline);
    co_return co_await setting;
}

io::Task<Result<VerifyReport>> Volume::verify(OnDifference on_difference) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    auto verifying = driver_->verify(on_difference);
    co_return co_await verifying;
}

io::Task<Result<void>> Volume::do_read(std::uint64_t offset_bytes, std::span<std::byte> into) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    Driver::Waiting request;
    request.kind = OpKind::kRead;
    request.range = Range{offset_bytes, into.size()};
    request.into = into;
    co_await driver_->submitted(request);
    co_return request.result;
}

io::Task<Result<void>> Volume::do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                        block::WriteOptions options) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    Driver::Waiting request;
    request.kind = OpKind::kWrite;
    request.fua = options.fua || driver_->durable_writes();
    request.range = Range{offset_bytes, data.size()};
    request.id = options.id;
    request.data = data;
    co_await driver_->submitted(request);
    co_return request.result;
}

io::Task<Result<void>> Volume::do_flush() {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    Driver::Waiting request;
    request.kind = OpKind::kFlush;
    co_await driver_->submitted(request);
    co_return request.result;
}

io::Task<Result<void>> Volume::do_discard(Range range, block::WriteOptions options) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    Driver::Waiting request;
    request.kind = OpKind::kDiscard;
    request.fua = options.fua || driver_->durable_writes();
    request.range = range;
    request.id = options.id;
    co_await driver_->submitted(request);
    co_return request.result;
}

io::Task<Result<void>> Volume::do_write_zeroes(Range range, block::ZeroOptions options) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    // Whole pages are zeroed by the file system; parts of pages are read and written.
    if (options.fast_only && (!is_aligned(range.offset_bytes, kPageBytes) ||
                              !is_aligned(range.length_bytes, kPageBytes)))
        co_return fail(Errc::kUnsupported, "zeroing parts of pages is not fast");
    Driver::Waiting request;
    request.kind = OpKind::kZero;
    request.fua = options.fua || driver_->durable_writes();
    request.keep_allocated = options.keep_allocated;
    request.range = range;
    request.id = options.id;
    co_await driver_->submitted(request);
    co_return request.result;
}

io::Task<Result<std::vector<block::Extent>>> Volume::do_block_status(Range range,
                                                                     std::size_t max_extents) {
    const Entered entered(driver_->gate());
    if (!entered) co_return fail(Errc::kClosed, "the volume is stopped");
    co_return co_await driver_->block_status(range, max_extents);
}

/// The allocated map is the primary's. A hole is told as zeroes, which who copies the volume does
/// not read: that is an answer to a read, and a primary that was replaced gives none (R2). So a
/// read has to end after it that this primary, under this number, has answered, in a range that is
/// held against changes meanwhile.
io::Task<Result<std::vector<block::Extent>>> Volume::Driver::block_status(Range range,
                                                                          std::size_t max_extents) {
    const Host* const primary = serving();
    if (primary == nullptr)
        co_return std::vector<block::Extent>{block::Extent{.length_bytes = range.length_bytes}};
    if (!links_) co_return co_await primary->replica->block_status(range, max_extents);
    const std::uint64_t number = primary->node.number();
    // R3: what is under way may be taken back by the next primary.
    Waiting hold;
    hold.kind = OpKind::kHold;
    hold.range = range;
    co_await submitted(hold);
    if (!hold.result) co_return fail(hold.result.error());
    auto looking = held_status(primary, number, range, max_extents);
    auto extents = co_await looking;
    client_->release(hold);
    pump();
    co_return extents;
}

io::Task<Result<std::vector<block::Extent>>> Volume::Driver::held_status(const Host* primary,
                                                                         std::uint64_t number,
                                                                         Range range,
                                                                         std::size_t max_extents) {
    const std::vector<block::Extent> data{block::Extent{.length_bytes = range.length_bytes}};
    if (serving() != primary) co_return data;
    auto extents = co_await primary->replica->block_status(range, max_extents);
    const auto is_data = [](const block::Extent& extent) { return extent.allocated; };
    if (!extents || std::ranges::all_of(*extents, is_data)) co_return extents;
    const auto pool = payloads();
    if (!pool) co_return fail(pool.error());
    const io::Buffer sector = co_await (*pool)->acquire(kSectorBytes);
    Waiting request;
    request.kind = OpKind::kRead;
    request.range = Range{range.offset_bytes, kSectorBytes};
    request.into = sector.span();
    co_await submitted(request);
    if (!request.result) co_return fail(request.result.error());
    const bool by_it = serving() == primary && primary->node.number() == number &&
                       client_->record()->number == number;
    if (by_it || faults::rule_off("rule.holes_confirmed")) co_return extents;
    co_return data;
}

// ---- status

const Volume::Driver::Host* Volume::Driver::hanging_member(
    const replication::Membership& record) const {
    for (const auto& host : hosts_) {
        if (host->hangs && record.has(host->place.member.replica)) return host.get();
    }
    return nullptr;
}

replication::HostReport Volume::Driver::known() const {
    replication::HostReport report{.host = {}, .records = {}, .pending = {}};
    for (const auto& host : hosts_) {
        if (host->node.newest_record()) report.records.push_back(*host->node.newest_record());
        if (host->node.proposal()) report.pending.push_back(*host->node.proposal());
    }
    return report;
}

VolumeStatus Volume::Driver::status() const {
    VolumeStatus status;
    status.open_requests = client_->open();
    status.verified_bytes = verified_bytes_;
    const Host* const primary = serving();
    if (!client_->record()) return status;
    const replication::Membership& record =
        primary != nullptr ? *primary->node.record() : *client_->record();
    status.number = record.number;
    status.loss_count = record.loss_count;
    status.data_may_be_lost = record.data_may_be_lost;
    status.primary = record.primary;
    for (const replication::Member& member : record.members)
        status.replicas.push_back(MemberStatus{.member = member,
                                               .is_primary = member.replica == record.primary,
                                               .is_member = true,
                                               .is_joining = false,
                                               .failure = {}});
    if (primary != nullptr && primary->node.joining()) {
        if (const Host* const joining = find(primary->node.joining()); joining != nullptr)
            status.replicas.push_back(MemberStatus{.member = joining->place.member,
                                                   .is_primary = false,
                                                   .is_member = false,
                                                   .is_joining = true,
                                                   .failure = {}});
    }
    for (const Lost& lost : lost_) {
        const auto known = std::find_if(
            status.replicas.begin(), status.replicas.end(),
            [&](const MemberStatus& at) { return at.member.replica == lost.member.replica; });
        if (known != status.replicas.end()) {
            if (!known->is_joining) known->failure = lost.cause;
            continue;
        }
        status.replicas.push_back(MemberStatus{.member = lost.member,
                                               .is_primary = false,
                                               .is_member = false,
                                               .is_joining = false,
                                               .failure = lost.cause});
    }
    if (record.members.size() < wanted_) status.state = VolumeState::kDegraded;
    if (elsewhere(record.primary)) {
        // As far as it is known here: its own host knows more.
        if (client_->parked() == 0 && !client_->silent()) return status;
        status.state = VolumeState::kBlocked;
        status.blocked_by = "R6";
        status.blocked_why = "the primary does not answer this host's requests";
        return status;
    }
    if (primary == nullptr) {
        status.state = VolumeState::kBlocked;
        status.blocked_by = "R7";
        status.blocked_why = "no member serves as primary yet";
        return status;
    }
    const replication::Node& node = primary->node;
    if (node.joining()) {
        status.state = VolumeState::kSyncing;
        status.sync_done_bytes = node.join_done_bytes();
        status.sync_total_bytes = node.join_total_bytes();
    } else if (node.regions_to_copy() != 0) {
        status.state = VolumeState::kSyncing;
        status.sync_done_bytes =
            (node.union_total_regions() - node.regions_to_copy()) * kRegionBytes;
        status.sync_total_bytes = node.union_total_regions() * kRegionBytes;
    }
    if (node.nobody_left()) {
        status.state = VolumeState::kBlocked;
        status.blocked_by = "R14";
        status.blocked_why = "the last member's own disk has failed: requests end in errors";
    } else if (node.self_failed() && node.authority_failures() > 0) {
        status.state = VolumeState::kBlocked;
        status.blocked_by = "R4";
        status.blocked_why =
            "the primary's own disk has failed, and the authority has not answered by which number "
            "another member goes on; requests wait for its outcome";
    } else if (node.proposing() && node.authority_failures() > 0) {
        status.state = VolumeState::kBlocked;
        status.blocked_by = "R4";
        status.blocked_why =
            "the authority has not answered a proposal; acknowledgements wait for its outcome";
    } else if (const Host* const hanging = hanging_member(record); hanging != nullptr) {
        status.state = VolumeState::kBlocked;
        status.blocked_by = "disk";
        status.blocked_why = "the disk of " + hanging->place.member.replica.to_string() + " in " +
                             hanging->place.member.pool.to_string() +
                             " has not answered a request for " +
                             std::to_string(hanging->watch.oldest_ticks()) + " s";
    } else if (node.waiting_for_space() > 0) {
        status.state = VolumeState::kBlocked;
        status.blocked_by = "on-full";
        status.blocked_why = std::to_string(node.waiting_for_space()) +
                             " writes wait for space in a pool that is full";
    }
    return status;
}

}  // namespace ublkd::volume
