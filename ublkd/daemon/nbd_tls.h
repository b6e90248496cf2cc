// Of what the configuration names: the certificates or keys of NBD over TCP. Blocking; no state.
#pragma once

#include <expected>
#include <string>

#include "ublkd/daemon/configuration.h"
#include "ublkd/io/tls.h"

namespace ublkd::daemon {

/// Nobody's where nbd.tls is off. An error names the key or the file that is wrong.
std::expected<io::TlsContext, std::string> load_nbd_tls(const Configuration& configuration);

}  // namespace ublkd::daemon
