#include "ublkd/daemon/cluster_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "ublkd/base/fault_injection.h"
#include "ublkd/base/files.h"
#include "ublkd/daemon/system.h"

namespace ublkd::daemon {
namespace {

constexpr std::size_t kNameMax = 64;  // as host.name
constexpr auto kCertificateLife = std::chrono::hours(24 * 90);

}  // namespace

Result<void> make_cluster_folder(const Configuration& configuration,
                                 const std::vector<ClusterFile>& files) {
    const std::string folder = configuration.cluster_folder();
    if (has_cluster_folder(configuration)) return fail(Errc::kExists, "the cluster's folder");
    const std::string making = folder + kMaking;
    std::error_code error;
    std::filesystem::remove_all(making, error);  // of one that was killed
    if (error) return fail_errno(error.value(), "empty a folder");
    TRY(make_folder(making, 0700));
    for (const ClusterFile& file : files) {
        TRY(write_file_durably(making + "/" + file.name, file.content, 0600));
    }
    (void)faults::hit("cluster.before_folder");
    if (std::rename(making.c_str(), folder.c_str()) != 0)
        return fail_errno(errno, "rename a folder");
    return sync_folder(parent_of(folder));
}

bool has_cluster_folder(const Configuration& configuration) {
    std::error_code error;
    return std::filesystem::exists(configuration.cluster_folder(), error);
}

bool has_authority(const Configuration& configuration) {
    std::error_code error;
    return configuration.enrolled &&
           std::filesystem::exists(configuration.cluster_file(kAuthorityKeyFile), error);
}

Result<io::KeyedCertificate> read_authority(const Configuration& configuration) {
    if (!has_authority(configuration)) return fail(Errc::kNotFound, "the authority's key");
    TRY_ASSIGN(auto certificate, read_file(configuration.cluster_file(kAuthorityFile)));
    TRY_ASSIGN(auto key, read_file(configuration.cluster_file(kAuthorityKeyFile)));
    return io::KeyedCertificate{std::move(certificate), std::move(key)};
}

std::chrono::seconds certificate_life() {
    if (faults::hit("cluster.short_life") != 0) return std::chrono::seconds(24);
    return kCertificateLife;
}

std::string certificate_uri(std::string_view host_name) {
    return fmt::format("ublkd:host:{}", host_name);
}

std::string trouble_with_certified_name(const std::string& name) {
    if (!name.empty() && name.size() <= kNameMax &&
        std::ranges::all_of(name, [](char c) { return c > ' ' && c <= '~'; }))
        return "";
    return fmt::format(
        "the name of a host with a certificate has 1 to {} ASCII characters, none of them a blank",
        kNameMax);
}

}  // namespace ublkd::daemon
