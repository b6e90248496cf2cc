// Comparing the members of a volume, and repairing on an operator's word (R14). Each range is held
// against writes (kHold) while it is read from every member's store, so the volume serves meanwhile
// and no write under way is taken for a difference. Nothing is written here: what differs the
// primary is asked to make equal (kMakeEqual).
#include <algorithm>
#include <cstring>

#include "ublkd/base/fault_injection.h"
#include "ublkd/volume/host.h"

namespace ublkd::volume {

using replication::OpKind;

namespace {

/// What status() tells of a verify ends with it.
class VerifiedBytes {
  public:
    explicit VerifiedBytes(std::optional<std::uint64_t>* told) : told_(told) {}
    VerifiedBytes(const VerifiedBytes&) = delete;
    VerifiedBytes& operator=(const VerifiedBytes&) = delete;
    ~VerifiedBytes() { told_->reset(); }

  private:
    std::optional<std::uint64_t>* told_;
};

}  // namespace

io::Task<Result<VerifyReport>> Volume::Driver::verify(OnDifference on_difference) {
    VerifyReport report;
    std::uint64_t at = 0;
    const VerifiedBytes told(&verified_bytes_);
    while (at < config_.size_bytes) {
        verified_bytes_ = at;
        if (verify_ends_ || gate_.is_closed()) co_return fail(Errc::kCancelled, "the volume stops");
        const Range range{at, std::min<std::uint64_t>(kMaxIoBytes, config_.size_bytes - at)};
        Waiting hold;
        hold.kind = OpKind::kHold;
        hold.range = range;
        co_await submitted_by_host(hold);
        if (!hold.result) co_return fail(hold.result.error());
        VerifyReport part;
        Differing differing;
        ++comparing_;
        const Result<void> compared = co_await compare(range, &part, &differing);
        --comparing_;
        const bool held = !hold.lost;
        const std::uint64_t number = own_client_.record()->number;
        own_client_.release(hold);
        pump();
        if (!held) continue;  // the primary changed meanwhile: once more
        if (!compared) co_return fail(compared.error());
        if (on_difference == OnDifference::kRepair) {
            CO_TRY(co_await make_equal(&differing, &report.repaired_bytes));
        }
        if (own_client_.record()->number != number) continue;  // so did who was to be made equal
        report.members = part.members;
        report.compared_bytes += part.compared_bytes;
        report.differing_bytes += part.differing_bytes;
        if (!report.first_difference_bytes)
            report.first_difference_bytes = part.first_difference_bytes;
        at = range.end_bytes();
    }
    co_return report;
}

/// The members of the record that live here, the primary first: its content is what guests read.
std::vector<Volume::Driver::Host*> Volume::Driver::members_from_primary() const {
    std::vector<Host*> members;
    Host* const primary = serving();
    if (primary == nullptr) return members;
    members.push_back(primary);
    for (const auto& host : hosts_) {
        if (host.get() != primary && primary->node.record()->has(host->place.member.replica))
            members.push_back(host.get());
    }
    return members;
}

/// Compares `range`, which no write changes meanwhile, between the primary and each other member.
io::Task<Result<void>> Volume::Driver::compare(Range range, VerifyReport* report,
                                               Differing* differing) {
    const std::vector<Host*> members = members_from_primary();
    if (members.empty()) co_return fail(Errc::kBusy, "the volume does not serve");
    bool holes = true;
    for (Host* const host : members) {
        const auto extents = co_await host->replica->block_status(range, 1);
        if (!extents) co_return fail(extents.error());
        holes = holes && !extents->front().allocated &&
                extents->front().length_bytes == range.length_bytes;
    }
    report->members = members.size();
    report->compared_bytes = range.length_bytes;
    if (holes || members.size() < 2) co_return Result<void>{};
    const auto pool = payloads();
    if (!pool) co_return fail(pool.error());
    const io::Buffer first = co_await (*pool)->acquire(range.length_bytes);
    const io::Buffer other = co_await (*pool)->acquire(range.length_bytes);
    CO_TRY(co_await members.front()->replica->read(range.offset_bytes, first.span()));
    for (std::size_t i = 1; i < members.size(); ++i) {
        CO_TRY(co_await members[i]->replica->read(range.offset_bytes, other.span()));
        for (std::uint64_t at = 0; at < range.length_bytes; at += kPageBytes) {
            const auto bytes = std::min<std::uint64_t>(kPageBytes, range.length_bytes - at);
            if (std::memcmp(first.data() + at, other.data() + at, bytes) == 0) continue;
            report->differing_bytes += bytes;
            (*differing)[range.offset_bytes + at] += bytes;
        }
    }
    if (!differing->empty()) report->first_difference_bytes = differing->begin()->first;
    co_return Result<void>{};
}

/// The primary reads each page again under a lock of its own, and each other member has it durably,
/// and has read it back, before that is given up: so it overwrites nothing newer, and who takes
/// over meanwhile has ended it first (R7).
io::Task<Result<void>> Volume::Driver::make_equal(const Differing* differing,
                                                  std::uint64_t* repaired_bytes) {
    for (const auto& [page, bytes] : *differing) {
        faults::hit("volume.before_repair");
        Waiting request;
        request.kind = OpKind::kMakeEqual;
        request.range = {page, std::min<std::uint64_t>(kPageBytes, config_.size_bytes - page)};
        co_await submitted_by_host(request);
        if (!request.result) co_return fail(request.result.error());
        *repaired_bytes += bytes;
    }
    co_return Result<void>{};
}

}  // namespace ublkd::volume
