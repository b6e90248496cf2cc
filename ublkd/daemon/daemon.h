// The daemon's composition: makes every part, hands each what it needs, and keeps the order in
// which they start and stop.
//
// Start: folders, metadata (a lock keeps a second daemon out), reactors, pools, volumes that were
// attached (ublk devices are taken over), NBD socket, API, "ready". Stop is the reverse: API,
// repair, NBD, volumes (devices are quiesced and left), reactors, metadata. Owner: main. See
// docs/architecture.md.
#pragma once

#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "ublkd/daemon/configuration.h"

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

  private:
    struct Parts;
    explicit Daemon(std::unique_ptr<Parts> parts);
    std::unique_ptr<Parts> parts_;
};

}  // namespace ublkd::daemon
