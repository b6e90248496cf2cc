#include "ublkd/replication/membership.h"

#include <algorithm>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::replication {
namespace {

constexpr std::uint8_t kRecordVersion = 1;
constexpr std::size_t kHeaderBytes = 40;
constexpr std::size_t kMemberBytes = 24;
constexpr std::size_t kAttachmentBytes = 8;
static_assert(kHeaderBytes + kMaxMembers * kMemberBytes + kMaxAttachments * kAttachmentBytes <=
              kMaxRecordBytes);

template <class T, class Key>
bool all_distinct(const std::vector<T>& items, Key key) {
    for (std::size_t i = 0; i < items.size(); ++i) {
        for (std::size_t j = i + 1; j < items.size(); ++j) {
            if (key(items[i]) == key(items[j])) return false;
        }
    }
    return true;
}

}  // namespace

const Member* Membership::find(ReplicaId replica) const {
    const auto found = std::find_if(members.begin(), members.end(), [&](const Member& member) {
        return member.replica == replica;
    });
    return found == members.end() ? nullptr : &*found;
}

std::vector<std::byte> encode(const Membership& record) {
    CHECK(record.members.size() <= kMaxMembers && record.attachments.size() <= kMaxAttachments,
          "a record is validated before it is encoded");
    std::vector<std::byte> bytes(kHeaderBytes + record.members.size() * kMemberBytes +
                                 record.attachments.size() * kAttachmentBytes);
    std::byte* at = bytes.data();
    at[0] = std::byte{kRecordVersion};
    at[1] = static_cast<std::byte>(record.members.size());
    at[2] = static_cast<std::byte>(record.attachments.size());
    at[3] = static_cast<std::byte>(record.data_may_be_lost ? 1 : 0);
    store_le<std::uint64_t>(at + 8, record.volume.value());
    store_le<std::uint64_t>(at + 16, record.number);
    store_le<std::uint64_t>(at + 24, record.loss_count);
    store_le<std::uint64_t>(at + 32, record.primary.value());
    at += kHeaderBytes;
    for (const Member& member : record.members) {
        store_le<std::uint64_t>(at, member.replica.value());
        store_le<std::uint64_t>(at + 8, member.host.value());
        store_le<std::uint64_t>(at + 16, member.pool.value());
        at += kMemberBytes;
    }
    for (const AttachmentId attachment : record.attachments) {
        store_le<std::uint64_t>(at, attachment.value());
        at += kAttachmentBytes;
    }
    return bytes;
}

Result<Membership> decode_membership(std::span<const std::byte> bytes) {
    if (bytes.size() < kHeaderBytes || bytes[0] != std::byte{kRecordVersion})
        return fail(Errc::kCorrupt, "membership record: version");
    const auto members = static_cast<std::size_t>(bytes[1]);
    const auto attachments = static_cast<std::size_t>(bytes[2]);
    if (members > kMaxMembers || attachments > kMaxAttachments ||
        bytes.size() != kHeaderBytes + members * kMemberBytes + attachments * kAttachmentBytes)
        return fail(Errc::kCorrupt, "membership record: length");
    Membership record;
    const std::byte* at = bytes.data();
    record.data_may_be_lost = bytes[3] != std::byte{0};
    record.volume = VolumeId(load_le<std::uint64_t>(at + 8));
    record.number = load_le<std::uint64_t>(at + 16);
    record.loss_count = load_le<std::uint64_t>(at + 24);
    record.primary = ReplicaId(load_le<std::uint64_t>(at + 32));
    at += kHeaderBytes;
    for (std::size_t i = 0; i < members; ++i, at += kMemberBytes) {
        record.members.push_back(Member{ReplicaId(load_le<std::uint64_t>(at)),
                                        HostId(load_le<std::uint64_t>(at + 8)),
                                        PoolId(load_le<std::uint64_t>(at + 16))});
    }
    for (std::size_t i = 0; i < attachments; ++i, at += kAttachmentBytes)
        record.attachments.emplace_back(load_le<std::uint64_t>(at));
    if (!validate(record)) return fail(Errc::kCorrupt, "membership record: contradicts itself");
    return record;
}

Result<void> validate(const Membership& record) {
    if (!record.volume) return fail(Errc::kInvalidArgument, "membership without a volume");
    if (record.number == 0) return fail(Errc::kInvalidArgument, "membership number 0");
    if (record.members.empty() || record.members.size() > kMaxMembers)
        return fail(Errc::kInvalidArgument, "membership of 1 to 3 members");
    if (!all_distinct(record.members, [](const Member& member) { return member.replica; }))
        return fail(Errc::kInvalidArgument, "membership with a replica twice");
    if (!record.has(record.primary))
        return fail(Errc::kInvalidArgument, "membership whose primary is no member");
    if (record.attachments.size() > kMaxAttachments ||
        !all_distinct(record.attachments, [](AttachmentId id) { return id; }))
        return fail(Errc::kInvalidArgument, "membership of at most 16 distinct attachments");
    return {};
}

Verdict decide(const std::optional<Membership>& current, const Proposal& proposal) {
    const Membership& next = proposal.next;
    if (!validate(next)) return Verdict::kDeclined;
    if (!current) {
        const bool first =
            proposal.base_number == 0 && next.number == 1 && next.has(proposal.proposer);
        return first ? Verdict::kAuthorized : Verdict::kDeclined;
    }
    if (next == *current) return Verdict::kAlreadyYours;
    if (next.volume != current->volume) return Verdict::kDeclined;
    const bool greater =
        next.number > current->number || faults::rule_off("rule.accept_equal_number");
    const bool same_base =
        proposal.base_number == current->number || faults::rule_off("rule.base_compared");
    if (!greater || !same_base || next.number != proposal.base_number + 1)
        return Verdict::kDeclined;
    if (!current->has(proposal.proposer)) return Verdict::kDeclined;
    // Only the primary adds members.
    const bool adds =
        std::any_of(next.members.begin(), next.members.end(),
                    [&](const Member& member) { return !current->has(member.replica); });
    if (adds && proposal.proposer != current->primary) return Verdict::kDeclined;
    // Who is in sync is the members' to serve: a replica that joins is not primary at once.
    if (!current->has(next.primary) && !faults::rule_off("rule.primary_was_member"))
        return Verdict::kDeclined;
    return Verdict::kAuthorized;
}

std::optional<Membership> thawed(const Membership& restored, std::uint64_t generation,
                                 std::span<const HostReport> reports) {
    const Membership* newest = &restored;
    for (const HostReport& report : reports) {
        for (const Membership& record : report.records) {
            if (record.number > newest->number) newest = &record;
        }
    }
    const auto reported = [&](const Member& member) {
        return std::any_of(reports.begin(), reports.end(),
                           [&](const HostReport& report) { return report.host == member.host; });
    };
    bool all = std::all_of(newest->members.begin(), newest->members.end(), reported);
    for (const HostReport& report : reports) {
        for (const Proposal& pending : report.pending) {
            const bool open =
                pending.base_number >= newest->number && !faults::rule_off("rule.pending_reported");
            all = all && (!open || std::all_of(pending.next.members.begin(),
                                               pending.next.members.end(), reported));
        }
    }
    if (!all && !faults::rule_off("rule.all_hosts_report")) return std::nullopt;
    Membership next = *newest;
    next.number = std::max(newest->number + 1, generation * kGenerationNumbers);
    if (faults::rule_off("rule.generation_numbers")) next.number = newest->number + 1;
    return next;
}

}  // namespace ublkd::replication
