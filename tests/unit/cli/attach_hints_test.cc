#include "cli/attach_hints.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <filesystem>
#include <fstream>

namespace ublkd::cli {
namespace {

using api::Json;
using Lines = std::vector<std::string>;

TEST(AttachHints, HaveALineForFstabWhereTheUnitIsInstalledAlone) {
    const Json ublk = Json::object()
                          .set("Frontend", "ublk")
                          .set("Device", "/dev/ublkb0")
                          .set("Link", "/dev/ebs/vol-1");
    EXPECT_EQ(attach_hints(ublk, "pg", false), Lines{"next: mkfs.ext4 /dev/ebs/vol-1"});
    EXPECT_EQ(attach_hints(ublk, "pg", true),
              (Lines{"next: mkfs.ext4 /dev/ebs/vol-1",
                     "fstab: /dev/ebs/vol-1 /srv/pg ext4 "
                     "defaults,nofail,x-systemd.after=ublkd.service 0 2"}));
    const Json nbd = Json::object()
                         .set("Frontend", "nbd")
                         .set("VolumeId", "vol-1")
                         .set("Device", "nbd+unix:///vol-1?socket=/tmp/nbd.sock");
    EXPECT_EQ(attach_hints(nbd, "pg", true),
              Lines{"next: qemu-img info 'nbd+unix:///vol-1?socket=/tmp/nbd.sock', or as root: "
                    "nbd-client -unix /tmp/nbd.sock -name vol-1 /dev/nbd0"});
}

TEST(AttachHints, FindTheUnitInAnyOfItsFolders) {
    std::string name = testing::TempDir() + "units.XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    const std::string folder = name;
    const std::array<std::string_view, 2> folders{"/nonexistent", folder};
    EXPECT_FALSE(has_unit(folders));
    std::ofstream(folder + "/ublkd.service") << "[Unit]\n";
    EXPECT_TRUE(has_unit(folders));
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace ublkd::cli
