// A volume with the records that its replicas need before the authority lets them in: a host each,
// a pool, a replica that is prepared, and a place that is granted.
#pragma once

#include <gtest/gtest.h>

#include "metadata/permission.h"
#include "metadata/place.h"
#include "metadata/store.h"

namespace ublkd::metadata::test {

class HostedVolume {
  public:
    explicit HostedVolume(MetadataStore* store) : store_(store) {
        EXPECT_TRUE(store->write([&](Transaction& tx) {
            VolumeRecord volume{.id = id_, .size_bytes = 1 << 20, .replica_count = 3};
            return tx.put(volume);
        }));
    }

    VolumeId id() const { return id_; }
    std::string place(unsigned index) const { return place_name(id_, index); }
    /// A replica on a new host that holds nothing yet.
    replication::Member prepared() const {
        const replication::Member made{ReplicaId::random(), HostId::random(), PoolId::random()};
        EXPECT_TRUE(store_->write([&](Transaction& tx) -> Result<void> {
            HostRecord host{.id = made.host, .name = made.host.to_string()};
            TRY(tx.put(host));
            PoolRecord pool{.id = made.pool, .host = made.host, .path = "/pool", .domain = "d"};
            TRY(tx.put(pool));
            ReplicaRecord replica{.id = made.replica, .volume = id_, .pool = made.pool};
            return tx.put(replica);
        }));
        return made;
    }
    PermissionAnswer ask(unsigned index, const replication::Member& asker) const {
        return PermissionService(store_)
            .request(place(index), Holder{asker.host, asker.replica})
            ->answer;
    }
    /// A replica that has the place.
    replication::Member hosted(unsigned index) const {
        const auto made = prepared();
        EXPECT_EQ(ask(index, made), PermissionAnswer::kGranted);
        return made;
    }

  private:
    MetadataStore* store_;
    VolumeId id_ = VolumeId::random();
};

}  // namespace ublkd::metadata::test
