// Goal: a device starts, serves and ends in the lawful order, and a failure or a hang of any step
// leaves nothing behind in bounded time. Method: the simulated kernel, with each control command
// and each fault point failing in turn.
#include <algorithm>

#include "tests/unit/front_ublk/rig.h"

namespace ublkd::front::ublk {
namespace {

using block::MemoryDevice;
using uapi::Control;

TEST(UblkStart, ShowsTheDeviceAndItsLinkAndEndsWithNothingLeft) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device) << to_string(device.error());
    EXPECT_EQ((*device)->device_id(), 0u);
    EXPECT_EQ((*device)->path(), rig.folder + "/dev/ublkb0");
    EXPECT_TRUE(rig.has_link());
    EXPECT_EQ(std::filesystem::read_symlink(rig.link()), "../ublkb0");
    EXPECT_TRUE(rig.has_ids());
    const uapi::DeviceInfo info = *rig.kernel->info(0);
    EXPECT_EQ(info.flags & kRequiredFeatures, kRequiredFeatures);
    EXPECT_EQ(info.server_flags, device_tag(rig.options.volume));
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
    const std::vector<Control> order{Control::kGetFeatures,   Control::kAddDevice,
                                     Control::kSetParameters, Control::kGetParameters,
                                     Control::kStartDevice,   Control::kStopDevice,
                                     Control::kDeleteDevice};
    EXPECT_EQ(rig.kernel->commands, order);
}

TEST(UblkStart, TellsTheKernelWhatTheDeviceIs) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    const uapi::Parameters p = *rig.kernel->parameters(0);
    EXPECT_EQ(p.basic.attributes, uapi::kAttributeVolatileCache | uapi::kAttributeFua);
    EXPECT_EQ(p.basic.logical_block_shift, 9);
    EXPECT_EQ(p.basic.physical_block_shift, 12);
    EXPECT_EQ(p.basic.max_sectors, 1024u);
    EXPECT_EQ(p.basic.device_sectors, 8192u);
    EXPECT_EQ(p.discard.granularity, 4096u);
    EXPECT_EQ(p.discard.max_discard_segments, 1u);
    EXPECT_EQ(p.discard.max_write_zeroes_sectors,
              2u << 20);  // 1 GiB: below what old kernels cut short
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkStart, CapsRangesBelowWhatOldKernelsCutShort) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ProbeDevice probe(&memory);
    probe.geometry_for_test().max_range_bytes = 64 * kGiB;
    probe.geometry_for_test().volatile_write_cache = false;
    probe.geometry_for_test().read_only = true;
    auto device = rig.attach(&probe);
    ASSERT_TRUE(device);
    const uapi::Parameters p = *rig.kernel->parameters(0);
    EXPECT_LE(p.discard.max_write_zeroes_sectors, UINT32_MAX >> 9);
    EXPECT_EQ(p.discard.max_write_zeroes_sectors % 8, 0u);
    EXPECT_EQ(p.basic.attributes, uapi::kAttributeReadOnly);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkStart, RefusesMoreTagsThanAreFetchedInOneEntry) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.options.queues = 3;
    rig.options.depth = 342;  // 1026
    const auto refused = rig.attach(&memory);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kInvalidArgument);
    EXPECT_TRUE(rig.kernel->commands.empty());
}

TEST(UblkStart, RefusesAKernelThatIsTooOld) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->faults[Control::kGetFeatures] = {.fail_errno = ENODEV};  // what 6.4 and older say
    auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kUnsupported);
    EXPECT_NE(to_string(device.error()).find("6.5"), std::string::npos);
    rig.kernel->features = SimulatedKernel::kAllFeatures & ~uapi::kUserCopy;
    device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kUnsupported);
    EXPECT_EQ(rig.kernel->device_count(), 0u);
}

TEST(UblkStart, RemovesADeviceWhoseFlagsOrParametersTheKernelDropped) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->masked_flags = uapi::kUserRecoveryReissue;
    auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kUnsupported);
    EXPECT_TRUE(rig.left_nothing());
    // With the rule off there is a device whose unanswered requests a death of ours loses.
    ASSERT_TRUE(faults::arm("rule.flags_read_back=off"));
    device = rig.attach(&memory);
    faults::disarm_all();
    ASSERT_TRUE(device);
    ASSERT_TRUE(rig.detach(*device));
    rig.kernel->masked_flags = 0;
    rig.kernel->masked_parameters = uapi::kParametersDiscard;
    device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kUnsupported);
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStart, TakesAnotherNumberWhereTheWantedOneIsTaken) {
    Rig rig;
    MemoryDevice first_memory(small_geometry());
    MemoryDevice second_memory(small_geometry());
    rig.options.device_id = 2;
    auto first = rig.attach(&first_memory);
    ASSERT_TRUE(first);
    EXPECT_EQ((*first)->device_id(), 2u);
    rig.options.volume = VolumeId(77);
    auto second = rig.attach(&second_memory);
    ASSERT_TRUE(second) << to_string(second.error());
    EXPECT_EQ((*second)->device_id(), 0u);
    ASSERT_TRUE(rig.detach(*first));
    ASSERT_TRUE(rig.detach(*second));
    EXPECT_EQ(rig.kernel->device_count(), 0u);
}

TEST(UblkStart, SaysThatTheModulesLimitIsReached) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->faults[Control::kAddDevice] = {.fail_errno = EACCES};
    const auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kExhausted);
    EXPECT_NE(to_string(device.error()).find("ublks_max"), std::string::npos);
}

struct Step {
    const char* name;
    Control command;
};
void PrintTo(const Step& step, std::ostream* out) { *out << step.name; }

class UblkStartStep : public ::testing::TestWithParam<Step> {};

TEST_P(UblkStartStep, FailingLeavesNothing) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->faults[GetParam().command] = {.fail_errno = ENOMEM};
    const auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_TRUE(rig.left_nothing());
}

TEST_P(UblkStartStep, HangingEndsInTimeAndLeavesNothing) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->faults[GetParam().command] = {.hang = true};
    const auto begin = io::Clock::now();
    const auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kTimedOut);
    EXPECT_LT(io::Clock::now() - begin, std::chrono::seconds(5));
    EXPECT_TRUE(rig.left_nothing());
    auto again = rig.attach(&memory);
    ASSERT_TRUE(again) << to_string(again.error());
    ASSERT_TRUE(rig.detach(*again));
}

INSTANTIATE_TEST_SUITE_P(Each, UblkStartStep,
                         ::testing::Values(Step{"GetFeatures", Control::kGetFeatures},
                                           Step{"AddDev", Control::kAddDevice},
                                           Step{"SetParams", Control::kSetParameters},
                                           Step{"GetParams", Control::kGetParameters},
                                           Step{"StartDev", Control::kStartDevice}),
                         [](const auto& test) { return std::string(test.param.name); });

class UblkStartPoint : public ::testing::TestWithParam<const char*> {};

TEST_P(UblkStartPoint, FailingLeavesNothing) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ASSERT_TRUE(faults::arm(std::string(GetParam()) + "=fail"));
    const auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(faults::hits(GetParam()), 1u);
    EXPECT_TRUE(rig.left_nothing());
}

INSTANTIATE_TEST_SUITE_P(Each, UblkStartPoint,
                         ::testing::Values("ublk.after_add_dev", "ublk.after_set_params",
                                           "ublk.before_start_dev", "ublk.after_start_dev"));

TEST(UblkStart, FailsAtOnceWhereAFetchIsRefused) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->refuse_fetch_errno = EINVAL;
    const auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_NE(to_string(device.error()).find("FETCH"), std::string::npos);
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStart, FailsWhereTheChannelCannotBeOpened) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->open_errno = EMFILE;
    const auto device = rig.attach(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kExhausted);
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStart, ServesThePartitionScanThatStartDevWaitsFor) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    EXPECT_EQ((*device)->status().requests, 1u);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkStop, ServesUntilTheKernelHasStopped) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ProbeDevice probe(&memory);
    auto device = rig.attach(&probe);
    ASSERT_TRUE(device);
    probe.hold = true;
    Pending write;
    write.start(rig, uapi::kOperationWrite, 0, 8, std::byte{1});
    rig.settle();
    ASSERT_EQ((*device)->status().in_flight, 1u);
    const auto too_early = rig.detach(*device);  // STOP_DEV waits for the write, in vain
    ASSERT_FALSE(too_early);
    EXPECT_EQ(too_early.error().code, Errc::kTimedOut);
    EXPECT_FALSE(write.is_done());
    probe.released.set();
    rig.settle();
    EXPECT_EQ(write.result, 8 * 512);
    ASSERT_TRUE(rig.detach(*device));  // another call tries again
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStop, HangingOnceIsTriedAgainByTheNextCall) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    rig.kernel->faults[Control::kStopDevice] = {.hang = true};
    ASSERT_FALSE(rig.detach(*device));
    std::vector<std::byte> page(kPageBytes);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), 4096);  // it serves on
    EXPECT_TRUE((*device)->is_stopping());  // for the kernel may carry it out later
    // Unforced, with a user: what has begun goes on.
    std::filesystem::create_directories(rig.folder + "/sys/block/ublkb0/holders/dm-3");
    ASSERT_TRUE(rig.detach(*device, false));
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStop, RefusedByTheKernelLeavesADeviceThatServesOn) {
    for (const int error : {EIO, EPERM, EBUSY, EINTR}) {
        Rig rig;
        MemoryDevice memory(small_geometry());
        auto device = rig.attach(&memory);
        ASSERT_TRUE(device);
        rig.kernel->faults[Control::kStopDevice] = {.fail_errno = error};
        ASSERT_FALSE(rig.detach(*device));
        EXPECT_FALSE((*device)->is_stopping());
        std::vector<std::byte> page(kPageBytes);
        EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), 4096);
        ASSERT_TRUE(rig.detach(*device));
        EXPECT_TRUE(rig.left_nothing());
    }
}

TEST(UblkStop, RefusedOfADeviceThatIsNotSeenToBeLiveIsStopping) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    rig.kernel->faults[Control::kStopDevice] = {.fail_errno = EIO};
    rig.kernel->faults[Control::kGetDeviceInfo] = {.fail_errno = EIO};
    ASSERT_FALSE(rig.detach(*device));
    EXPECT_TRUE((*device)->is_stopping());
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStop, GoesOnAfterADeleteThatFailed) {
    for (const bool hangs : {false, true}) {
        Rig rig;
        MemoryDevice memory(small_geometry());
        auto device = rig.attach(&memory);
        ASSERT_TRUE(device);
        const CommandFault fault{.fail_errno = hangs ? 0 : EIO, .hang = hangs};
        rig.kernel->faults[Control::kDeleteDevice] = fault;
        rig.kernel->faults[Control::kDeleteDeviceAsync] = fault;
        ASSERT_FALSE(rig.detach(*device));
        EXPECT_TRUE((*device)->is_stopping());
        EXPECT_EQ(rig.kernel->device_count(), 1u);
        rig.kernel->faults.clear();
        ASSERT_TRUE(rig.detach(*device, false));
        EXPECT_TRUE(rig.left_nothing());
    }
}

TEST(UblkStop, GoesOverToTheAsynchronousDeleteWhereTheOtherHangs) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    rig.kernel->faults[Control::kDeleteDevice] = {.hang = true};
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_EQ(rig.kernel->commands.back(), Control::kDeleteDeviceAsync);
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStop, ByAnybodyElseIsSeenAndClearedByDetach) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    EXPECT_FALSE((*device)->status().gone);
    UblkControl control(rig.kernel.get(), rig.environment.deadlines);
    ASSERT_TRUE(rig.run(control.stop(0)));
    rig.settle();
    EXPECT_TRUE((*device)->status().gone);
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkStop, RefusesABusyDeviceWhichServesOn) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    std::filesystem::create_directories(rig.folder + "/sys/block/ublkb0/holders/dm-3");
    const auto refused = rig.detach(*device, false);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kBusy);
    std::vector<std::byte> page(kPageBytes);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), 4096);
    std::filesystem::remove(rig.folder + "/sys/block/ublkb0/holders/dm-3");
    ASSERT_TRUE(rig.detach(*device, false));
    EXPECT_TRUE(rig.left_nothing());
}

}  // namespace
}  // namespace ublkd::front::ublk
