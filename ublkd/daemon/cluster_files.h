// What 'ebs-cli cluster' keeps in STATE/cluster: this host's certificate and key, the authority's
// certificate, where this host has it the authority's key, and cluster.toml (configuration.h). The
// folder appears whole, with all that is in it, or not at all; from then on the certificate alone
// changes. Blocking; no state.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "ublkd/base/result.h"
#include "ublkd/daemon/configuration.h"
#include "ublkd/io/certificates.h"

namespace ublkd::daemon {

inline constexpr const char* kAuthorityFile = "ca.pem";
inline constexpr const char* kAuthorityKeyFile = "ca-key.pem";
inline constexpr const char* kHostCertificateFile = "host-cert.pem";
inline constexpr const char* kHostKeyFile = "host-key.pem";
inline constexpr const char* kJoinedHostFile = "host-id";  // of a host that has joined
inline constexpr const char* kSettingsFile = "cluster.toml";

struct ClusterFile {
    const char* name;
    std::string content;
};
/// kExists where the folder is there.
Result<void> make_cluster_folder(const Configuration& configuration,
                                 const std::vector<ClusterFile>& files);
bool has_cluster_folder(const Configuration& configuration);
bool has_authority(const Configuration& configuration);
/// kNotFound where this host does not have it.
Result<io::KeyedCertificate> read_authority(const Configuration& configuration);

/// Of what the authority signs for hosts.
std::chrono::seconds certificate_life();
std::string certificate_uri(std::string_view host_name);
/// 1 to 64 printable ASCII characters: a certificate has no others. "" or what is wrong.
std::string trouble_with_certified_name(const std::string& name);

}  // namespace ublkd::daemon
