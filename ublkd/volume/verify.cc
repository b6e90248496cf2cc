// Comparing the members of a volume, and repairing on an operator's word (R14). Each range is held
// against writes (kHold) while it is read from every member's store, so the volume serves meanwhile
// and no write under way is taken for a difference.
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
        co_await submitted(hold);
        if (!hold.result) co_return fail(hold.result.error());
        VerifyReport part;
        ++comparing_;
        const Result<void> compared = co_await compare(range, on_difference, &part);
        --comparing_;
        const bool held = !hold.lost;
        client_->release(hold);
        pump();
        report.repaired_bytes += part.repaired_bytes;
        if (!held) continue;  // the primary changed meanwhile: once more
        if (!compared) co_return fail(compared.error());
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
io::Task<Result<void>> Volume::Driver::compare(Range range, OnDifference on_difference,
                                               VerifyReport* report) {
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
            const Range page{range.offset_bytes + at, bytes};
            if (!report->first_difference_bytes) report->first_difference_bytes = page.offset_bytes;
            if (on_difference == OnDifference::kReport) continue;
            CO_TRY(co_await copy_over(members[i], page, first.span().subspan(at, bytes)));
            report->repaired_bytes += bytes;
        }
    }
    co_return Result<void>{};
}

/// Durable when it has ended, and read back: a disk that keeps other bytes than it was given is not
/// called repaired.
io::Task<Result<void>> Volume::Driver::copy_over(Host* host, Range range,
                                                 std::span<const std::byte> content) {
    faults::hit("volume.before_repair");
    CO_TRY(co_await host->replica->write(range.offset_bytes, content, {.fua = true}));
    const auto pool = host->driver->payloads();
    if (!pool) co_return fail(pool.error());
    const io::Buffer again = co_await (*pool)->acquire(range.length_bytes);
    CO_TRY(co_await host->replica->read(range.offset_bytes, again.span()));
    if (std::memcmp(again.data(), content.data(), content.size()) != 0)
        co_return fail(Errc::kIo, "a member's disk does not keep what is written to it");
    co_return Result<void>{};
}

}  // namespace ublkd::volume
