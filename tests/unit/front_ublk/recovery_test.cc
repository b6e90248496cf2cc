// Goal: a device whose server died, was quiesced or was lost is taken over or cleared, whatever
// step fails; requests that come again carry the ids they had. Method: the simulated kernel; a dead
// server's object stays and nothing of it runs.
#include "tests/unit/front_ublk/rig.h"
#include "ublkd/front/ublk/retry_ids.h"

namespace ublkd::front::ublk {
namespace {

using block::MemoryDevice;
using uapi::Control;

/// Outlives the test, as its dead server's requests point to it.
struct Dying {
    MemoryDevice memory{small_geometry()};
    ProbeDevice before{&memory};
    ProbeDevice after{&memory};
    Pending write;
    Pending discard;
    Pending read_later;

    static Dying& make() {
        static auto* const all = new std::vector<std::unique_ptr<Dying>>();
        all->push_back(std::make_unique<Dying>());
        return *all->back();
    }
    /// A server that dies with a write and a discard applied and not answered.
    void die(Rig& rig) {
        auto device = rig.attach(&before);
        ASSERT_TRUE(device) << to_string(device.error());
        before.hold = true;
        write.start(rig, uapi::kOperationWrite, 8, 8, std::byte{5});
        discard.start(rig, uapi::kOperationDiscard, 64, 8, std::byte{0});
        rig.settle();
        ASSERT_EQ(before.ids.size(), 2u);
        rig.kill(std::move(*device));
        read_later.start(rig, uapi::kOperationRead, 8, 8, std::byte{0});
        rig.settle();
        EXPECT_FALSE(write.is_done() || discard.is_done() || read_later.is_done());
    }
    /// By the server that came afterwards.
    void expect_answered_with_its_ids() const {
        EXPECT_EQ(write.result, 4096);
        EXPECT_EQ(discard.result, 0);
        EXPECT_EQ(read_later.result, 4096);
        EXPECT_EQ(after.ids, before.ids);
    }
};

TEST(UblkRecovery, SendsRequestsAgainWithTheIdsTheyHad) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    rig.settle();
    dying.expect_answered_with_its_ids();
    EXPECT_EQ((*device)->status().reissued, 2u);
    EXPECT_TRUE(rig.has_link());
    // A later request to the same place is a new one.
    std::vector<std::byte> data(4096, std::byte{6});
    EXPECT_EQ(rig.request(uapi::kOperationWrite, 8, 8, data), 4096);
    EXPECT_NE(dying.after.ids.back().client_start, dying.before.ids.front().client_start);
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkRecovery, GivesNewIdsWithTheRuleOff) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    ASSERT_TRUE(faults::arm("rule.reissued_request_keeps_its_id=off"));
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device);
    rig.settle();
    ASSERT_EQ(dying.after.ids.size(), 2u);
    EXPECT_NE(dying.after.ids, dying.before.ids);
    ASSERT_TRUE(rig.detach(*device));
}

/// The server dies between its answer and whatever would have cleared the slot after it; the guest
/// writes again to the same place, with the same tag, and a member that knows the id would leave
/// that write out.
TEST(UblkRecovery, R8_RequestThatWasAnsweredIsNotTakenForTheNextOneOnItsTag) {
    for (const bool rule : {true, false}) {
        Rig rig;
        Dying& dying = Dying::make();
        auto device = rig.attach(&dying.before);
        ASSERT_TRUE(device) << to_string(device.error());
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.slot_cleared_first=off"));
        }
        std::vector<std::byte> data(4096, std::byte{5});
        ASSERT_EQ(rig.request(uapi::kOperationWrite, 8, 8, data), 4096);
        rig.kill(std::move(*device));
        faults::disarm_all();
        dying.write.start(rig, uapi::kOperationWrite, 8, 8, std::byte{6});
        rig.settle();
        device = rig.recover(&dying.after);
        ASSERT_TRUE(device) << to_string(device.error());
        rig.settle();
        ASSERT_EQ(dying.after.ids.size(), 1u);
        EXPECT_EQ(dying.after.ids == dying.before.ids, !rule);
        ASSERT_TRUE(rig.detach(*device));
    }
}

TEST(UblkRecovery, GivesNewIdsWhereASchedulerMayHaveMovedTags) {
    for (const bool later : {false, true}) {
        Rig rig;
        if (!later) rig.set_scheduler(0, "[mq-deadline] none");
        Dying& dying = Dying::make();
        dying.die(rig);
        if (later) rig.set_scheduler(0, "[mq-deadline] none");  // somebody set it after the start
        auto device = rig.recover(&dying.after);
        ASSERT_TRUE(device);
        rig.settle();
        ASSERT_EQ(dying.after.ids.size(), 2u);
        EXPECT_NE(dying.after.ids[0], dying.before.ids[0]);
        EXPECT_NE(dying.after.ids[1], dying.before.ids[1]);
        ASSERT_TRUE(rig.detach(*device));
    }
}

TEST(UblkRecovery, WorksWithoutTheIdFile) {
    for (const bool corrupt : {false, true}) {
        Rig rig;
        Dying& dying = Dying::make();
        dying.die(rig);
        const std::string path = rig.folder + "/run/ublk/ublkb0.ids";
        std::filesystem::remove(path);
        if (corrupt) std::ofstream(path) << "not an id file";
        auto device = rig.recover(&dying.after);
        ASSERT_TRUE(device) << to_string(device.error());
        rig.settle();
        EXPECT_EQ(dying.write.result, 4096);
        EXPECT_EQ((*device)->status().reissued, 0u);
        ASSERT_TRUE(rig.detach(*device));
        EXPECT_TRUE(rig.left_nothing());
    }
}

TEST(UblkRecovery, AfterAQuiesceRequestsWaitForTheNextServer) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ProbeDevice probe(&memory);
    auto device = rig.attach(&probe);
    ASSERT_TRUE(device);
    probe.hold = true;
    Pending under_way;
    under_way.start(rig, uapi::kOperationWrite, 0, 8, std::byte{1});
    rig.settle();
    std::optional<bool> all_answered;
    io::Gate gate;
    struct Drive {
        static io::Task<void> quiesce(UblkDevice* of, std::optional<bool>* done) {
            *done = co_await of->quiesce();
        }
    };
    io::spawn(gate, Drive::quiesce(device->get(), &all_answered));
    rig.settle();
    EXPECT_FALSE(all_answered);  // what is under way is ended first
    Pending later;
    later.start(rig, uapi::kOperationWrite, 8, 8, std::byte{2});
    rig.settle();
    EXPECT_FALSE(later.is_done());
    EXPECT_EQ(probe.ids.size(), 1u);
    probe.hold = false;
    probe.released.set();
    rig.settle();
    EXPECT_EQ(all_answered, true);
    EXPECT_EQ(under_way.result, 4096);
    EXPECT_FALSE(later.is_done());
    device->reset();
    rig.end_process();
    auto next = rig.recover(&probe);
    ASSERT_TRUE(next) << to_string(next.error());
    rig.settle();
    EXPECT_EQ(later.result, 4096);
    EXPECT_EQ(probe.ids.size(), 2u);
    ASSERT_TRUE(rig.detach(*next));
    rig.run(gate.close());
}

TEST(UblkRecovery, AQuiesceBeforeTheRetriesCameTellsThatTheyWillComeToTheNextServer) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    rig.kernel->holds_requests = true;
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    EXPECT_FALSE(rig.run((*device)->quiesce()));
    device->reset();
    rig.end_process();
    auto without = rig.recover(&dying.after);
    ASSERT_TRUE(without) << to_string(without.error());
    ASSERT_TRUE(faults::arm("rule.retries_keep_ids=off"));
    EXPECT_TRUE(rig.run((*without)->quiesce()));  // and the volume would forget what it has applied
    faults::disarm_all();
    without->reset();
    rig.end_process();
    rig.kernel->holds_requests = false;
    auto next = rig.recover(&dying.after);
    ASSERT_TRUE(next) << to_string(next.error());
    rig.settle();
    EXPECT_EQ(dying.after.ids, dying.before.ids);
    EXPECT_TRUE(rig.run((*next)->quiesce()));
    next->reset();
    rig.end_process();
    auto last = rig.recover(&dying.after);
    ASSERT_TRUE(last) << to_string(last.error());
    ASSERT_TRUE(rig.detach(*last));
}

TEST(UblkRecovery, WaitsUntilTheKernelHasNoticedTheDeath) {
    Rig rig;
    rig.kernel->death_takes = std::chrono::milliseconds(50);
    rig.environment.deadlines.lost = std::chrono::seconds(20);
    Dying& dying = Dying::make();
    dying.die(rig);
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRecovery, BacksOffWhileTheDeviceIsBusyAndGivesUpInTime) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    rig.kernel->faults[Control::kStartRecovery] = {.fail_errno = EBUSY, .times = 3};
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    rig.settle();
    EXPECT_EQ(dying.write.result, 4096);
    rig.kill(std::move(*device));
    rig.kernel->faults[Control::kStartRecovery] = {.fail_errno = EBUSY, .times = -1};
    const auto refused = rig.recover(&dying.after);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kBusy);
    EXPECT_EQ(rig.kernel->device_count(),
              1u);  // its users go on waiting, a later call may find it free
    rig.kernel->faults.clear();
    auto again = rig.recover(&dying.after);
    ASSERT_TRUE(again);
    ASSERT_TRUE(rig.detach(*again));
}

TEST(UblkRecovery, NeedsNoStartAfterAServerThatDiedBetweenItsStartAndItsFirstFetch) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    rig.kernel->faults[Control::kStartRecovery] = {.fail_errno = EINVAL};  // what Linux 6.12 says
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    rig.settle();
    EXPECT_EQ(dying.write.result, 4096);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRecovery, RemovesADeviceThatStaysLiveWithoutAServer) {
    Rig rig;
    rig.kernel->death_is_lost = true;
    Dying& dying = Dying::make();
    dying.die(rig);
    const auto begin = io::Clock::now();
    const auto lost = rig.recover(&dying.after);
    ASSERT_FALSE(lost);
    EXPECT_EQ(lost.error().code, Errc::kClosed);
    EXPECT_LT(io::Clock::now() - begin, std::chrono::seconds(5));
    rig.settle();
    EXPECT_EQ(dying.write.result, -EIO);  // nothing waits for ever
    EXPECT_EQ(dying.read_later.result, -EIO);
    EXPECT_TRUE(rig.left_nothing());
    auto anew = rig.attach(&dying.after);  // with the number it had
    ASSERT_TRUE(anew);
    EXPECT_EQ((*anew)->device_id(), 0u);
    ASSERT_TRUE(rig.detach(*anew));
}

TEST(UblkRecovery, RemovesADeviceThatWasNeverStarted) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    rig.kernel->faults[Control::kDeleteDevice] = {.fail_errno = EIO};
    ASSERT_TRUE(faults::arm("ublk.after_add_dev=fail"));
    ASSERT_FALSE(rig.attach(&memory));
    faults::disarm_all();
    ASSERT_EQ(rig.kernel->device_count(), 1u);
    const auto device = rig.recover(&memory);
    ASSERT_FALSE(device);
    EXPECT_EQ(device.error().code, Errc::kClosed);
    EXPECT_TRUE(rig.left_nothing());
}

TEST(UblkRecovery, RefusesADeviceOfAnotherVolumeAndOneThatIsNotThere) {
    Rig rig;
    Dying& dying = Dying::make();
    const auto none = rig.recover(&dying.after, 3);
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::kNotFound);
    rig.options.device_id = uapi::kAnyDevice;
    dying.die(rig);
    const VolumeId mine = rig.options.volume;
    rig.options.volume = VolumeId(99);
    const auto other = rig.recover(&dying.after);
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, Errc::kConflict);
    EXPECT_EQ(rig.kernel->device_count(), 1u);
    rig.options.volume = mine;
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRecovery, FindsADeviceWhoseNumberIsNotKnownByItsTag) {
    for (const std::uint32_t wanted : {uapi::kAnyDevice, 3u}) {
        Rig rig;
        Dying& dying = Dying::make();
        EXPECT_EQ(rig.recover(&dying.after, wanted).error().code, Errc::kNotFound);
        rig.options.device_id = 1;
        MemoryDevice memory(small_geometry());
        ASSERT_TRUE(faults::arm(
            "ublk.after_add_dev=fail"));  // one that was never started, before the other
        rig.kernel->faults[Control::kDeleteDevice] = {.fail_errno = EIO};
        ASSERT_FALSE(rig.attach(&memory));
        faults::disarm_all();
        rig.options.device_id = uapi::kAnyDevice;
        dying.die(rig);
        for (const char* name : {"ublkc0", "ublkc1"})
            std::filesystem::create_directories(rig.folder + "/sys/class/ublk-char/" + name);
        ASSERT_EQ(rig.kernel->device_count(), 2u);
        auto device = rig.recover(&dying.after, wanted);
        ASSERT_TRUE(device) << to_string(device.error());
        EXPECT_EQ((*device)->device_id(), 0u);
        EXPECT_EQ(rig.kernel->device_count(), 1u);
        rig.settle();
        EXPECT_EQ(dying.write.result, 4096);
        ASSERT_TRUE(rig.detach(*device));
    }
}

TEST(UblkRecovery, ServesWhatComesBeforeTheEndOfTheRecovery) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    rig.kernel->sends_when_fetched = true;
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    rig.settle();
    dying.expect_answered_with_its_ids();
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRecovery, LeavesASecondDeviceInWhichRequestsMayWait) {
    Rig rig;
    Dying& first = Dying::make();
    Dying& second = Dying::make();
    first.die(rig);
    auto other = rig.attach(&second.before);
    ASSERT_TRUE(other) << to_string(other.error());
    rig.kill(std::move(*other));
    for (const char* name : {"ublkc0", "ublkc1"})
        std::filesystem::create_directories(rig.folder + "/sys/class/ublk-char/" + name);
    ASSERT_EQ(rig.kernel->device_count(), 2u);
    auto device = rig.recover(&first.after, uapi::kAnyDevice);
    ASSERT_TRUE(device) << to_string(device.error());
    EXPECT_EQ((*device)->device_id(), 0u);
    rig.settle();
    EXPECT_EQ(first.write.result, 4096);
    EXPECT_EQ(rig.kernel->device_count(), 2u);
    ASSERT_TRUE(rig.detach(*device));
    ASSERT_EQ(rig.kernel->device_count(), 1u);
    ASSERT_TRUE(rig.run(remove_device(&rig.environment, 1)));
}

struct Broken {
    const char* name;
    const char* point;  // or nullptr
    Control command;
    bool hang;
};
void PrintTo(const Broken& broken, std::ostream* out) { *out << broken.name; }

class UblkRecoveryStep : public ::testing::TestWithParam<Broken> {};

TEST_P(UblkRecoveryStep, FailingLeavesTheRequestsWaitingForTheNextProcess) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    const Broken& broken = GetParam();
    if (broken.point != nullptr) {
        ASSERT_TRUE(faults::arm(std::string(broken.point) + "=fail"));
    } else {
        rig.kernel->faults[broken.command] = {.fail_errno = broken.hang ? 0 : EIO,
                                              .hang = broken.hang};
    }
    const auto begin = io::Clock::now();
    const auto failed = rig.recover(&dying.after);
    ASSERT_FALSE(failed);
    EXPECT_LT(io::Clock::now() - begin, std::chrono::seconds(5));
    faults::disarm_all();
    rig.settle();
    ASSERT_EQ(rig.kernel->device_count(), 1u);
    EXPECT_FALSE(dying.write.is_done());
    rig.end_process();
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    rig.settle();
    EXPECT_EQ(dying.write.result, 4096);
    EXPECT_EQ(dying.after.ids, dying.before.ids);
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
}

INSTANTIATE_TEST_SUITE_P(
    Each, UblkRecoveryStep,
    ::testing::Values(Broken{"InfoFails", nullptr, Control::kGetDeviceInfo, false},
                      Broken{"InfoHangs", nullptr, Control::kGetDeviceInfo, true},
                      Broken{"BeforeStart", "ublk.recovery_before_start", Control::kGetFeatures,
                             false},
                      Broken{"AfterStart", "ublk.recovery_started", Control::kGetFeatures, false},
                      Broken{"AfterFetch", "ublk.recovery_fetched", Control::kGetFeatures, false},
                      Broken{"EndFails", nullptr, Control::kEndRecovery, false},
                      Broken{"EndHangs", nullptr, Control::kEndRecovery, true}),
    [](const auto& test) { return std::string(test.param.name); });

// What each error of each step makes of the device: docs/ublk.md lists when it is given up.
enum class Becomes { kWaits, kGivenUp };
struct StepError {
    const char* name;
    Control command;  // kNone: the open of /dev/ublkcN, or a fetch
    CommandFault fault;
    Becomes becomes;
    bool same_process_tries_again = true;
    int open_errno = 0;
    int fetch_errno = 0;
};
void PrintTo(const StepError& step, std::ostream* out) { *out << step.name; }

class UblkRecoveryError : public ::testing::TestWithParam<StepError> {};

TEST_P(UblkRecoveryError, LeavesTheDeviceOrGivesItUp) {
    const StepError& step = GetParam();
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    rig.kernel->faults[step.command] = step.fault;
    rig.kernel->open_errno = step.open_errno;
    rig.kernel->refuse_fetch_errno = step.fetch_errno;
    const auto failed = rig.recover(&dying.after);
    ASSERT_FALSE(failed);
    rig.settle();
    if (step.becomes == Becomes::kGivenUp) {
        EXPECT_EQ(failed.error().code, Errc::kClosed);
        EXPECT_EQ(dying.write.result, -EIO);
        EXPECT_TRUE(rig.left_nothing());
        return;
    }
    EXPECT_NE(failed.error().code, Errc::kClosed);
    EXPECT_NE(failed.error().code, Errc::kNotFound);  // either would have it made anew
    ASSERT_EQ(rig.kernel->device_count(), 1u);
    EXPECT_FALSE(dying.write.is_done());
    rig.kernel->faults.clear();
    rig.kernel->open_errno = 0;
    rig.kernel->refuse_fetch_errno = 0;
    if (!step.same_process_tries_again) {
        const auto held = rig.recover(&dying.after);
        ASSERT_FALSE(held);
        EXPECT_EQ(held.error().code, Errc::kBusy);
        ASSERT_EQ(rig.kernel->device_count(), 1u);
        rig.end_process();
    }
    auto device = rig.recover(&dying.after);
    ASSERT_TRUE(device) << to_string(device.error());
    rig.settle();
    EXPECT_EQ(dying.write.result, 4096);
    EXPECT_EQ(dying.read_later.result, 4096);
    ASSERT_TRUE(rig.detach(*device));
    EXPECT_TRUE(rig.left_nothing());
}

CommandFault answers(int error) { return {.fail_errno = error, .times = -1}; }
constexpr CommandFault kHangs{.hang = true, .times = -1};

INSTANTIATE_TEST_SUITE_P(
    Each, UblkRecoveryError,
    ::testing::Values(
        StepError{"FeaturesFail", Control::kGetFeatures, answers(EIO), Becomes::kWaits},
        StepError{"FeaturesHang", Control::kGetFeatures, kHangs, Becomes::kWaits},
        StepError{"FeaturesNotPermitted", Control::kGetFeatures, answers(EPERM), Becomes::kWaits},
        StepError{"InfoFails", Control::kGetDeviceInfo, answers(EIO), Becomes::kWaits},
        StepError{"InfoHangs", Control::kGetDeviceInfo, kHangs, Becomes::kWaits},
        StepError{"InfoNotPermitted", Control::kGetDeviceInfo, answers(EPERM), Becomes::kWaits},
        StepError{"StartFails", Control::kStartRecovery, answers(EIO), Becomes::kWaits},
        StepError{"StartBusy", Control::kStartRecovery, answers(EBUSY), Becomes::kWaits},
        StepError{"StartInterrupted", Control::kStartRecovery, answers(EINTR), Becomes::kWaits},
        StepError{"StartNotPermitted", Control::kStartRecovery, answers(EPERM), Becomes::kWaits},
        StepError{"StartWithoutMemory", Control::kStartRecovery, answers(ENOMEM), Becomes::kWaits},
        StepError{"StartHangs", Control::kStartRecovery, kHangs, Becomes::kGivenUp},
        StepError{"EndFails", Control::kEndRecovery, answers(EIO), Becomes::kWaits, false},
        StepError{"EndBusy", Control::kEndRecovery, answers(EBUSY), Becomes::kWaits, false},
        StepError{"EndInvalid", Control::kEndRecovery, answers(EINVAL), Becomes::kWaits, false},
        StepError{"EndInterrupted", Control::kEndRecovery, answers(EINTR), Becomes::kWaits, false},
        StepError{"EndHangs", Control::kEndRecovery, kHangs, Becomes::kWaits, false},
        StepError{"OpenFails", {}, {}, Becomes::kWaits, true, EIO},
        StepError{"OpenNotPermitted", {}, {}, Becomes::kWaits, true, EACCES},
        StepError{"OpenStaysBusy", {}, {}, Becomes::kGivenUp, false, EBUSY},
        StepError{"FetchRefused", {}, {}, Becomes::kWaits, false, 0, EINVAL}),
    [](const auto& test) { return std::string(test.param.name); });

// ---- rescue

TEST(UblkRescue, FindsDevicesByTheirStateAndClearsThem) {
    Rig rig;
    const auto show = [&rig](int id) {
        std::filesystem::create_directories(rig.folder + "/sys/class/ublk-char/ublkc" +
                                            std::to_string(id));
    };
    Dying& dying = Dying::make();
    dying.die(rig);
    for (const int id : {0, 1, 2, 7}) show(id);  // 7: gone since
    uapi::DeviceInfo foreign{};
    foreign.queue_count = foreign.queue_depth = 1;
    foreign.max_io_bytes = 65536;
    foreign.device_id = 1;
    foreign.server_flags = 3;
    UblkControl control(rig.kernel.get(), rig.environment.deadlines);
    ASSERT_TRUE(rig.run(control.add(foreign)));
    foreign.device_id = 2;
    foreign.server_flags = device_tag(VolumeId(9));
    ASSERT_TRUE(rig.run(control.add(foreign)));
    const auto found = rig.run(find_devices(&rig.environment));
    ASSERT_TRUE(found);
    ASSERT_EQ(found->size(), 3u);
    EXPECT_STREQ((*found)[0].condition, "waiting for recovery");
    EXPECT_TRUE((*found)[0].ours);
    EXPECT_FALSE((*found)[1].ours);
    EXPECT_STREQ((*found)[1].condition, "never started");
    EXPECT_TRUE((*found)[2].ours);
    EXPECT_EQ((*found)[2].info.server_flags, device_tag(VolumeId(9)));
    for (const std::uint32_t id : {0u, 1u, 2u, 7u})
        EXPECT_TRUE(rig.run(remove_device(&rig.environment, id)));
    EXPECT_EQ(rig.kernel->device_count(), 0u);
    rig.settle();
    EXPECT_EQ(dying.write.result, -EIO);
}

TEST(UblkRescue, EndsInTimeWhereTheKernelHangs) {
    Rig rig;
    Dying& dying = Dying::make();
    dying.die(rig);
    rig.kernel->faults[Control::kStopDevice] = {.hang = true};
    const auto removed = rig.run(remove_device(&rig.environment, 0));
    ASSERT_FALSE(removed);
    EXPECT_EQ(removed.error().code, Errc::kTimedOut);
    EXPECT_TRUE(rig.run(remove_device(&rig.environment, 0)));
}

// ---- the id file

TEST(RetryIds, KeepWhatWasUnderWayAndForgetWhatWasAnswered) {
    Rig rig;
    const std::string path = rig.folder + "/ids";
    const RetryIds::Key key{VolumeId(1), 0, 2, 4};
    const uapi::IoDescriptor write{uapi::kOperationWrite, 8, 100, 0};
    block::RequestId kept;
    {
        auto ids = RetryIds::create(path, key);
        ASSERT_TRUE(ids) << to_string(ids.error());
        EXPECT_FALSE(ids->tags_kept());
        ids->set_tags_kept(true);
        kept = ids->begin(1, 3, write, 3);
        EXPECT_EQ(ids->begin(0, 0, write, 1).sequence, kept.sequence + 3);
        ids->end(0, 0);
    }
    auto ids = RetryIds::open(path, key);
    ASSERT_TRUE(ids) << to_string(ids.error());
    EXPECT_TRUE(ids->tags_kept());
    EXPECT_TRUE(ids->any_open());
    const block::RequestId fresh = ids->begin(0, 0, write, 1);
    EXPECT_NE(fresh.client_start, kept.client_start);
    EXPECT_EQ(ids->begin(1, 3, write, 3), kept);
    EXPECT_EQ(ids->reissued(), 1u);
    ids->end(0, 0);
    EXPECT_TRUE(ids->any_open());
    ids->end(1, 3);
    EXPECT_FALSE(ids->any_open());
    EXPECT_NE(ids->begin(1, 3, write, 3), kept);  // equal by chance: a new request
}

TEST(RetryIds, AnotherRequestOnTheTagIsANewOne) {
    Rig rig;
    const std::string path = rig.folder + "/ids";
    const RetryIds::Key key{VolumeId(1), 0, 1, 4};
    const std::vector<uapi::IoDescriptor> others{{uapi::kOperationDiscard, 8, 100, 0},
                                                 {uapi::kOperationWrite, 16, 100, 0},
                                                 {uapi::kOperationWrite, 8, 108, 0}};
    for (const auto& other : others) {
        block::RequestId kept;
        {
            auto ids = RetryIds::create(path, key);
            ASSERT_TRUE(ids);
            kept = ids->begin(0, 2, uapi::IoDescriptor{uapi::kOperationWrite, 8, 100, 0}, 1);
        }
        auto ids = RetryIds::open(path, key);
        ASSERT_TRUE(ids);
        EXPECT_NE(ids->begin(0, 2, other, 1), kept);
    }
}

TEST(RetryIds, RefuseAFileOfAnotherDevice) {
    Rig rig;
    const std::string path = rig.folder + "/ids";
    const RetryIds::Key key{VolumeId(1), 0, 1, 4};
    ASSERT_TRUE(RetryIds::create(path, key));
    const auto code = [&path](RetryIds::Key other) {
        return RetryIds::open(path, other).error().code;
    };
    EXPECT_EQ(code({VolumeId(2), 0, 1, 4}), Errc::kConflict);
    EXPECT_EQ(code({VolumeId(1), 1, 1, 4}), Errc::kConflict);
    EXPECT_EQ(code({VolumeId(1), 0, 2, 4}), Errc::kCorrupt);
    EXPECT_EQ(code({VolumeId(1), 0, 4, 1}), Errc::kConflict);
    std::ofstream(path, std::ios::in | std::ios::binary).write("damaged!", 8);
    EXPECT_EQ(code(key), Errc::kCorrupt);
    std::filesystem::remove(path);
    EXPECT_EQ(code(key), Errc::kNotFound);
}

}  // namespace
}  // namespace ublkd::front::ublk
