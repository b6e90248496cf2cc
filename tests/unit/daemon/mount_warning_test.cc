#include <gtest/gtest.h>

#include <sstream>

#include "ublkd/daemon/system.h"

namespace ublkd::daemon {
namespace {

constexpr const char* kMounts =
    "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n"
    "30 22 8:1 / /srv/a rw,noatime shared:1 master:2 - ext4 /dev/sda1 rw,lazytime,errors=ro\n"
    "31 22 8:17 / /srv/b rw,noatime - xfs /dev/sdb1 rw,attr2\n"
    "32 22 8:33 / /srv/b\\040c rw - ext4 /dev/sdc1 rw\n"
    "33 22 8:49 / /srv/d rw - ext4 /dev/sdd1 rw\n"
    "34 33 8:50 / /srv/d rw - ext4 /dev/sde1 rw,lazytime\n";

std::string warning_of(const std::string& folder) {
    std::istringstream table(kMounts);
    const auto mounts = front::ublk::parse_mounts(table);
    return mount_warning(*front::ublk::mount_at(mounts, folder));
}

TEST(MountWarning, IsOfExt4WithoutLazytime) {
    EXPECT_EQ(warning_of("/srv/a/ebs"), "");
    EXPECT_EQ(warning_of("/srv/b/ebs"), "");
    EXPECT_EQ(warning_of("/srv/d/ebs"), "");  // what is mounted over it counts
    EXPECT_NE(warning_of("/srv/b c/ebs").find("'mount -o remount,lazytime /srv/b c'"),
              std::string::npos);
    EXPECT_NE(warning_of("/srv/ab/ebs").find("'mount -o remount,lazytime /'"), std::string::npos);
}

}  // namespace
}  // namespace ublkd::daemon
