#include "cli/attach_hints.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace ublkd::cli {

bool has_unit(std::span<const std::string_view> folders) {
    return std::ranges::any_of(folders, [](std::string_view folder) {
        std::error_code error;
        return std::filesystem::exists(std::filesystem::path(folder) / "ublkd.service", error);
    });
}

std::vector<std::string> attach_hints(const api::Json& attachment, const std::string& volume,
                                      bool unit) {
    const std::string device = attachment["Device"].as_string();
    if (attachment["Frontend"].as_string() == "nbd")
        return {fmt::format(
            "next: qemu-img info '{}', or as root: nbd-client -unix {} -name {} /dev/nbd0", device,
            device.substr(device.find("socket=") + 7), attachment["VolumeId"].as_string())};
    const std::string link = attachment["Link"].as_string();
    std::vector<std::string> hints{"next: mkfs.ext4 " + link};
    if (unit)
        hints.push_back(
            fmt::format("fstab: {} /srv/{} ext4 defaults,nofail,x-systemd.after=ublkd.service 0 2",
                        link, volume));
    return hints;
}

}  // namespace ublkd::cli
