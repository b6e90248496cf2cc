#include "ublkd/daemon/etcd_metadata.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "metadata/etcd/etcd_rows.h"
#include "ublkd/base/files.h"

namespace ublkd::daemon {
namespace {

constexpr std::string_view kEtcd = "etcd:";
constexpr std::size_t kPasswordMax = 1024;

std::vector<std::string> endpoints_of(std::string_view metadata) {
    metadata.remove_prefix(kEtcd.size());
    std::vector<std::string> endpoints;
    for (bool more = true; more;) {
        const auto comma = metadata.find(',');
        more = comma != std::string_view::npos;
        endpoints.emplace_back(metadata.substr(0, comma));
        metadata.remove_prefix(more ? comma + 1 : metadata.size());
    }
    return endpoints;
}

std::unexpected<std::string> wrong(const Configuration& configuration, const char* key,
                                   const std::string& why) {
    return std::unexpected(fmt::format("{}: cluster.{}: {}", configuration.file, key, why));
}

std::expected<std::string, std::string> read_password(const Configuration& configuration) {
    const std::string& file = configuration.etcd_password_file;
    struct stat about{};
    if (::stat(file.c_str(), &about) == 0 && (about.st_mode & S_IROTH) != 0)
        return wrong(configuration, "etcd_password_file",
                     fmt::format("everybody may read {}: chmod o-r it", file));
    const auto text = read_file(file, kPasswordMax);
    if (!text)
        return wrong(configuration, "etcd_password_file",
                     fmt::format("cannot read {}: {}", file, to_string(text.error())));
    const std::string password = text->substr(0, text->find_first_of("\r\n"));
    if (password.empty())
        return wrong(configuration, "etcd_password_file",
                     fmt::format("the first line of {} is the password, and is empty", file));
    return password;
}

}  // namespace

bool is_in_etcd(const Configuration& configuration) {
    return configuration.metadata.starts_with(kEtcd);
}

std::string why_no_etcd(const std::string& metadata) {
    if (std::ranges::all_of(endpoints_of(metadata), &metadata::is_etcd_endpoint)) return "";
    return "etcd: and endpoints, separated by commas, each https://HOST:PORT, or "
           "http://ADDRESS:PORT of this machine";
}

std::expected<metadata::EtcdOptions, std::string> etcd_options(const Configuration& configuration) {
    metadata::EtcdOptions options;
    options.access.endpoints = endpoints_of(configuration.metadata);
    options.access.ca = configuration.etcd_ca;
    options.access.certificate = configuration.etcd_cert;
    options.access.key = configuration.etcd_key;
    options.access.user = configuration.etcd_user;
    options.prefix = configuration.etcd_prefix;
    options.seen_file = configuration.state_dir + "/etcd-seen";
    if (configuration.etcd_cert.empty() != configuration.etcd_key.empty())
        return wrong(configuration, configuration.etcd_key.empty() ? "etcd_cert" : "etcd_key",
                     "etcd_cert and etcd_key are set together");
    if (configuration.etcd_user.empty() != configuration.etcd_password_file.empty())
        return wrong(configuration,
                     configuration.etcd_user.empty() ? "etcd_password_file" : "etcd_user",
                     "etcd_user and etcd_password_file are set together");
    const std::pair<const char*, const std::string*> files[] = {
        {"etcd_ca", &configuration.etcd_ca},
        {"etcd_cert", &configuration.etcd_cert},
        {"etcd_key", &configuration.etcd_key}};
    for (const auto& [key, file] : files) {
        if (!file->empty() && ::access(file->c_str(), R_OK) != 0)
            return wrong(configuration, key,
                         fmt::format("cannot read {}: {}", *file,
                                     to_string(error_from_errno(errno, "open"))));
    }
    if (!configuration.etcd_user.empty()) {
        auto password = read_password(configuration);
        if (!password) return std::unexpected(password.error());
        options.access.password = std::move(*password);
    }
    return options;
}

std::expected<std::unique_ptr<metadata::RowService>, std::string> open_etcd(
    const Configuration& configuration) {
    const auto options = etcd_options(configuration);
    if (!options) return std::unexpected(options.error());
    auto rows = metadata::EtcdRows::make(*options);
    if (!rows && rows.error().code == Errc::kBusy)
        return std::unexpected(fmt::format("another ublkd runs with {}", configuration.state_dir));
    if (!rows) return std::unexpected(fmt::format("cannot use etcd: {}", to_string(rows.error())));
    return std::move(*rows);
}

}  // namespace ublkd::daemon
