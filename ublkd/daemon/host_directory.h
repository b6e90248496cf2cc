// Where the hosts of the cluster listen for each other's volumes, as the metadata says. Read now
// and then and kept, since reactors ask, which may not block. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <string>

#include "metadata/store.h"
#include "ublkd/io/socket.h"

namespace ublkd::daemon {

class HostDirectory {
  public:
    explicit HostDirectory(metadata::MetadataStore* store) : store_(store) {}

    /// Blocks.
    Result<void> refresh();
    /// Blocks where the host is not known yet.
    bool knows(HostId host);
    /// Connects to a host's volumes, as far as the hellos (volume::ConnectHost). kNotFound: no such
    /// host is known, or it does not listen.
    io::Task<Result<void>> connect(io::Socket* into, io::Reactor* reactor, HostId host);
    /// "" where it is not known.
    std::string name_of(HostId host);

  private:
    struct Known {
        std::string name;
        std::string address;  // a literal
        std::uint16_t port = 0;
    };
    metadata::MetadataStore* store_;
    std::mutex mutex_;
    std::map<HostId, Known> known_;
};

}  // namespace ublkd::daemon
