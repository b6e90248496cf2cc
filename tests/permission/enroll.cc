#include "tests/permission/enroll.h"

#include "metadata/sqlite_store.h"
#include "tests/permission/askers.h"

namespace ublkd::permission_test {

bool enroll_hosts(Daemon& daemon, unsigned count) {
    daemon.kill_hard();
    {
        auto store = metadata::SqliteStore::open(daemon.folder() / "metadata.db");
        if (!store) return false;
        const auto written = (*store)->write([&](metadata::Transaction& tx) -> Result<void> {
            for (unsigned index = 0; index < count; ++index) {
                metadata::HostRecord host{.id = *HostId::parse(host_of(index)),
                                          .name = host_of(index)};
                TRY(tx.put(host));
            }
            return {};
        });
        if (!written) return false;
    }
    return daemon.start();
}

}  // namespace ublkd::permission_test
