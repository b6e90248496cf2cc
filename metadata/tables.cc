#include "metadata/tables.h"

#include "metadata/records.h"

namespace ublkd::metadata {

std::span<const Table* const> all_tables() {
    static const std::array kTables{&table_of<ClusterRecord>(),    &table_of<HostRecord>(),
                                    &table_of<InstanceRecord>(),   &table_of<PoolRecord>(),
                                    &table_of<VolumeRecord>(),     &table_of<ReplicaRecord>(),
                                    &table_of<MembershipRecord>(), &table_of<PermissionRecord>(),
                                    &table_of<PastHolderRecord>(), &table_of<AttachmentRecord>(),
                                    &table_of<TagRecord>(),        &table_of<ClientTokenRecord>(),
                                    &table_of<JoinTokenRecord>(),  &table_of<EventRecord>(),
                                    &table_of<CounterRecord>(),    &table_of<HostReportRecord>()};
    return kTables;
}

}  // namespace ublkd::metadata
