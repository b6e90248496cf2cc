// The names by which a device is found: /dev/ebs/VOL, /dev/ebs/INSTANCE/sdX,
// /dev/disk/by-id/ebs-VOL and the one of AWS's drivers. Where udev runs and has our rule
// (packaging/udev) it makes them, from a file that is there before the disk is; what it does not
// make in time, and all of them elsewhere, is made here. Both make the same links, so it does not
// matter who was first. Small files outside the device: may be called on a Worker only.
#pragma once

#include <string>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"

namespace ublkd::front::ublk {

struct LinkPlaces {
    /// What the rule reads, by the name of the disk. Device numbers are the machine's, so it is
    /// the same for each state folder.
    std::string announcements = "/run/ublkd-udev";
    std::string udev_socket = "/run/udev/control";
    /// The first of them that has a rule of a name decides (udev(7)).
    std::vector<std::string> rule_folders{"/etc/udev/rules.d", "/run/udev/rules.d",
                                          "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d",
                                          "/lib/udev/rules.d"};
};

bool udev_runs(const LinkPlaces& places);
/// Whether udev has our rule, and it was not masked.
bool udev_has_rule(const LinkPlaces& places);

class DeviceLinks {
  public:
    DeviceLinks() = default;
    DeviceLinks(LinkPlaces places, std::string device_folder, VolumeId volume, std::string label,
                std::string device_name);

    /// Before the disk appears: what udev will read.
    Result<void> announce() const;
    /// After it has: whether udev has still to make them.
    bool udev_owes() const;
    /// Makes those that are not there.
    Result<void> make() const;
    /// After it is gone. Links that point to another device by now stay.
    void remove() const;

  private:
    std::vector<std::string> links() const;  // relative to device_folder
    std::string announcement() const;
    bool is_right(const std::string& link) const;

    LinkPlaces places_;
    std::string device_folder_;
    VolumeId volume_;
    std::string label_;
    std::string device_name_;
};

}  // namespace ublkd::front::ublk
