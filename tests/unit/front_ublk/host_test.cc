// Goal: the parts that meet the real host: the control ring with its deadlines, the uAPI's numbers,
// names of devices, users of a device, child processes and the guard of the process. Method:
// /dev/null takes any command (uring_cmd) and answers 0; folders of our own stand for /dev and
// /sys.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/front_ublk/rig.h"
#include "ublkd/front/ublk/device_files.h"
#include "ublkd/front/ublk/device_links.h"
#include "ublkd/front/ublk/device_users.h"
#include "ublkd/front/ublk/helper_process.h"
#include "ublkd/front/ublk/kernel_driver_linux.h"
#include "ublkd/front/ublk/mount_table.h"
#include "ublkd/front/ublk/open_files.h"
#include "ublkd/front/ublk/process_guard.h"

namespace ublkd::front::ublk {
namespace {

using uapi::Control;

TEST(UblkUapi, OpcodesAreWhatTheMacrosGive) {
    const auto both = [](unsigned number) {
        return static_cast<std::uint32_t>(_IOWR('u', number, uapi::ControlCommand));
    };
    const auto read = [](unsigned number) {
        return static_cast<std::uint32_t>(_IOR('u', number, uapi::ControlCommand));
    };
    const auto value = [](Control command) { return static_cast<std::uint32_t>(command); };
    EXPECT_EQ(value(Control::kGetDeviceInfo), read(0x02));
    EXPECT_EQ(value(Control::kAddDevice), both(0x04));
    EXPECT_EQ(value(Control::kDeleteDevice), both(0x05));
    EXPECT_EQ(value(Control::kStartDevice), both(0x06));
    EXPECT_EQ(value(Control::kStopDevice), both(0x07));
    EXPECT_EQ(value(Control::kSetParameters), both(0x08));
    EXPECT_EQ(value(Control::kGetParameters), read(0x09));
    EXPECT_EQ(value(Control::kStartRecovery), both(0x10));
    EXPECT_EQ(value(Control::kEndRecovery), both(0x11));
    EXPECT_EQ(value(Control::kGetFeatures), read(0x13));
    EXPECT_EQ(value(Control::kDeleteDeviceAsync), read(0x14));
    EXPECT_EQ(uapi::kFetch, static_cast<std::uint32_t>(_IOWR('u', 0x20, uapi::IoCommand)));
    EXPECT_EQ(uapi::kCommitAndFetch, static_cast<std::uint32_t>(_IOWR('u', 0x21, uapi::IoCommand)));
}

TEST(UblkUapi, PositionsDoNotOverlap) {
    EXPECT_EQ(uapi::data_position(0, 0, 0), 0x80000000u);
    EXPECT_EQ(uapi::data_position(1, 2, 3), 0x80000000ULL + (1ULL << 41) + (2ULL << 25) + 3);
    EXPECT_LT(uapi::data_position(0, 4095, kMaxIoBytes), uapi::data_position(1, 0, 0));
    EXPECT_EQ(uapi::descriptor_offset(3, 4096),
              3u * 98304u);  // by the greatest depth, whatever the device's
    EXPECT_EQ(uapi::descriptor_offset(1, 65536), 131072u);
}

TEST(UblkUapi, TagsTellOursFromOthers) {
    EXPECT_TRUE(is_our_tag(device_tag(VolumeId(1))));
    EXPECT_NE(device_tag(VolumeId(1)), device_tag(VolumeId(2)));
    EXPECT_EQ(device_tag(VolumeId(7)), device_tag(VolumeId(7)));
    EXPECT_FALSE(is_our_tag(0));
    EXPECT_FALSE(is_our_tag(3));
}

io::Task<void> one_command(LinuxDriver* driver, int* done) {
    std::uint64_t word = 5;
    const ControlRequest request{Control::kGetFeatures, 1, 2,
                                 std::as_writable_bytes(std::span(&word, 1))};
    const auto answered = co_await driver->control(&request);
    if (answered && word == 5) ++*done;
}

io::Task<void> many_commands(LinuxDriver* driver, int count, int* done) {
    io::TaskGroup group;
    for (int i = 0; i < count; ++i) group.start(one_command(driver, done));
    co_await group.wait();
}

TEST(ControlRing, AnswersManyCommandsAtOnce) {
    Rig rig;
    auto driver = LinuxDriver::create("/dev", "/dev/null");
    ASSERT_TRUE(driver) << to_string(driver.error());
    int done = 0;
    rig.run(many_commands(driver->get(), 300, &done));  // more than its ring holds
    EXPECT_EQ(done, 300);
}

TEST(ControlRing, ACommandThatTheKernelNeverAnswersEndsAtItsDeadline) {
    Rig rig;
    auto driver = LinuxDriver::create("/dev", "/dev/null");
    ASSERT_TRUE(driver);
    ASSERT_TRUE(faults::arm("ublk.control_lost=fail@2"));
    int done = 0;
    rig.run(one_command(driver->get(), &done));
    const ControlRequest request{Control::kStartDevice, 1, 2, {}, std::chrono::milliseconds(40)};
    const auto begin = io::Clock::now();
    const auto lost = rig.run((*driver)->control(&request));
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::kTimedOut);
    EXPECT_NE(to_string(lost.error()).find("START_DEV"), std::string::npos);
    EXPECT_GE(io::Clock::now() - begin, std::chrono::milliseconds(40));
    rig.run(one_command(driver->get(), &done));  // the ring serves on
    EXPECT_EQ(done, 2);
}

TEST(ControlRing, SaysWhatIsMissing) {
    const auto none = LinuxDriver::create("/dev", "/nonexistent/ublk-control");
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::kUnsupported);
    EXPECT_NE(to_string(none.error()).find("ublk_drv"), std::string::npos);
    Rig rig;
    auto driver = LinuxDriver::create(rig.folder, "/dev/null");
    ASSERT_TRUE(driver);
    uapi::DeviceInfo info{};
    const auto channel = (*driver)->open(rig.reactor.get(), info);
    ASSERT_FALSE(channel);
    EXPECT_EQ(channel.error().code, Errc::kNotFound);
}

// ---- names

TEST(DeviceLinks, AreMadeHereWhereUdevDoesNotRun) {
    Rig rig;
    const std::string dev = rig.folder + "/dev";
    const DeviceLinks links(rig.environment.names, dev, VolumeId(0xabc), "i-1/sdf", "ublkb4");
    ASSERT_TRUE(links.announce());
    EXPECT_FALSE(links.udev_owes());
    ASSERT_TRUE(links.make());
    ASSERT_TRUE(links.make());  // again: a recovery
    const std::string id = VolumeId(0xabc).to_string();
    EXPECT_EQ(std::filesystem::read_symlink(dev + "/ebs/" + id), "../ublkb4");
    EXPECT_EQ(std::filesystem::read_symlink(dev + "/ebs/i-1/sdf"), "../../ublkb4");
    EXPECT_EQ(std::filesystem::read_symlink(dev + "/disk/by-id/ebs-" + id), "../../ublkb4");
    EXPECT_TRUE(std::filesystem::is_symlink(
        dev + "/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol" + id.substr(4)));
    std::ifstream file(rig.environment.names.announcements + "/ublkb4");
    std::string line;
    std::getline(file, line);
    EXPECT_EQ(line, "UBLKD_VOLUME_ID=" + id);
    std::filesystem::remove(dev + "/ebs/" + id);
    std::filesystem::create_symlink("../ublkb9", dev + "/ebs/" + id);  // another device's by now
    links.remove();
    EXPECT_TRUE(std::filesystem::is_symlink(dev + "/ebs/" + id));
    EXPECT_FALSE(std::filesystem::exists(dev + "/ebs/i-1"));
    EXPECT_FALSE(std::filesystem::exists(rig.environment.names.announcements + "/ublkb4"));
}

/// A udev that runs, with our rule.
void start_udev(Rig& rig) {
    std::filesystem::create_directories(rig.folder + "/rules");
    std::ofstream(rig.folder + "/no-udev") << "";
    std::ofstream(rig.folder + "/rules/60-ublkd.rules") << "# a rule";
}

TEST(DeviceLinks, AreUdevsWorkWhereItHasTheRule) {
    Rig rig;
    const LinkPlaces& places = rig.environment.names;
    const std::string dev = rig.folder + "/dev";
    const DeviceLinks links(places, dev, VolumeId(1), "", "ublkb4");
    start_udev(rig);
    EXPECT_TRUE(udev_runs(places));
    EXPECT_TRUE(udev_has_rule(places));
    EXPECT_TRUE(links.udev_owes());
    ASSERT_TRUE(links.make());  // udev did not come
    EXPECT_FALSE(links.udev_owes());
    const std::string link = dev + "/ebs/" + VolumeId(1).to_string();
    EXPECT_EQ(std::filesystem::read_symlink(link), "../ublkb4");
    links.remove();
    EXPECT_FALSE(std::filesystem::is_symlink(link));
    std::filesystem::create_symlink("../ublkb3", link);  // what udev has not taken away yet
    EXPECT_TRUE(links.udev_owes());
    std::filesystem::remove(rig.folder + "/rules/60-ublkd.rules");
    EXPECT_FALSE(links.udev_owes());
    std::filesystem::create_symlink("/dev/null", rig.folder + "/rules/60-ublkd.rules");
    EXPECT_FALSE(udev_has_rule(places));  // masked
    ASSERT_TRUE(links.make());
    EXPECT_EQ(std::filesystem::read_symlink(link), "../ublkb4");
}

TEST(DeviceLinks, ComeWithTheDeviceWhereUdevDoesNotMakeThem) {
    Rig rig;
    start_udev(rig);
    block::MemoryDevice memory(small_geometry());
    const auto begin = io::Clock::now();
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device) << to_string(device.error());
    EXPECT_TRUE(rig.has_link());
    EXPECT_GE(io::Clock::now() - begin, std::chrono::seconds(1));  // udev had its time
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
}

// ---- users of a device

// Who has a block device open is tried on a real one: tests/vm detach_in_use.
TEST(DeviceUsers, NamesWhatIsStackedUponIt) {
    Rig rig;
    const std::string dev = rig.folder + "/dev";
    std::filesystem::create_directories(dev);
    std::ofstream(dev + "/ublkb2") << "";
    EXPECT_TRUE(device_users("ublkb2", dev, rig.folder + "/sys").empty());
    std::filesystem::create_directories(rig.folder + "/sys/block/ublkb2/holders/dm-1");
    std::filesystem::create_directories(rig.folder + "/sys/block/ublkb2/ublkb2p1/holders/md0");
    const auto users = device_users("ublkb2", dev, rig.folder + "/sys");
    ASSERT_EQ(users.size(), 2u);
    EXPECT_EQ(users[0], "ublkb2 held by dm-1");
    EXPECT_EQ(users[1], "ublkb2p1 held by md0");
}

TEST(OpenFiles, AreFoundByTheNumbersOfTheirDevice) {
    const std::string self = std::to_string(getpid());
    EXPECT_FALSE(open_devices(self, S_IFCHR).contains("1:9"));
    const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    EXPECT_TRUE(open_devices(self, S_IFCHR).contains("1:9"));
    EXPECT_FALSE(open_devices(self, S_IFBLK).contains("1:9"));
    EXPECT_TRUE(open_devices("no-such-process", S_IFCHR).empty());
    close(fd);
    const auto pids = processes();
    EXPECT_NE(std::find(pids.begin(), pids.end(), self), pids.end());
}

TEST(DeviceUsers, NamesMounts) {
    struct stat root{};
    ASSERT_EQ(stat("/proc", &root), 0);
    Rig rig;
    std::filesystem::create_directories(rig.folder + "/sys/block/ublkb2");
    std::ofstream(rig.folder + "/sys/block/ublkb2/dev")
        << major(root.st_dev) << ":" << minor(root.st_dev) << "\n";
    const auto users = device_users("ublkb2", rig.folder + "/dev", rig.folder + "/sys");
    EXPECT_NE(std::find(users.begin(), users.end(), "ublkb2 mounted on /proc"), users.end());
}

TEST(DeviceFiles, ListsDevicesAndSeesASchedulerThatStays) {
    Rig rig;
    for (const char* name : {"ublkc12", "ublkc3", "ublkcx", "other"})
        std::filesystem::create_directories(rig.folder + "/sys/class/ublk-char/" + name);
    const std::vector<std::uint32_t> expected{3, 12};
    EXPECT_EQ(list_device_ids(rig.folder + "/sys"), expected);
    EXPECT_TRUE(list_device_ids(rig.folder + "/nothing").empty());
    EXPECT_TRUE(remove_scheduler(rig.folder + "/sys", "ublkb0"));
    rig.set_scheduler(0, "[mq-deadline] none");
    EXPECT_FALSE(remove_scheduler(rig.folder + "/sys", "ublkb0"));  // a plain file does not obey
}

TEST(DeviceFiles, AServerLivesUnderWhateverNameItHasTheChannelOpen) {
    Rig rig;
    const std::string sys = rig.folder + "/sys";
    EXPECT_FALSE(server_is_alive(sys, 3));  // there is no such device
    std::filesystem::create_directories(sys + "/class/ublk-char/ublkc3");
    std::ofstream(sys + "/class/ublk-char/ublkc3/dev") << "1:9\n";  // as /dev/urandom
    const int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    EXPECT_TRUE(server_is_alive(sys, 3));
    close(fd);
    std::ofstream(sys + "/class/ublk-char/ublkc3/dev") << "1:4095\n";
    EXPECT_FALSE(server_is_alive(sys, 3));
}

// ---- children

TEST(HelperProcess, WritesAndClaimsWithoutOurDescriptors) {
    Rig rig;
    const std::string path = rig.folder + "/file";
    EXPECT_EQ(write_file_in_child(path, "x"), ENOENT);
    std::ofstream(path) << "";
    EXPECT_EQ(write_file_in_child(path, "hello"), 0);
    std::string text;
    std::ifstream(path) >> text;
    EXPECT_EQ(text, "hello");
    EXPECT_EQ(try_claim_in_child(path), 0);
    EXPECT_EQ(try_claim_in_child(rig.folder + "/none"), ENOENT);
    // A pipe's reader sees its end as soon as the child runs, though the child waits: it has closed
    // what it inherited.
    ASSERT_EQ(mkfifo((rig.folder + "/fifo").c_str(), 0600), 0);
    EXPECT_FALSE(start_in_background({"no-such-program-at-all"}));
    EXPECT_TRUE(start_in_background({"true"}));
}

TEST(HelperProcess, InheritsNoMapOfARing) {
    Rig rig;
    auto driver = LinuxDriver::create("/dev", "/dev/null");
    ASSERT_TRUE(driver);
    const auto maps_a_ring = [] {
        std::ifstream maps("/proc/self/maps");
        for (std::string line; std::getline(maps, line);) {
            if (line.find("io_uring") != std::string::npos) return true;
        }
        return false;
    };
    ASSERT_TRUE(maps_a_ring());
    const pid_t child = fork();
    if (child == 0) _exit(maps_a_ring() ? 1 : 0);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
}

// ---- mounts

TEST(MountTable, FindsWhatIsMountedWhereAPathLies) {
    std::istringstream table(
        "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "30 22 8:16 / /mnt/a rw shared:3 - ext4 /dev/sdb rw\n"
        "31 22 8:32 / /mnt rw - ext4 /dev/sdc rw\n"  // over the one before
        "32 31 252:0 / /mnt/a/b rw - ext4 /dev/ublkb0 rw\n"
        "33 22 0:40 /sub /with\\040blank rw - tmpfs none rw\n"
        "34 33 8:48 / /with\\040blank rw - ext4 /dev/sdd rw\n");
    const auto mounts = parse_mounts(table);
    ASSERT_EQ(mounts.size(), 6u);
    const auto at = [&mounts](const char* path) { return mount_at(mounts, path)->numbers; };
    EXPECT_EQ(at("/"), "254:0");
    EXPECT_EQ(at("/mnta"), "254:0");
    EXPECT_EQ(at("/mnt"), "8:32");
    EXPECT_EQ(at("/mnt/a"), "8:32");
    EXPECT_EQ(at("/mnt/a/b"), "252:0");
    EXPECT_EQ(at("/mnt/a/b/pool"), "252:0");
    EXPECT_EQ(at("/mnt/a/bc"), "8:32");
    EXPECT_EQ(at("/with blank/x"), "8:48");
    EXPECT_EQ(mount_at({}, "/"), nullptr);
    EXPECT_TRUE(mounts_of("no-such-process").empty());
    EXPECT_EQ(mount_at(mounts_of("self"), "/proc/self/fd")->place, "/proc");
}

// ---- the guard, in a child of its own: it cannot be undone

std::string first_line(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::uint64_t status_kib(const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        std::uint64_t value = 0;
        if (word == name && status >> value) return value;
    }
    return 0;
}

// The sanitizers' runtimes make mlockall() do nothing and return 0.
#ifdef UBLKD_SANITIZED
constexpr bool kLocksNothing = true;
#else
constexpr bool kLocksNothing = false;
#endif

int guarded_child() {
    const pid_t child = fork();
    if (child == 0) {
        const auto missing = guard_process();
        const auto said = [&missing](const char* what) {
            return std::any_of(missing.begin(), missing.end(), [what](const std::string& line) {
                return line.find(what) != std::string::npos;
            });
        };
        bool inherited = false;
        std::thread([&inherited] { inherited = is_io_flusher(); }).join();
        const std::string oom_score = first_line("/proc/self/oom_score_adj");
        // Each is in force, in threads made later too, or it is said that it is not.
        const bool flusher =
            is_io_flusher() == inherited && said("PR_SET_IO_FLUSHER") != is_io_flusher();
        const bool locked = kLocksNothing || said("mlockall") != (status_kib("VmLck:") > 0);
        const bool kept = said("oom_score_adj") != (oom_score == "-1000");
        _exit(flusher && locked && kept ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

TEST(ProcessGuard, IsInForceOrSaysWhatIsMissing) {
    EXPECT_FALSE(is_io_flusher());
    EXPECT_EQ(guarded_child(), 0);
}

TEST(ProcessGuard, RefusesAFolderOnAUblkDevice) {
    Rig rig;
    struct stat info{};
    ASSERT_EQ(stat(rig.folder.c_str(), &info), 0);
    const std::string numbers =
        std::to_string(major(info.st_dev)) + ":" + std::to_string(minor(info.st_dev));
    EXPECT_TRUE(check_not_on_ublk(rig.folder, rig.folder + "/sys"));
    std::filesystem::create_directories(rig.folder + "/sys/dev/block");
    std::filesystem::create_symlink("../../devices/virtual/block/ublkb7/ublkb7p1",
                                    rig.folder + "/sys/dev/block/" + numbers);
    const auto refused = check_not_on_ublk(rig.folder, rig.folder + "/sys");
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kInvalidArgument);
    EXPECT_FALSE(check_not_on_ublk(rig.folder + "/not/there/yet", rig.folder + "/sys"));
}

}  // namespace
}  // namespace ublkd::front::ublk
