#include "ublkd/front/ublk/device_links.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

namespace ublkd::front::ublk {
namespace {

namespace fs = std::filesystem;

Result<void> make_folders(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (error) return fail_errno(error.value(), "make a folder for device names");
    return {};
}

/// The target of a link that lies `depth` folders below the device folder.
std::string target_of(const std::string& link, const std::string& device_name) {
    std::string up;
    for (const char c : link) {
        if (c == '/') up += "../";
    }
    return up + device_name;
}

}  // namespace

bool udev_runs(const LinkPlaces& places) { return access(places.udev_socket.c_str(), F_OK) == 0; }

bool udev_has_rule(const LinkPlaces& places) {
    for (const std::string& folder : places.rule_folders) {
        const fs::path rule = fs::path(folder) / "60-ublkd.rules";
        std::error_code error;
        if (fs::exists(rule, error)) return fs::is_regular_file(rule, error);
    }
    return false;
}

DeviceLinks::DeviceLinks(LinkPlaces places, std::string device_folder, VolumeId volume,
                         std::string label, std::string device_name)
    : places_(std::move(places)),
      device_folder_(std::move(device_folder)),
      volume_(volume),
      label_(std::move(label)),
      device_name_(std::move(device_name)) {}

std::string DeviceLinks::announcement() const { return places_.announcements + "/" + device_name_; }

bool DeviceLinks::is_right(const std::string& link) const {
    std::error_code error;
    const fs::path target = fs::read_symlink(device_folder_ + "/" + link, error);
    return !error && target == target_of(link, device_name_);
}

std::vector<std::string> DeviceLinks::links() const {
    const std::string id = volume_.to_string();
    std::vector<std::string> all{"ebs/" + id, "disk/by-id/ebs-" + id,
                                 "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol" + id.substr(4)};
    if (!label_.empty()) all.push_back("ebs/" + label_);
    return all;
}

Result<void> DeviceLinks::announce() const {
    TRY(make_folders(places_.announcements));
    const std::string id = volume_.to_string();
    std::string text = fmt::format(
        "UBLKD_VOLUME_ID={}\nID_SERIAL=Amazon_Elastic_Block_Store_vol{}\nID_SERIAL_SHORT=vol{}\n",
        id, id.substr(4), id.substr(4));
    if (!label_.empty()) text += fmt::format("UBLKD_LABEL={}\n", label_);
    const std::string path = announcement();
    const std::string fresh = path + ".new";
    const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return fail_errno(errno, "announce a device to udev");
    const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const int error = written ? 0 : errno;
    ::close(fd);
    if (!written) return fail_errno(error, "announce a device to udev");
    if (::rename(fresh.c_str(), path.c_str()) != 0)
        return fail_errno(errno, "announce a device to udev");
    return {};
}

bool DeviceLinks::udev_owes() const {
    if (!udev_runs(places_) || !udev_has_rule(places_)) return false;
    for (const std::string& link : links()) {
        if (!is_right(link)) return true;
    }
    return false;
}

Result<void> DeviceLinks::make() const {
    for (const std::string& link : links()) {
        if (is_right(link)) continue;
        const std::string path = device_folder_ + "/" + link;
        TRY(make_folders(fs::path(path).parent_path()));
        const std::string target = target_of(link, device_name_);
        const std::string fresh =
            path + ".new";  // renamed over what was there: the name is never missing
        (void)::unlink(fresh.c_str());
        if (::symlink(target.c_str(), fresh.c_str()) != 0)
            return fail_errno(errno, "link a device's name");
        if (::rename(fresh.c_str(), path.c_str()) != 0)
            return fail_errno(errno, "link a device's name");
    }
    return {};
}

void DeviceLinks::remove() const {
    (void)::unlink(announcement().c_str());
    for (const std::string& link : links()) {
        if (is_right(link)) (void)::unlink((device_folder_ + "/" + link).c_str());
    }
    if (const auto slash = label_.rfind('/'); slash != std::string::npos)
        (void)::rmdir((device_folder_ + "/ebs/" + label_.substr(0, slash)).c_str());
}

}  // namespace ublkd::front::ublk
