#include "metadata/restored.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "metadata/permission.h"
#include "metadata/place.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata {
namespace {

using replication::Membership;
using replication::Proposal;

constexpr std::byte kReportVersion{1};
constexpr std::byte kReplica{1};
constexpr std::byte kRecord{2};
constexpr std::byte kProposal{3};
constexpr const char* kRestores = "restores";

template <class T>
void append(Bytes& bytes, T number) {
    bytes.resize(bytes.size() + sizeof(T));
    store_le<T>(bytes.data() + bytes.size() - sizeof(T), number);
}

void append(Bytes& bytes, const Membership& record) {
    const auto encoded = replication::encode(record);
    append(bytes, static_cast<std::uint16_t>(encoded.size()));
    bytes.insert(bytes.end(), encoded.begin(), encoded.end());
}

/// Takes from the front of `left`; false where there is too little.
template <class T>
bool take(std::span<const std::byte>& left, T& number) {
    if (left.size() < sizeof(T)) return false;
    number = load_le<T>(left.data());
    left = left.subspan(sizeof(T));
    return true;
}

bool take(std::span<const std::byte>& left, Membership& record) {
    std::uint16_t length = 0;
    if (!take(left, length) || left.size() < length) return false;
    auto decoded = replication::decode_membership(left.first(length));
    left = left.subspan(length);
    if (decoded) record = std::move(*decoded);
    return decoded.has_value();
}

/// All that is known of a frozen volume.
struct Known {
    MembershipRecord stored;
    std::vector<HostReportRecord> records;  // of the reports
    std::vector<VolumeReport> reports;
};

Result<Known> know(Transaction& tx, const MembershipRecord& stored) {
    Known known{stored, {}, {}};
    TRY_ASSIGN(known.records, tx.list<HostReportRecord>(where("volume", stored.volume)));
    for (const auto& record : known.records) {
        TRY_ASSIGN(auto report, decode_report(record.host, record.report));
        known.reports.push_back(std::move(report));
    }
    return known;
}

std::vector<replication::HostReport> host_reports(const Known& known) {
    std::vector<replication::HostReport> reports;
    for (const auto& report : known.reports) reports.push_back(report.known);
    return reports;
}

/// The record of the backup, or the newest one that was reported, whichever is newer.
const Membership* newest_of(const Known& known) {
    const Membership* newest = known.stored.membership ? &*known.stored.membership : nullptr;
    for (const auto& report : known.reports) {
        for (const Membership& record : report.known.records) {
            if (newest == nullptr || record.number > newest->number) newest = &record;
        }
    }
    return newest;
}

/// Greater than that of any number that anybody knows.
Result<std::uint64_t> next_generation(Transaction& tx, const Known& known) {
    TRY_ASSIGN(const auto counter, tx.get<CounterRecord>(std::string(kRestores)));
    std::uint64_t greatest = known.stored.greatest_number;
    for (const auto& report : known.reports) {
        for (const Membership& record : report.known.records)
            greatest = std::max(greatest, record.number);
        for (const Proposal& pending : report.known.pending)
            greatest = std::max(greatest, pending.next.number);
    }
    const std::uint64_t restores = counter ? counter->value : 1;
    return std::max(restores + 1, greatest / replication::kGenerationNumbers + 1);
}

Result<std::string> name_of_host(Transaction& tx, HostId host) {
    TRY_ASSIGN(const auto record, tx.get<HostRecord>(host));
    return record ? record->name : host.to_string();
}

bool has_reported(const Known& known, HostId host) {
    return std::ranges::any_of(known.reports,
                               [&](const auto& report) { return report.known.host == host; });
}

const VolumeReport* who_found(const Known& known, const replication::Member& member) {
    for (const auto& report : known.reports) {
        const bool found = report.known.host == member.host &&
                           std::ranges::find(report.replicas,
                                             VolumeReport::Replica{member.replica, member.pool}) !=
                               report.replicas.end();
        if (found) return &report;
    }
    return nullptr;
}

/// Hosts that have to report: those of the newest record, and of proposals over it. Where there is
/// no record, those of the replicas that were being made.
Result<std::set<HostId>> needed_hosts(Transaction& tx, const Known& known,
                                      const Membership* newest) {
    std::set<HostId> needed;
    if (newest == nullptr) {
        TRY_ASSIGN(const auto replicas,
                   tx.list<ReplicaRecord>(where("volume", known.stored.volume)));
        for (const auto& replica : replicas) {
            TRY_ASSIGN(const auto pool, tx.get<PoolRecord>(replica.pool));
            if (pool) needed.insert(pool->host);
        }
    }
    if (newest != nullptr)
        for (const auto& member : newest->members) needed.insert(member.host);
    for (const auto& report : known.reports) {
        for (const Proposal& pending : report.known.pending) {
            if (newest != nullptr && pending.base_number < newest->number) continue;
            for (const auto& member : pending.next.members) needed.insert(member.host);
        }
    }
    return needed;
}

/// "": nothing.
Result<std::string> waits_for(Transaction& tx, const Known& known) {
    const Membership* const newest = newest_of(known);
    TRY_ASSIGN(const auto needed, needed_hosts(tx, known, newest));
    for (const HostId host : needed) {
        if (has_reported(known, host)) continue;
        TRY_ASSIGN(const auto name, name_of_host(tx, host));
        return fmt::format("host {} has not reported what its replicas know", name);
    }
    if (newest == nullptr || faults::rule_off("rule.members_found")) return std::string();
    for (const auto& member : newest->members) {
        if (who_found(known, member) != nullptr) continue;
        TRY_ASSIGN(const auto name, name_of_host(tx, member.host));
        return fmt::format("host {} has not found {}, a member of number {}, in its pools", name,
                           member.replica.to_string(), newest->number);
    }
    return std::string();
}

/// Replicas that were made since the backup are known from now on; members hold places.
Result<void> settle_replicas(Transaction& tx, const Known& known, const Membership& next) {
    for (const auto& report : known.reports) {
        for (const auto& replica : report.replicas) {
            TRY_ASSIGN(const auto pool, tx.get<PoolRecord>(replica.pool));
            if (!pool) continue;  // it was removed meanwhile
            TRY_ASSIGN(const auto found, tx.get<ReplicaRecord>(replica.id));
            ReplicaRecord record = found.value_or(ReplicaRecord{.id = replica.id,
                                                                .volume = next.volume,
                                                                .pool = replica.pool,
                                                                .state = ReplicaState::kLost,
                                                                .created_ms = now_ms()});
            if (next.has(replica.id)) record.state = ReplicaState::kReady;
            record.pool = replica.pool;
            TRY(tx.put(record));
        }
    }
    return {};
}

Result<void> settle_places(Transaction& tx, const Membership& next) {
    TRY_ASSIGN(const auto volume, tx.get<VolumeRecord>(next.volume));
    if (!volume) return {};
    std::set<ReplicaId> placed;
    std::vector<unsigned> free;
    for (unsigned index = 0; index < replication::kMaxMembers; ++index) {
        TRY_ASSIGN(const auto held, tx.get<PermissionRecord>(place_name(next.volume, index)));
        if (held && held->state == PermissionState::kGranted && next.has(held->incarnation))
            placed.insert(held->incarnation);
        else
            free.push_back(index);
    }
    for (const auto& member : next.members) {
        if (placed.contains(member.replica)) continue;
        TRY(PermissionService::hand_over(tx, place_name(next.volume, free.front()),
                                         {member.host, member.replica}));
        free.erase(free.begin());
    }
    return {};
}

Result<void> thaw(Transaction& tx, const Known& known, const std::optional<Membership>& next) {
    for (const auto& record : known.records) {
        TRY(tx.erase(record));
    }
    MembershipRecord stored = known.stored;
    if (!next) return tx.erase(stored);  // nobody ever had one: its creation goes on
    stored.membership = next;
    stored.greatest_number = std::max(stored.greatest_number, next->number);
    stored.frozen = false;
    TRY(tx.put(stored));
    TRY(settle_replicas(tx, known, *next));
    TRY(settle_places(tx, *next));
    EventRecord event;
    event.resource = next->volume.to_string();
    event.kind = "volume.confirmed";
    event.text = fmt::format("by its hosts, after a restore: goes on with number {}", next->number);
    return append_event(tx, event);
}

Result<std::optional<MembershipRecord>> frozen_record(Transaction& tx, VolumeId volume) {
    TRY_ASSIGN(auto stored, tx.get<MembershipRecord>(volume));
    if (stored && !stored->frozen) stored.reset();
    return stored;
}

}  // namespace

Bytes encode_report(const VolumeReport& report) {
    Bytes bytes{kReportVersion};
    for (const auto& replica : report.replicas) {
        bytes.push_back(kReplica);
        append(bytes, replica.id.value());
        append(bytes, replica.pool.value());
    }
    for (const Membership& record : report.known.records) {
        bytes.push_back(kRecord);
        append(bytes, record);
    }
    for (const Proposal& pending : report.known.pending) {
        bytes.push_back(kProposal);
        append(bytes, pending.base_number);
        append(bytes, pending.next);
    }
    return bytes;
}

Result<VolumeReport> decode_report(HostId host, std::span<const std::byte> bytes) {
    VolumeReport report;
    report.known.host = host;
    if (bytes.empty() || bytes.front() != kReportVersion)
        return fail(Errc::kUnsupported, "a host's report of a volume is of another version");
    bytes = bytes.subspan(1);
    while (!bytes.empty()) {
        const std::byte kind = bytes.front();
        bytes = bytes.subspan(1);
        bool good = false;
        if (kind == kReplica) {
            std::uint64_t id = 0;
            std::uint64_t pool = 0;
            good = take(bytes, id) && take(bytes, pool);
            report.replicas.push_back({ReplicaId(id), PoolId(pool)});
        } else if (kind == kRecord) {
            good = take(bytes, report.known.records.emplace_back());
        } else if (kind == kProposal) {
            Proposal& pending = report.known.pending.emplace_back();
            good = take(bytes, pending.base_number) && take(bytes, pending.next);
        }
        if (!good) return fail(Errc::kCorrupt, "a host's report of a volume");
    }
    return report;
}

Result<std::uint64_t> restores_of(const AllRows& rows) {
    for (const Row& row : rows.of(table_of<CounterRecord>()).rows) {
        TRY_ASSIGN(const auto counter, decode_row<CounterRecord>(row));
        if (counter.name == kRestores) return counter.value;
    }
    return std::uint64_t{0};
}

Result<void> freeze_all(AllRows& rows, std::uint64_t restores) {
    rows.of(table_of<HostReportRecord>()).rows.clear();
    rows.of(table_of<JoinTokenRecord>()).rows.clear();  // each is good once, and may have been used
    std::set<VolumeId> known;
    for (Row& row : rows.of(table_of<MembershipRecord>()).rows) {
        TRY_ASSIGN(auto record, decode_row<MembershipRecord>(row));
        known.insert(record.volume);
        if (record.retired) continue;
        record.frozen = true;
        TRY_ASSIGN(row, encode_row(record));
    }
    for (const Row& row : rows.of(table_of<VolumeRecord>()).rows) {
        TRY_ASSIGN(const auto volume, decode_row<VolumeRecord>(row));
        if (known.contains(volume.id)) continue;
        TRY_ASSIGN(Row made, encode_row(MembershipRecord{.volume = volume.id, .frozen = true}));
        rows.of(table_of<MembershipRecord>()).rows.push_back(std::move(made));
    }
    auto& counters = rows.of(table_of<CounterRecord>()).rows;
    std::erase_if(counters, [](const Row& row) {
        return row.values.front() == Value(std::string(kRestores));
    });
    TRY_ASSIGN(Row counter, encode_row(CounterRecord{.name = kRestores, .value = restores}));
    counters.push_back(std::move(counter));
    return {};
}

Result<Confirmation> confirm(Transaction& tx, VolumeId volume, const VolumeReport& report) {
    TRY_ASSIGN(const auto stored, frozen_record(tx, volume));
    if (!stored) return Confirmation();
    TRY_ASSIGN(auto own, tx.get<HostReportRecord>(volume, report.known.host));
    HostReportRecord record =
        own.value_or(HostReportRecord{.volume = volume, .host = report.known.host});
    Bytes bytes = encode_report(report);
    if (!own || record.report != bytes) {
        record.report = std::move(bytes);
        TRY(tx.put(record));
    }
    TRY_ASSIGN(const Known known, know(tx, *stored));
    TRY_ASSIGN(std::string waits, waits_for(tx, known));
    if (!waits.empty()) return Confirmation{true, std::move(waits)};
    const Membership* const newest = newest_of(known);
    if (newest == nullptr) {
        TRY(thaw(tx, known, std::nullopt));
        return Confirmation();
    }
    TRY_ASSIGN(const std::uint64_t generation, next_generation(tx, known));
    const auto next = replication::thawed(*newest, generation, host_reports(known));
    if (!next) return Confirmation{true, "a host of a proposal over its record has not reported"};
    TRY(thaw(tx, known, next));
    return Confirmation();
}

Result<Confirmation> confirmation_of(Transaction& tx, VolumeId volume) {
    TRY_ASSIGN(const auto stored, frozen_record(tx, volume));
    if (!stored) return Confirmation();
    TRY_ASSIGN(const Known known, know(tx, *stored));
    TRY_ASSIGN(std::string waits, waits_for(tx, known));
    return Confirmation{true, std::move(waits)};
}

Result<void> confirm_by_force(Transaction& tx, VolumeId volume) {
    TRY_ASSIGN(const auto stored, frozen_record(tx, volume));
    if (!stored) return {};
    TRY_ASSIGN(const Known known, know(tx, *stored));
    const Membership* const newest = newest_of(known);
    if (newest == nullptr) return fail(Errc::kNotFound, "no host has reported a record of it");
    TRY_ASSIGN(const std::uint64_t generation, next_generation(tx, known));
    Membership next = *newest;
    next.number = std::max(newest->number + 1, generation * replication::kGenerationNumbers);
    next.data_may_be_lost = true;
    return thaw(tx, known, next);
}

}  // namespace ublkd::metadata
