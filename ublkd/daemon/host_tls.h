// TLS between the hosts of a cluster: the certificates that the configuration names, and whose a
// certificate is. A host's has its name in the metadata among its subject alternative names, as the
// URI "ublkd:host:NAME"; an authority of cluster.tls_ca has signed for it. Both sides of a
// connection hold the other one's against the host that it says it is. No state.
#pragma once

#include <expected>
#include <string>
#include <string_view>

#include "ublkd/daemon/configuration.h"
#include "ublkd/io/tls.h"

namespace ublkd::daemon {

/// Nobody's: hosts speak in the clear, on loopback addresses. Else a handle: certificates are
/// replaced in each copy.
struct HostTls {
    io::TlsInUse accepting;
    io::TlsInUse connecting;

    io::TlsInUse admitting{};  // as accepting, but who has no certificate yet is let in

    explicit operator bool() const { return static_cast<bool>(connecting); }
    void replace(const HostTls& renewed);
};

/// Blocking. An error names the key or the file that is wrong.
std::expected<HostTls, std::string> load_host_tls(const Configuration& configuration);

bool is_certificate_of(std::string_view host_name, const io::TlsPeer& peer);

}  // namespace ublkd::daemon
