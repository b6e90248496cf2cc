#include "ublkd/daemon/host_tls.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "ublkd/daemon/cluster_files.h"

namespace ublkd::daemon {

std::expected<HostTls, std::string> load_host_tls(const Configuration& configuration) {
    if (!configuration.has_cluster_tls()) return HostTls();
    for (const auto& [key, path] :
         {std::pair("tls_certificate", &configuration.cluster_tls_certificate),
          std::pair("tls_key", &configuration.cluster_tls_key),
          std::pair("tls_ca", &configuration.cluster_tls_ca)}) {
        if (path->empty())
            return std::unexpected(
                fmt::format("{}: TLS between hosts needs cluster.{}", configuration.file, key));
    }
    const auto read = io::read_tls_files({.authorities = configuration.cluster_tls_ca,
                                          .certificate = configuration.cluster_tls_certificate,
                                          .key = configuration.cluster_tls_key});
    if (!read) return std::unexpected(read.error());
    auto accepting = io::TlsContext::server(*read);
    auto connecting = io::TlsContext::client(*read);
    auto admitting = io::TlsContext::server(*read, io::ClientCertificates::kAsked);
    for (const auto* made : {&accepting, &connecting, &admitting}) {
        if (!*made)
            return std::unexpected(
                fmt::format("cluster in {}: {}", configuration.file, made->error().where));
    }
    return HostTls{std::move(*accepting), std::move(*connecting), std::move(*admitting)};
}

void HostTls::replace(const HostTls& renewed) {
    accepting.replace(renewed.accepting.now());
    connecting.replace(renewed.connecting.now());
    admitting.replace(renewed.admitting.now());
}

bool is_certificate_of(std::string_view host_name, const io::TlsPeer& peer) {
    return !host_name.empty() &&
           std::ranges::find(peer.uris, certificate_uri(host_name)) != peer.uris.end();
}

}  // namespace ublkd::daemon
