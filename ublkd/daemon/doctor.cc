#include "ublkd/daemon/doctor.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>

#include "ublkd/api/peer.h"
#include "ublkd/daemon/host_health.h"
#include "ublkd/daemon/placement.h"
#include "ublkd/daemon/system.h"
#include "ublkd/front/ublk/device_files.h"

namespace ublkd::daemon {
namespace {

using Findings = std::vector<api::FindingView>;

std::string first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

/// Major and minor of the running kernel, as 6.12 -> {6, 12}.
std::pair<int, int> kernel_version(const std::string& release) {
    int major = 0;
    int minor = 0;
    const auto [at, error] =
        std::from_chars(release.data(), release.data() + release.size(), major);
    if (error == std::errc() && at != release.data() + release.size() && *at == '.') {
        std::from_chars(at + 1, release.data() + release.size(), minor);
    }
    return {major, minor};
}

void examine_kernel(const Core& core, Findings& findings) {
    utsname names{};
    uname(&names);
    const std::string release = names.release;
    const bool ublk = core.engine->ublk() != nullptr;
    findings.push_back({"kernel", "ok", fmt::format("Linux {}", release), ""});
    if (ublk) {
        findings.push_back({"ublk", "ok", "volumes can be /dev/ublkbN", ""});
        return;
    }
    api::FindingView finding{"ublk", "warning",
                             fmt::format("not available: {}; volumes are shown over NBD",
                                         to_string(core.engine->no_ublk_reason())),
                             ""};
    if (!core.configuration->ublk)
        finding.fix = "set ublk.enabled = true in " + core.configuration->file +
                      " and start the daemon again";
    else if (kernel_version(release) < std::pair(6, 5))
        finding.fix =
            "boot a kernel of 6.5 or newer with ublk; on Debian 12: apt install "
            "linux-image-6.12-amd64 (bookworm-backports), or linux-image-6.12.*+deb12-amd64 "
            "(security)";
    else if (!std::filesystem::exists("/dev/ublk-control"))
        finding.fix = "modprobe ublk_drv";
    else if (geteuid() != 0)
        finding.fix = "run ublkd as root";
    findings.push_back(std::move(finding));
}

/// Who makes /dev/ebs/VOL, where there is ublk.
void examine_names(const Core& core, Findings& findings) {
    const auto* ublk = core.engine->ublk();
    if (ublk == nullptr) return;
    if (!front::ublk::udev_runs(ublk->names)) {
        findings.push_back({"names", "ok", "/dev/ebs/VOL is made by ublkd; no udev runs here", ""});
    } else if (front::ublk::udev_has_rule(ublk->names)) {
        findings.push_back({"names", "ok", "/dev/ebs/VOL is made by udev", ""});
    } else {
        findings.push_back({"names", "warning",
                            "udev has no rule for volumes: ublkd makes /dev/ebs/VOL itself, but "
                            "systemd does not see it (a mount in /etc/fstab would time out), and "
                            "there are no names of partitions and no UUIDs",
                            "'cmake --install' of ublkd brings lib/udev/rules.d/60-ublkd.rules "
                            "(its README, Install); then udevadm control --reload"});
    }
}

const char* who_may_use_nbd_tcp(const Configuration& configuration) {
    if (configuration.nbd_tls == "psk") return "under TLS, where whoever has a key";
    if (configuration.nbd_tls == "off") return "where every user of this machine";
    return configuration.nbd_tls_clients == "any" ? "under TLS, where whoever reaches it"
                                                  : "under TLS, where whoever has a certificate";
}

void examine_nbd(const Core& core, Findings& findings) {
    const Configuration& configuration = *core.configuration;
    const std::string address =
        fmt::format("{}:{}", configuration.nbd_address, configuration.nbd_port);
    if (configuration.nbd_address.empty()) {
        findings.push_back({"nbd", "ok", "on " + configuration.nbd_socket, ""});
    } else if (const auto trouble = core.engine->nbd_tcp_trouble()) {
        findings.push_back({"nbd", "warning",
                            fmt::format("on {}, but not on {}: {}; this is tried again",
                                        configuration.nbd_socket, address, to_string(*trouble)),
                            fmt::format("ss -ltnp 'sport = :{}' shows who has the port; "
                                        "nbd.listen in {} names another, or none",
                                        configuration.nbd_port, configuration.file)});
    } else {
        findings.push_back(
            {"nbd", "ok",
             fmt::format("on {}, and on {} {} may use what is attached with --frontend nbd",
                         configuration.nbd_socket, address, who_may_use_nbd_tcp(configuration)),
             ""});
    }
}

void examine_reactors(const Core& core, Findings& findings) {
    core.engine->look_at_reactors();
    const auto in_use = core.store->list<metadata::VolumeRecord>(
        metadata::where("state", metadata::VolumeState::kInUse));
    std::string waiting;
    for (const auto& volume : in_use ? *in_use : std::vector<metadata::VolumeRecord>()) {
        if (!core.engine->answers(volume.id))
            waiting += (waiting.empty() ? "" : ", ") + volume.id.to_string();
    }
    if (waiting.empty())
        findings.push_back({"reactors", "ok", "those of all volumes in use answer", ""});
    else
        findings.push_back(
            {"reactors", "problem",
             "a reactor does not answer: the I/O of these volumes waits: " + waiting,
             "the kernel's log says which disk hangs; mount pools on ext4 with "
             "lazytime, or use XFS, so that one disk holds up its own volumes alone"});
}

void examine_limits(Findings& findings) {
    const std::string disabled = first_line("/proc/sys/kernel/io_uring_disabled");
    if (disabled.empty() || disabled == "0")
        findings.push_back({"io_uring", "ok", "in use", ""});
    else
        findings.push_back({"io_uring", "warning",
                            "restricted: kernel.io_uring_disabled is " + disabled,
                            "sysctl kernel.io_uring_disabled=0"});

    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur >= 4096)
        findings.push_back({"open files", "ok", fmt::format("limit {}", files.rlim_cur), ""});
    else
        findings.push_back({"open files", "warning",
                            fmt::format("limit {}: enough for about {} attached volumes",
                                        files.rlim_cur, files.rlim_cur / 16),
                            "LimitNOFILE=65536 in the unit, or ulimit -Hn 65536"});
}

/// The module limits all devices, or, as Linux 6.15 and stable ones before it have it, those alone
/// that others than root made. Its function has the name of what it limits.
bool limits_all_devices() {
    std::ifstream symbols("/proc/kallsyms");
    for (std::string line; std::getline(symbols, line);) {
        if (line.find(" ublk_set_max_unprivileged_ublks") != std::string::npos) return false;
    }
    return true;
}

void examine_device_limit(const Core& core, Findings& findings) {
    if (core.engine->ublk() == nullptr) return;
    const std::string text = first_line("/sys/module/ublk_drv/parameters/ublks_max");
    std::size_t limit = 0;
    const char* const end = text.data() + text.size();
    if (std::from_chars(text.data(), end, limit).ec != std::errc()) return;
    if (!limits_all_devices()) {
        findings.push_back({"ublks_max", "ok", "no limit on the devices that root makes", ""});
        return;
    }
    const std::size_t devices =
        front::ublk::list_device_ids(core.engine->ublk()->sys_folder).size();
    const std::string used = fmt::format("{} of {} ublk devices exist", devices, limit);
    if (devices * 5 < limit * 4)
        findings.push_back({"ublks_max", "ok", used, ""});
    else
        findings.push_back({"ublks_max", "warning", used + ": no more can be attached by ublk then",
                            "echo 1024 > /sys/module/ublk_drv/parameters/ublks_max, and 'options "
                            "ublk_drv ublks_max=1024' in /etc/modprobe.d/ublkd.conf"});
}

void examine_folders(const Core& core, Findings& findings) {
    struct statvfs space{};
    const std::string& state = core.configuration->state_dir;
    if (const std::string trouble = state_trouble(core); !trouble.empty()) {
        findings.push_back({"state folder", "problem", trouble,
                            "free space on its file system; where that does not help, check its "
                            "disk and start the daemon again"});
    } else if (statvfs(state.c_str(), &space) == 0) {
        const std::uint64_t left_mib = space.f_bavail * space.f_frsize / kMiB;
        findings.push_back(
            {"state folder", left_mib < 64 ? "warning" : "ok",
             fmt::format("{}, {} MiB left{}", state, left_mib,
                         left_mib < 64 ? ": changes are refused when it is full" : ""),
             left_mib < 64 ? "free space on its file system" : ""});
    }
    if (api::group_id(core.configuration->api_group))
        findings.push_back(
            {"group", "ok",
             fmt::format("members of '{}' may use the daemon", core.configuration->api_group), ""});
    else
        findings.push_back(
            {"group", "warning",
             fmt::format(
                 "there is no group '{}': root and the daemon's own user alone may use the daemon",
                 core.configuration->api_group),
             fmt::format("groupadd --system {}, then start the daemon again",
                         core.configuration->api_group)});
}

/// Of this host's certificate for others.
void examine_certificate(const Core& core, Findings& findings) {
    const std::string term = core.certificate->term_text();
    if (term.empty()) return;
    const bool renews = core.certificate->renews_itself();
    if (const std::string trouble = core.certificate->trouble(); trouble.empty())
        findings.push_back({"certificate", "ok",
                            term + (renews ? ", and renewed by itself" : ", and renewed by hand"),
                            ""});
    else
        findings.push_back(
            {"certificate", "problem", trouble,
             renews ? "see that ublkd runs at the host with the cluster's authority (where "
                      "'ebs-cli cluster init' was) and is reached; it is tried again by itself"
                    : "make another for the same name and key, put it in the place of " +
                          core.configuration->cluster_tls_certificate +
                          ", and start the daemon again"});
}

/// Two failure domains on one disk are one: a volume loses both of its replicas with it.
void examine_disks(const std::vector<api::PoolView>& pools, Findings& findings) {
    std::map<std::string, const api::PoolView*> first_on;
    for (const auto& pool : pools) {
        if (pool.state != "ok") continue;
        const Result<std::string> disk = domain_of(pool.path);
        if (!disk) continue;
        const auto* other = first_on.try_emplace(*disk, &pool).first->second;
        if (other->domain == pool.domain) continue;
        findings.push_back(
            {"failure domains", "warning",
             fmt::format("{} (domain {}) and {} (domain {}) are on one disk: both fail with it",
                         other->path, other->domain, pool.path, pool.domain),
             "make the second pool on another disk, then 'ebs-cli pool remove' this one"});
    }
}

void examine_own_pools(const std::vector<api::PoolView>& pools, Findings& findings) {
    for (const auto& pool : pools) {
        if (pool.state == "ok" && !pool.warning.empty())
            findings.push_back({"pool", "warning", fmt::format("{} is {}", pool.path, pool.warning),
                                "mount it so, or make pools on XFS"});
        if (pool.state == "ok") continue;
        findings.push_back({"pool", "problem",
                            fmt::format("{} is {}: {}", pool.path, pool.state, pool.message),
                            "mount or replace its disk; or 'ebs-cli pool add' another and 'ebs-cli "
                            "pool remove' this one"});
    }
}

/// Whether there is where new replicas can be. Pools that are drained take none.
void examine_room(const Core& core, bool drained, Findings& findings) {
    const auto usable = core.pools->usable();
    const auto here = static_cast<std::size_t>(
        std::ranges::count(usable, core.identity->host(), &UsablePool::host));
    const std::string but = drained ? " but those that are drained" : "";
    const std::string or_cancel = drained ? ", or 'ebs-cli pool drain POOL --cancel'" : "";
    if (usable.empty()) {
        findings.push_back({"pools", "problem",
                            fmt::format("no usable pool{}: no volume can be created", but),
                            "ebs-cli pool add DIR --domain NAME" + or_cancel});
        return;
    }
    const auto elsewhere = usable.size() - here;
    findings.push_back({"pools", "ok",
                        elsewhere == 0
                            ? fmt::format("{} in service", here)
                            : fmt::format("{} in service here, {} of other hosts", here, elsewhere),
                        ""});
    if (domains_of(usable).size() < 2)
        findings.push_back(
            {"failure domains", "warning",
             fmt::format("all pools{} are in one: new volumes have one replica", but),
             "ebs-cli pool add DIR --domain NAME on another disk" + or_cancel});
}

void examine_pools(const Core& core, const std::vector<api::DrainView>& drains,
                   Findings& findings) {
    if (!core.identity->initialized()) {
        findings.push_back(
            {"configuration", "warning", "not initialized", "ebs-cli init --dir DIR"});
        return;
    }
    const auto pools = core.pools->own_pools();
    examine_own_pools(pools, findings);
    examine_room(core, !drains.empty(), findings);
    examine_disks(pools, findings);
    for (const auto& drain : drains)
        findings.push_back(
            {"drain", drain.state == "blocked" ? "warning" : "ok", drain.message, drain.fix});
}

}  // namespace

std::vector<api::FindingView> examine(const Core& core, const std::vector<api::DrainView>& drains) {
    Findings findings;
    examine_kernel(core, findings);
    examine_names(core, findings);
    examine_nbd(core, findings);
    examine_reactors(core, findings);
    examine_limits(findings);
    examine_device_limit(core, findings);
    examine_folders(core, findings);
    examine_certificate(core, findings);
    examine_pools(core, drains, findings);
    return findings;
}

}  // namespace ublkd::daemon
