// What the daemon is configured with: its files and a few numbers. From ublkd.toml; ublkd.toml(5)
// names every key. An unknown key or a wrong value is refused with its line. A host that entered
// its cluster by 'ebs-cli cluster' has what [cluster] says in STATE/cluster/cluster.toml, and
// nothing of it in ublkd.toml. configuration.cc is the one user of toml++. Read at start; the log
// level again on SIGHUP. Plain values; no thread.
#pragma once

#include <cstdint>
#include <expected>
#include <string>

#include "ublkd/daemon/options.h"

namespace ublkd::daemon {

struct Configuration {
    std::string file;  // where it was read from, or would be written to
    bool file_exists = false;
    std::string state_dir;  // metadata, keys; 0700
    std::string run_dir;    // lives as long as the boot
    std::string log_level = "info";
    std::string host_name;
    std::string api_socket, api_group = "ublkd";
    std::string nbd_socket;
    std::string nbd_address;  // "" : no TCP
    std::uint16_t nbd_port = 10809;
    std::string nbd_tls = "off";  // of TCP: off, certificates, psk
    std::string nbd_tls_certificate, nbd_tls_key;
    std::string nbd_tls_clients = "verified";  // by nbd_tls_ca; or any
    std::string nbd_tls_ca;
    std::string nbd_tls_psk_file;
    unsigned reactors = 0;          // 0: half the processors, 1 to 8
    std::uint64_t buffer_mib = 64;  // of one reactor
    bool ublk = true;
    unsigned boot_wait_s = 30;       // for pools that are missing, before volumes are started
    unsigned replace_after_s = 300;  // a volume in no use gets another replica for one whose pool
                                     // has been away for so long
    std::string cluster_address;     // where volumes listen for other hosts; "": they do not
    std::uint16_t cluster_port = 7071;
    std::string cluster_tls_certificate, cluster_tls_key, cluster_tls_ca;  // all, or none
    std::string metadata;  // where the host that has them serves them; etcd:ENDPOINTS; "": this one
    std::string etcd_ca, etcd_cert, etcd_key;  // PEM files, for https endpoints
    std::string etcd_user, etcd_password_file;
    std::string etcd_prefix = "ublkd";  // of all keys
    std::string metadata_socket;        // where this one serves them to others
    std::string metadata_address;       // and under TLS; "": not there
    std::uint16_t metadata_port = 7070;
    bool enrolled = false;           // what cluster... says is of 'ebs-cli cluster', not by hand
    std::uint64_t resync_mib_s = 0;  // of each full copy to a new replica; 0: as fast as it goes

    /// "" where it does not listen.
    std::string cluster_listen() const;
    std::string metadata_listen() const;  // "": under TLS it is not served
    /// Whether any of it is set.
    bool has_cluster_tls() const;
    bool has_cluster_settings() const;
    std::string database() const { return state_dir + "/metadata.db"; }
    std::string rebuild_file() const { return state_dir + "/rebuild"; }  // a host_file() to be
    std::string host_file() const { return state_dir + "/host-id"; }
    std::string cluster_folder() const { return state_dir + "/cluster"; }
    std::string cluster_file(const char* name) const { return cluster_folder() + "/" + name; }
};

/// What cluster.toml says.
struct ClusterSettings {
    std::string name;  // of the host, as its certificate has it
    std::string listen, metadata, metadata_listen;
};
std::string cluster_settings_text(const ClusterSettings& settings);
/// A literal ADDRESS:PORT at which other hosts may reach this one.
bool is_cluster_address(const std::string& text);

/// Defaults for `options`, then what the file says. An error names file and line.
std::expected<Configuration, std::string> load_configuration(const Options& options);
/// The file that `init` writes: every key with its value and what it means.
std::string configuration_text(const Configuration& configuration);

}  // namespace ublkd::daemon
