#include "ublkd/daemon/nbd_tls.h"

#include <fmt/format.h>

#include <utility>

namespace ublkd::daemon {
namespace {

std::unexpected<std::string> not_set(const Configuration& configuration, const char* key) {
    return std::unexpected(fmt::format("{}: nbd.tls = \"{}\" needs nbd.{}", configuration.file,
                                       configuration.nbd_tls, key));
}

std::expected<io::TlsContext, std::string> load_certificates(const Configuration& configuration) {
    const bool verified = configuration.nbd_tls_clients == "verified";
    if (configuration.nbd_tls_certificate.empty()) return not_set(configuration, "tls_certificate");
    if (configuration.nbd_tls_key.empty()) return not_set(configuration, "tls_key");
    if (verified && configuration.nbd_tls_ca.empty()) return not_set(configuration, "tls_ca");
    const auto read = io::read_tls_files({.authorities = verified ? configuration.nbd_tls_ca : "",
                                          .certificate = configuration.nbd_tls_certificate,
                                          .key = configuration.nbd_tls_key});
    if (!read) return std::unexpected(read.error());
    const auto context = io::TlsContext::server(
        *read, verified ? io::ClientCertificates::kRequired : io::ClientCertificates::kNotAsked);
    if (!context)
        return std::unexpected(
            fmt::format("nbd.tls in {}: {}", configuration.file, context.error().where));
    return *context;
}

std::expected<io::TlsContext, std::string> load_psk(const Configuration& configuration) {
    const std::string& file = configuration.nbd_tls_psk_file;
    if (file.empty()) return not_set(configuration, "tls_psk_file");
    const auto read = io::read_tls_files({.authorities = "", .certificate = "", .key = file});
    if (!read) return std::unexpected(read.error());
    auto keys = io::parse_psk_keys(read->key);
    if (!keys) return std::unexpected(fmt::format("{}: {}", file, keys.error()));
    const auto context = io::TlsContext::psk_server(std::move(*keys));
    if (!context) return std::unexpected(fmt::format("{}: {}", file, context.error().where));
    return *context;
}

}  // namespace

std::expected<io::TlsContext, std::string> load_nbd_tls(const Configuration& configuration) {
    if (configuration.nbd_tls == "certificates") return load_certificates(configuration);
    if (configuration.nbd_tls == "psk") return load_psk(configuration);
    return io::TlsContext();
}

}  // namespace ublkd::daemon
