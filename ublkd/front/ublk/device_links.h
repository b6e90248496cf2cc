// The names by which a device is found: /dev/ebs/VOL, /dev/ebs/INSTANCE/sdX,
// /dev/disk/by-id/ebs-VOL and the one of AWS's drivers. Where udev runs it makes them, from a file
// that is there before the disk is (run/udev/<dev>, packaging/udev); elsewhere they are made here;
// never by both. Small files outside the device: may be called on a Worker only.
#pragma once

#include <string>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"

namespace ublkd::front::ublk {

struct LinkPlaces {
    std::string run_folder;
    std::string device_folder;
    std::string udev_socket;
};

class DeviceLinks {
  public:
    DeviceLinks() = default;
    DeviceLinks(LinkPlaces places, VolumeId volume, std::string label, std::string device_name);

    /// Before the disk appears: what udev will read.
    Result<void> announce() const;
    /// After it has: the links, unless udev is there to make them.
    Result<void> make() const;
    /// After it is gone. Links that point to another device by now stay.
    void remove() const;

  private:
    std::vector<std::string> links() const;  // relative to device_folder
    std::string announcement() const;
    bool udev_runs() const;

    LinkPlaces places_;
    VolumeId volume_;
    std::string label_;
    std::string device_name_;
};

}  // namespace ublkd::front::ublk
