#include "ublkd/daemon/configuration.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <system_error>
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

#include "ublkd/api/errors.h"
#include "ublkd/base/log.h"
#include "ublkd/daemon/cluster_files.h"
#include "ublkd/daemon/etcd_metadata.h"
#include "ublkd/front/nbd/nbd_server.h"

namespace ublkd::daemon {
namespace {

constexpr std::size_t kMaxSocketPathBytes = sizeof(sockaddr_un::sun_path) - 1;

std::string own_host_name() {
    std::array<char, HOST_NAME_MAX + 1> name{};
    if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
    return name.data();
}

std::string absolute(const std::string& path) {
    return std::filesystem::absolute(path).lexically_normal().string();
}

Configuration defaults(const Options& options) {
    Configuration made;
    made.host_name = own_host_name();
    if (options.state.empty()) {
        made.state_dir = "/var/lib/ublkd";
        made.run_dir = "/run/ublkd";
        made.file = "/etc/ublkd/ublkd.toml";
        made.api_socket = made.run_dir + "/api.sock";
        made.nbd_socket = made.run_dir + "/nbd.sock";
        made.metadata_socket = made.run_dir + "/metadata.sock";
        made.nbd_address = "127.0.0.1";
    } else {
        made.state_dir = absolute(options.state);
        while (made.state_dir.size() > 1 && made.state_dir.ends_with('/'))
            made.state_dir.pop_back();
        made.run_dir = made.state_dir + "/run";
        made.file = made.state_dir + "/ublkd.toml";
        made.api_socket = made.state_dir + "/api.sock";
        made.nbd_socket = made.state_dir + "/nbd.sock";
        made.metadata_socket = made.state_dir + "/metadata.sock";
    }
    if (!options.config_file.empty()) made.file = absolute(options.config_file);
    return made;
}

/// Reads keys of one file; the first thing that is wrong is kept.
class Reader {
  public:
    Reader(const toml::table& root, std::string file) : root_(root), file_(std::move(file)) {}

    void text(const char* section, const char* key, std::string& into) {
        if (const auto* node = find(section, key)) {
            if (const auto value = node->value_exact<std::string>())
                into = *value;
            else
                wrong(*node, section, key, "a string");
        }
    }
    void flag(const char* section, const char* key, bool& into) {
        if (const auto* node = find(section, key)) {
            if (const auto value = node->value_exact<bool>())
                into = *value;
            else
                wrong(*node, section, key, "true or false");
        }
    }
    template <class T>
    void number(const char* section, const char* key, T& into, std::int64_t least,
                std::int64_t most) {
        if (const auto* node = find(section, key)) {
            const auto value = node->value_exact<std::int64_t>();
            if (value && *value >= least && *value <= most)
                into = static_cast<T>(*value);
            else
                wrong(*node, section, key,
                      fmt::format("a whole number from {} to {}", least, most));
        }
    }
    void refuse(const char* section, const char* key, const std::string& text) {
        if (const auto* node = find(section, key)) wrong(*node, section, key, text);
    }

    /// The first thing that was wrong; a key that nothing asked for is wrong too. "" where all is
    /// well.
    std::string done() {
        for (const auto& [key, node] : root_) check_known("", std::string(key.str()), node);
        return error_;
    }

  private:
    static std::string full(std::string_view section, std::string_view key) {
        return section.empty() ? std::string(key) : fmt::format("{}.{}", section, key);
    }
    const toml::node* find(const char* section, const char* key) {
        known_[section].emplace_back(key);
        const toml::table* table = *section == '\0' ? &root_ : root_[section].as_table();
        return table == nullptr ? nullptr : table->get(key);
    }
    void wrong(const toml::node& node, std::string_view section, std::string_view key,
               const std::string& wanted) {
        if (!error_.empty()) return;
        std::ostringstream given;
        given << toml::node_view<const toml::node>(node);
        error_ = fmt::format("{}:{}: {} must be {}; {} was given", file_, node.source().begin.line,
                             full(section, key), wanted, api::shown(given.str()));
    }
    void check_known(const std::string& section, const std::string& key, const toml::node& node) {
        if (section.empty() && known_.contains(key) && node.is_table()) {
            for (const auto& [inner, value] : *node.as_table())
                check_known(key, std::string(inner.str()), value);
            return;
        }
        const auto& known = known_[section];
        if (std::ranges::find(known, key) != known.end() || !error_.empty()) return;
        error_ = fmt::format("{}:{}: unknown key '{}'; known are {}: see ublkd.toml(5)", file_,
                             node.source().begin.line, full(section, key),
                             fmt::join(section.empty() ? known_names() : known, ", "));
    }

    /// Keys outside of sections, and the sections.
    std::vector<std::string> known_names() const {
        std::vector<std::string> names = known_.find("")->second;
        for (const auto& [section, keys] : known_) {
            if (!section.empty()) names.push_back("[" + section + "]");
        }
        return names;
    }

    const toml::table& root_;
    std::string file_;
    std::string error_;
    std::map<std::string, std::vector<std::string>> known_;
};

bool is_ip_address(const std::string& text) {
    in6_addr any{};
    return inet_pton(AF_INET, text.c_str(), &any) == 1 ||
           inet_pton(AF_INET6, text.c_str(), &any) == 1;
}

/// Of no use to others, who are told it.
bool is_any_address(const std::string& text) {
    in6_addr six{};
    in_addr four{};
    return (inet_pton(AF_INET, text.c_str(), &four) == 1 && four.s_addr == INADDR_ANY) ||
           (inet_pton(AF_INET6, text.c_str(), &six) == 1 && IN6_IS_ADDR_UNSPECIFIED(&six));
}

/// "127.0.0.1:10809", "[::1]:10809" or "".
bool parse_listen(const std::string& text, bool tls, std::string& address, std::uint16_t& port) {
    if (text.empty()) {
        address.clear();
        return true;
    }
    const auto colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0) return false;
    address = text.substr(0, colon);
    if (address.front() == '[' && address.back() == ']')
        address = address.substr(1, address.size() - 2);
    const auto [end, error] =
        std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
    return error == std::errc() && end == text.data() + text.size() && port != 0 &&
           (tls ? is_ip_address(address) : front::nbd::is_loopback(address));
}

std::string listen_text(const std::string& address, std::uint16_t port) {
    if (address.empty()) return "";
    return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                  : fmt::format("[{}]:{}", address, port);
}

void read_etcd(Reader& reader, Configuration& into) {
    const std::pair<const char*, std::string*> texts[] = {
        {"etcd_ca", &into.etcd_ca},
        {"etcd_cert", &into.etcd_cert},
        {"etcd_key", &into.etcd_key},
        {"etcd_user", &into.etcd_user},
        {"etcd_password_file", &into.etcd_password_file}};
    for (const auto& [key, text] : texts) {
        reader.text("cluster", key, *text);
        if (!text->empty() && !is_in_etcd(into))
            reader.refuse("cluster", key, "empty where cluster.metadata is no etcd");
    }
    reader.text("cluster", "etcd_prefix", into.etcd_prefix);
    if (into.etcd_prefix.empty() || into.etcd_prefix.size() > 64)
        reader.refuse("cluster", "etcd_prefix", "1 to 64 characters");
    if (!is_in_etcd(into)) return;
    if (const auto why = why_no_etcd(into.metadata); !why.empty())
        reader.refuse("cluster", "metadata", why);
    if (into.cluster_address.empty())
        reader.refuse("cluster", "metadata", "empty, unless cluster.listen is set");
}

/// With the files of certificates known already.
void read_cluster(Reader& reader, Configuration& into) {
    const bool cluster_tls = into.has_cluster_tls();
    std::string cluster;
    reader.text("cluster", "listen", cluster);
    if (!parse_listen(cluster, cluster_tls, into.cluster_address, into.cluster_port) ||
        is_any_address(into.cluster_address))
        reader.refuse("cluster", "listen",
                      cluster_tls ? "an ADDRESS:PORT at which other hosts reach this one, or empty"
                                  : "a loopback ADDRESS:PORT (any with cluster.tls_certificate), "
                                    "or empty for none");
    reader.text("cluster", "metadata", into.metadata);
    const bool far =
        into.metadata.starts_with('/') || (cluster_tls && into.metadata.starts_with("https://"));
    read_etcd(reader, into);
    if (!into.metadata.empty() && !is_in_etcd(into) && (!far || into.cluster_address.empty()))
        reader.refuse("cluster", "metadata",
                      "the path of another host's metadata.sock or, with cluster.tls_certificate, "
                      "its https://ADDRESS:PORT, or etcd:https://HOST:PORT, with cluster.listen "
                      "set, or empty");
    std::string metadata_listen;
    reader.text("cluster", "metadata_listen", metadata_listen);
    if (!parse_listen(metadata_listen, true, into.metadata_address, into.metadata_port) ||
        (!into.metadata_address.empty() &&
         (!cluster_tls || into.cluster_address.empty() || !into.metadata.empty())))
        reader.refuse("cluster", "metadata_listen",
                      "an ADDRESS:PORT where the metadata are served to other hosts, with "
                      "cluster.listen and cluster.tls_certificate set and cluster.metadata empty, "
                      "or empty for none");
}

std::string quoted(const std::string& text) {
    std::ostringstream out;
    out << toml::value<std::string>(text);
    return out.str();
}

std::string read_values(const toml::table& root, Configuration& into) {
    Reader reader(root, into.file);
    log::Level level{};
    reader.text("", "log_level", into.log_level);
    if (!log::parse_level(into.log_level, level))
        reader.refuse("", "log_level", "debug, info, warn or error");
    reader.text("host", "name", into.host_name);
    if (into.host_name.empty() || into.host_name.size() > 64)
        reader.refuse("host", "name", "1 to 64 characters");
    reader.text("api", "socket", into.api_socket);
    reader.text("api", "group", into.api_group);
    reader.text("nbd", "socket", into.nbd_socket);
    reader.text("nbd", "tls", into.nbd_tls);
    const bool tls = into.nbd_tls == "certificates" || into.nbd_tls == "psk";
    if (!tls && into.nbd_tls != "off") reader.refuse("nbd", "tls", "off, certificates or psk");
    reader.text("nbd", "tls_certificate", into.nbd_tls_certificate);
    reader.text("nbd", "tls_key", into.nbd_tls_key);
    reader.text("nbd", "tls_clients", into.nbd_tls_clients);
    if (into.nbd_tls_clients != "verified" && into.nbd_tls_clients != "any")
        reader.refuse("nbd", "tls_clients", "verified or any");
    reader.text("nbd", "tls_ca", into.nbd_tls_ca);
    reader.text("nbd", "tls_psk_file", into.nbd_tls_psk_file);
    std::string listen = listen_text(into.nbd_address, into.nbd_port);
    reader.text("nbd", "listen", listen);
    if (!parse_listen(listen, tls, into.nbd_address, into.nbd_port))
        reader.refuse("nbd", "listen",
                      tls ? "ADDRESS:PORT, or empty for none"
                          : "a loopback ADDRESS:PORT (any with nbd.tls), or empty for none");
    reader.text("cluster", "tls_certificate", into.cluster_tls_certificate);
    reader.text("cluster", "tls_key", into.cluster_tls_key);
    reader.text("cluster", "tls_ca", into.cluster_tls_ca);
    read_cluster(reader, into);
    reader.flag("ublk", "enabled", into.ublk);
    reader.number("pools", "boot_wait_s", into.boot_wait_s, 0, 3600);
    reader.number("pools", "replace_after_s", into.replace_after_s, 0, 604800);
    reader.number("resync", "rate_mib_s", into.resync_mib_s, 0, 1048576);
    reader.number("data", "reactors", into.reactors, 0, 64);
    reader.number("data", "buffer_mib", into.buffer_mib, 4, 65536);
    return reader.done();
}

/// What 'ebs-cli cluster' has written. An error is a sentence, or "".
std::string read_settings(Configuration& into) {
    const std::string file = into.cluster_file(kSettingsFile);
    if (into.has_cluster_settings())
        return fmt::format(
            "{}: [cluster] is set here, and by 'ebs-cli cluster' in {}: take listen, metadata, "
            "metadata_listen, tls_certificate, tls_key and tls_ca out here, or move that folder "
            "away",
            into.file, into.cluster_folder());
    into.enrolled = true;
    into.cluster_tls_certificate = into.cluster_file(kHostCertificateFile);
    into.cluster_tls_key = into.cluster_file(kHostKeyFile);
    into.cluster_tls_ca = into.cluster_file(kAuthorityFile);
    const toml::table root = toml::parse_file(file);
    Reader reader(root, file);
    reader.text("host", "name", into.host_name);
    read_cluster(reader, into);
    return reader.done();
}

/// Runs `read`, which parses files.
template <class Read>
std::string complaint_of(const std::string& file, Read read) {
    try {
        return read();
    } catch (const toml::parse_error& error) {
        return fmt::format("{}:{}: {}", file, error.source().begin.line, error.description());
    }
}

}  // namespace

std::expected<Configuration, std::string> load_configuration(const Options& options) {
    Configuration made = defaults(options);
    std::error_code ignored;
    made.file_exists = std::filesystem::exists(made.file, ignored);
    if (!made.file_exists && !options.config_file.empty())
        return std::unexpected(made.file + ": no such file");
    std::string wrong;
    if (made.file_exists)
        wrong =
            complaint_of(made.file, [&] { return read_values(toml::parse_file(made.file), made); });
    if (wrong.empty() && std::filesystem::exists(made.cluster_file(kSettingsFile), ignored))
        wrong = complaint_of(made.cluster_file(kSettingsFile), [&] { return read_settings(made); });
    if (!wrong.empty()) return std::unexpected(std::move(wrong));
    for (const std::string& path : {made.api_socket, made.nbd_socket, made.metadata_socket}) {
        if (path.empty() || path.size() > kMaxSocketPathBytes)
            return std::unexpected(
                fmt::format("the path of a unix socket has 1 to {} bytes; '{}' was given: take a "
                            "shorter --state, or set api.socket and nbd.socket in {}",
                            kMaxSocketPathBytes, path, made.file));
    }
    return made;
}

std::string Configuration::cluster_listen() const {
    return listen_text(cluster_address, cluster_port);
}

std::string Configuration::metadata_listen() const {
    return listen_text(metadata_address, metadata_port);
}

bool Configuration::has_cluster_tls() const {
    return !cluster_tls_certificate.empty() || !cluster_tls_key.empty() || !cluster_tls_ca.empty();
}

bool Configuration::has_cluster_settings() const {
    return has_cluster_tls() || !cluster_address.empty() || !metadata.empty() ||
           !metadata_address.empty();
}

bool is_cluster_address(const std::string& text) {
    std::string address;
    std::uint16_t port = 0;
    return !text.empty() && parse_listen(text, true, address, port) && !is_any_address(address);
}

std::string cluster_settings_text(const ClusterSettings& settings) {
    return fmt::format(
        R"(# Written by 'ebs-cli cluster', beside this host's certificates. Read at start, after ublkd.toml.
[host]
name = {}                  # as its certificate has it

[cluster]
listen = {}
metadata = {}
metadata_listen = {}
)",
        quoted(settings.name), quoted(settings.listen), quoted(settings.metadata),
        quoted(settings.metadata_listen));
}

std::string configuration_text(const Configuration& configuration) {
    return fmt::format(
        R"(# ublkd: see ublkd.toml(5). Written by 'ebs-cli init'. Read at start; log_level also on SIGHUP.
log_level = {}              # debug, info, warn, error

[host]
name = {}

[api]
socket = {}
group = {}                 # its members may use the API and NBD sockets

[nbd]
socket = {}
listen = {}                # ADDRESS:PORT, without tls a loopback one, or empty for none
tls = {}                   # of listen: off, certificates, psk
tls_certificate = {}       # the server's; this and the files below are PEM
tls_key = {}
tls_clients = {}           # verified: clients have a certificate by tls_ca; any
tls_ca = {}
tls_psk_file = {}          # for psk: lines IDENTITY:HEXKEY, as psktool writes them

[cluster]
listen = {}               # ADDRESS:PORT for other hosts, without tls a loopback one, or empty for none
tls_certificate = {}       # this host's, with the URI ublkd:host:NAME; this and the two below are PEM
tls_key = {}
tls_ca = {}                # who signs for the other hosts
metadata = {}             # metadata.sock of the host that has the metadata, https://ADDRESS:PORT, or etcd:ENDPOINTS; empty: this one
etcd_ca = {}              # of its https endpoints; this and the two below are PEM files
etcd_cert = {}            # what this host shows
etcd_key = {}
etcd_user = {}
etcd_password_file = {}
etcd_prefix = {}          # of all keys
metadata_listen = {}      # ADDRESS:PORT for other hosts that have their metadata here, under TLS, or empty for none

[ublk]
enabled = {}               # /dev/ublkbN where the kernel has it

[pools]
boot_wait_s = {}           # seconds that volumes wait after a boot for pools that are missing
replace_after_s = {}      # seconds; then a replica whose pool is missing or failed is replaced

[resync]
rate_mib_s = {}             # MiB a second of each copy to a new replica; 0: as fast as it goes

[data]
reactors = {}               # threads that serve volumes; 0: half the processors
buffer_mib = {}             # memory for requests in flight, of each reactor
)",
        quoted(configuration.log_level), quoted(configuration.host_name),
        quoted(configuration.api_socket), quoted(configuration.api_group),
        quoted(configuration.nbd_socket),
        quoted(listen_text(configuration.nbd_address, configuration.nbd_port)),
        quoted(configuration.nbd_tls), quoted(configuration.nbd_tls_certificate),
        quoted(configuration.nbd_tls_key), quoted(configuration.nbd_tls_clients),
        quoted(configuration.nbd_tls_ca), quoted(configuration.nbd_tls_psk_file),
        quoted(configuration.cluster_listen()), quoted(configuration.cluster_tls_certificate),
        quoted(configuration.cluster_tls_key), quoted(configuration.cluster_tls_ca),
        quoted(configuration.metadata), quoted(configuration.etcd_ca),
        quoted(configuration.etcd_cert), quoted(configuration.etcd_key),
        quoted(configuration.etcd_user), quoted(configuration.etcd_password_file),
        quoted(configuration.etcd_prefix), quoted(configuration.metadata_listen()),
        configuration.ublk, configuration.boot_wait_s, configuration.replace_after_s,
        configuration.resync_mib_s, configuration.reactors, configuration.buffer_mib);
}

}  // namespace ublkd::daemon
