// What the daemon's parts share: pointers to what Daemon made, which outlives them all. Handed over
// by constructors.
#pragma once

#include "metadata/authority.h"
#include "metadata/permission.h"
#include "metadata/store.h"
#include "ublkd/daemon/authority_client.h"
#include "ublkd/daemon/configuration.h"
#include "ublkd/daemon/engine.h"
#include "ublkd/daemon/event_log.h"
#include "ublkd/daemon/host_certificate.h"
#include "ublkd/daemon/host_directory.h"
#include "ublkd/daemon/identity.h"
#include "ublkd/daemon/pools.h"

namespace ublkd::daemon {

struct Core {
    const Configuration* configuration = nullptr;
    Identity* identity = nullptr;
    metadata::MetadataStore* store = nullptr;
    metadata::Authority* authority = nullptr;
    metadata::PermissionService* permissions = nullptr;
    LocalAuthority* authority_client = nullptr;
    Engine* engine = nullptr;
    EventLog* events = nullptr;
    Pools* pools = nullptr;
    HostDirectory* hosts = nullptr;
    HostCertificate* certificate = nullptr;
    std::array<std::byte, 16> boot_id{};
};

}  // namespace ublkd::daemon
