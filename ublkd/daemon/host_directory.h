// Where the hosts of the cluster listen for each other's volumes, as the metadata says, and how
// this one gets there. Read now and then and kept, since reactors ask, which may not block.
// Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "metadata/store.h"
#include "ublkd/daemon/host_tls.h"
#include "ublkd/io/socket.h"

namespace ublkd::daemon {

class HostDirectory {
  public:
    HostDirectory(metadata::MetadataStore* store, HostTls tls)
        : store_(store), tls_(std::move(tls)) {}

    /// Blocks.
    Result<void> refresh();
    /// Blocks where the host is not known yet.
    bool knows(HostId host);
    /// Connects to a host's volumes, as far as the hellos (volume::ConnectHost). kNotFound: no such
    /// host is known, or it does not listen. kNotPermitted: who listens there is not that host.
    io::Task<Result<void>> connect(io::Socket* into, io::Reactor* reactor, HostId host,
                                   io::Clock::time_point deadline);
    /// Whether who connected is that host: has its certificate, where hosts have any.
    bool has_proven(HostId host, const io::TlsPeer& peer);
    /// "" where it is not known.
    std::string name_of(HostId host);

  private:
    struct Known {
        std::string name;
        std::string address;  // a literal
        std::uint16_t port = 0;
    };
    metadata::MetadataStore* store_;
    const HostTls tls_;
    std::mutex mutex_;
    std::map<HostId, Known> known_;
};

}  // namespace ublkd::daemon
