// The daemon's composition: makes every part, hands each what it needs, and keeps the order in
// which they start and stop.
//
// Start: folders, metadata (a lock keeps a second daemon out), reactors, pools, volumes that were
// attached (ublk devices are taken over) on a thread of their own, NBD socket, API, "ready". The
// sockets wait for the volumes' first try, but no longer than a few seconds: a volume that does not
// come back is shown as attaching or busy, and holds up nobody else. Stop is the reverse: API,
// recovery, repair, NBD, volumes (devices are quiesced and left), each within a bound; reactors,
// metadata. Owner: main. See docs/architecture.md.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "ublkd/daemon/configuration.h"
#include "ublkd/daemon/host_tls.h"

namespace ublkd::daemon {

class Daemon {
  public:
    /// Ends when the daemon serves. An error is one line for a person.
    static std::expected<std::unique_ptr<Daemon>, std::string> start(
        const Configuration& configuration, bool serve);
    Daemon(const Daemon&) = delete;
    Daemon& operator=(const Daemon&) = delete;
    ~Daemon();
    /// For --detach-all: what could not be detached.
    std::vector<std::string> detach_all();
    /// Everything that comes to rest in time ends in order. What does not is named, one line each:
    /// its threads still run, and the caller ends the process by _exit(). The kernel keeps the
    /// requests of its ublk device for the next daemon, as at a death.
    std::vector<std::string> stop();

  private:
    struct Parts;
    static std::expected<void, std::string> open_store(Parts& parts, const HostTls& tls);
    /// To other hosts, where this one listens for them and has the metadata.
    static std::expected<void, std::string> serve_metadata(Parts& parts, const HostTls& tls);
    explicit Daemon(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
    bool stopped_ = false;
};

}  // namespace ublkd::daemon
