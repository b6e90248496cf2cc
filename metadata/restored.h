// R16: a store that was restored from a backup, or rebuilt, may be behind what the volumes' members
// have agreed on since. Its memberships are frozen: the authority answers nothing by them
// (authority.h) until every host that may know a newer record has reported what its disks and its
// running volumes know. The newest record goes on then, under a number that is greater than all
// that were lost. A member has to have been found: where none reports it, its host may have lost
// it, and a member that was left out long ago may be all that is there. No state; within the
// caller's transaction; blocking. docs/replication.md (R16), docs/metadata.md.
#pragma once

#include <string>
#include <vector>

#include "metadata/store.h"
#include "metadata/whole_store.h"
#include "ublkd/replication/membership.h"

namespace ublkd::metadata {

/// What one host knows of a volume.
struct VolumeReport {
    struct Replica {
        ReplicaId id;
        PoolId pool;
        friend bool operator==(const Replica&, const Replica&) = default;
    };
    std::vector<Replica> replicas;  // that lie in its pools; it has looked in all of them
    replication::HostReport known;
};

/// HostReportRecord::report: a byte 1, its version; then for each thing a byte that says what it is
/// (1 replica: its id and its pool's, 2 record: its length in two bytes and replication::encode(),
/// 3 proposal: its base, and the next record like a record), little-endian.
Bytes encode_report(const VolumeReport& report);
Result<VolumeReport> decode_report(HostId host, std::span<const std::byte> bytes);

struct Confirmation {
    bool frozen = false;
    std::string waits_for;  // for a person; "": for nothing
};

/// What a backup's rows are in the store that is restored from them: memberships that may be behind
/// are frozen, also of volumes that had none yet. `restores`: how often any store of this cluster
/// was, at least.
Result<void> freeze_all(AllRows& rows, std::uint64_t restores);
/// How often the store that these rows are of was restored.
Result<std::uint64_t> restores_of(const AllRows& rows);

/// Stores `report` of a frozen volume, and thaws it where that was what it waited for.
Result<Confirmation> confirm(Transaction& tx, VolumeId volume, const VolumeReport& report);
/// What it waits for, without a report.
Result<Confirmation> confirmation_of(Transaction& tx, VolumeId volume);
/// Thaws it by the reports that are there (at least one that has a record, or the record of the
/// backup), with the mark that data may be lost. kNotFound: no record at all.
Result<void> confirm_by_force(Transaction& tx, VolumeId volume);

}  // namespace ublkd::metadata
