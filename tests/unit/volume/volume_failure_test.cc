// Goal: what a volume does when a disk fails, fills up or is replaced while it serves (R5, R12,
// R13, R14), and with retries (R8). Method: real stores in temporary folders, faults at the store's
// points; each rule once with its switch off.
#include <gtest/gtest.h>

#include "tests/unit/volume/volume_world.h"

namespace ublkd::volume {
namespace {

using test::World;
using test::operator""_b;

io::Task<void> write_aside(Volume* volume, std::uint64_t offset_bytes,
                           std::span<const std::byte> data, bool* answered) {
    const block::WriteOptions options{};
    const auto written = co_await volume->write(offset_bytes, data, options);
    EXPECT_TRUE(written.has_value());
    *answered = true;
}

TEST(VolumeFailure, SecondaryWhoseDiskFailsLeavesByTheNextNumberAndTheWriteIsAcknowledged) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    ASSERT_TRUE(faults::arm("store.data_write=fail@2"));  // the primary's own is the first
    EXPECT_TRUE(world.write(4096, 2_b));
    EXPECT_EQ(world.authority->load()->number, 2U);
    EXPECT_EQ(world.authority->load()->members.size(), 1U);
    const VolumeStatus status = world.volume->status();
    EXPECT_EQ(status.state, VolumeState::kDegraded);
    EXPECT_EQ(status.primary, world.config.replicas[0].member.replica);
    ASSERT_EQ(world.lost.size(), 1U);
    EXPECT_EQ(world.lost[0].first, world.config.replicas[1].member.replica);
    EXPECT_EQ(world.lost[0].second.code, Errc::kIo);
    EXPECT_EQ(world.read(4096), 2_b);
    ASSERT_TRUE(world.stop());
    ASSERT_TRUE(world.start());  // the other one is no member: it is not even opened
    EXPECT_EQ(world.read(0), 1_b);
}

TEST(VolumeFailure, PrimaryWhoseDiskFailsHandsOverAndTheGuestNoticesNothing) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    ASSERT_TRUE(faults::arm("store.data_write=fail@1"));
    EXPECT_TRUE(world.write(4096, 2_b));
    const auto record = world.authority->load();
    EXPECT_EQ(record->number, 2U);
    EXPECT_EQ(record->primary, world.config.replicas[1].member.replica);
    EXPECT_EQ(record->members.size(), 1U);
    EXPECT_EQ(world.read(0), 1_b);
    EXPECT_EQ(world.read(4096), 2_b);
}

TEST(VolumeFailure, FailedFsyncPutsAReplicaOut) {
    for (const char* fault : {"store.data_sync=fail@1", "store.data_sync=fail@2"}) {
        World world(2);
        ASSERT_TRUE(world.create());
        ASSERT_TRUE(world.start());
        ASSERT_TRUE(world.write(0, 7_b));
        ASSERT_TRUE(faults::arm(fault));
        EXPECT_TRUE(world.run(world.volume->flush())) << fault;
        EXPECT_EQ(world.authority->load()->members.size(), 1U) << fault;
        EXPECT_EQ(world.read(0), 7_b);
    }
}

TEST(VolumeFailure, LastMemberIsNeverRemovedItsErrorsGoToTheGuest) {
    World world(1);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(faults::arm("store.data_write=fail"));
    const auto written = world.write(0, 1_b);
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code, Errc::kIo);
    EXPECT_EQ(world.authority->load()->number, 1U);
    const VolumeStatus status = world.volume->status();
    EXPECT_EQ(status.state, VolumeState::kBlocked);  // not "ok"
    EXPECT_STREQ(status.blocked_by.c_str(), "R14");
    EXPECT_FALSE(world.stop());  // not clean, and says so
}

TEST(VolumeFailure, UnreadableRangeIsReadFromTheOtherMemberAndRewritten) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 5_b));
    ASSERT_TRUE(faults::arm("store.data_read=fail@1"));
    EXPECT_EQ(world.read(0), 5_b);
    EXPECT_EQ(world.authority->load()->number, 1U);  // nobody had to leave
    EXPECT_EQ(world.read(0), 5_b);
    EXPECT_TRUE(world.members_equal(2));
}

TEST(VolumeFailure, PrimaryThatCannotRewriteAnUnreadableRangeLeaves) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 5_b));
    ASSERT_TRUE(faults::arm("store.data_read=fail@1;store.data_write=fail@1"));
    EXPECT_EQ(world.read(0), 5_b);
    ASSERT_TRUE(world.wait_until([&] { return world.authority->load()->number == 2; }));
    EXPECT_EQ(world.authority->load()->primary, world.config.replicas[1].member.replica);
    EXPECT_EQ(world.read(0), 5_b);
}

/// Of one of two members, also the primary: the other one serves, and status says what it waits
/// for.
void fails_while_the_authority_is_away(const char* fault) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(
        world.write(0, 1_b));  // the region is active: the primary's write comes first from now on
    world.authority->away = 3;
    ASSERT_TRUE(faults::arm(fault));
    auto buffer = world.buffer_of(4096);
    std::fill(buffer.span().begin(), buffer.span().end(), 9_b);
    bool answered = false;
    std::string rule;
    io::Gate gate;
    io::spawn(gate, write_aside(world.volume.get(), 0, buffer.span(), &answered));
    ASSERT_TRUE(world.wait_until([&] {
        if (rule.empty() && world.volume->status().state == VolumeState::kBlocked)
            rule = world.volume->status().blocked_by;
        EXPECT_TRUE(!answered || world.authority->away == 0);
        return answered;
    }));
    EXPECT_EQ(rule, "R4");
    EXPECT_EQ(world.authority->load()->number, 2U);
    world.run(gate.close());
}

TEST(VolumeFailure, AcknowledgementsWaitWhileTheAuthorityIsAway) {
    fails_while_the_authority_is_away("store.data_write=fail@1");
    fails_while_the_authority_is_away("store.data_write=fail@2");
}

TEST(VolumeFailure, ProposalWhoseAnswerIsLostIsSentAgainAndCountsOnce) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    world.authority->lose_answers = 2;
    ASSERT_TRUE(faults::arm("store.data_write=fail@2"));
    EXPECT_TRUE(world.write(0, 9_b));
    EXPECT_EQ(world.authority->load()->number, 2U);
    EXPECT_EQ(world.authority->lose_answers, 0);
}

// ---- full pools

std::shared_ptr<store::AllocationBudget> cap(std::uint64_t bytes) {
    return std::make_shared<store::AllocationBudget>(bytes);
}

TEST(VolumeFailure, WriteThatFindsAPoolFullWaitsAndNobodyLeaves) {
    World world(2);
    world.config.replicas[1].budget = cap(64 * kKiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    auto buffer = world.buffer_of(4096);
    std::fill(buffer.span().begin(), buffer.span().end(), 3_b);
    bool answered = false;
    io::Gate gate;
    io::spawn(gate, write_aside(world.volume.get(), kMiB, buffer.span(), &answered));
    ASSERT_TRUE(world.wait_until([&] { return world.volume->status().blocked_by == "on-full"; }));
    EXPECT_FALSE(answered);
    EXPECT_EQ(world.read(0), 1_b);        // the rest goes on
    EXPECT_TRUE(world.write(8192, 2_b));  // the unit is allocated already
    world.config.replicas[1].budget->set_cap_bytes(0);
    ASSERT_TRUE(world.wait_until([&] { return answered; }));
    EXPECT_EQ(world.authority->load()->number, 1U);
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_EQ(world.volume->status().state, VolumeState::kOk);
    world.run(gate.close());
}

io::Task<void> write_refused(Volume* volume, std::uint64_t offset_bytes,
                             std::span<const std::byte> data, Errc* code) {
    const block::WriteOptions options{};
    const auto written = co_await volume->write(offset_bytes, data, options);
    EXPECT_FALSE(written.has_value());
    *code = written ? Errc::kInvalidArgument : written.error().code;
}

TEST(VolumeFailure, WritesThatWaitForSpaceEndWhenTheyMayNotWaitAnyMore) {
    for (const std::size_t full : {0U, 1U}) {
        World world(2);
        world.config.replicas[full].budget = cap(64 * kKiB);
        ASSERT_TRUE(world.create());
        ASSERT_TRUE(world.start());
        ASSERT_TRUE(world.write(0, 1_b));
        auto buffer = world.buffer_of(4096);
        std::fill(buffer.span().begin(), buffer.span().end(), 3_b);
        Errc code = Errc::kInvalidArgument;
        io::Gate gate;
        io::spawn(gate, write_refused(world.volume.get(), kMiB, buffer.span(), &code));
        ASSERT_TRUE(
            world.wait_until([&] { return world.volume->status().blocked_by == "on-full"; }));
        world.volume->set_on_full(OnFull::kFail);
        ASSERT_TRUE(world.wait_until([&] { return code == Errc::kNoSpace; })) << full;
        EXPECT_TRUE(world.members_equal(2)) << full;
        EXPECT_TRUE(world.write(8192, 2_b)) << "what is allocated can be written";
        world.run(gate.close());
    }
}

TEST(VolumeFailure, WriteThatFailsForWantOfSpaceLeavesTheMembersEqual) {
    for (const std::size_t full : {0U, 1U}) {
        World world(2);
        world.config.on_full = OnFull::kFail;
        world.config.replicas[full].budget = cap(64 * kKiB);
        ASSERT_TRUE(world.create());
        ASSERT_TRUE(world.start());
        ASSERT_TRUE(world.write(0, 1_b));
        const auto written = world.write(kMiB, 3_b);
        ASSERT_FALSE(written) << full;
        EXPECT_EQ(written.error().code, Errc::kNoSpace);
        EXPECT_TRUE(world.members_equal(2)) << full;
        EXPECT_EQ(world.authority->load()->number, 1U);
        EXPECT_TRUE(world.write(0, 2_b));
    }
}

TEST(VolumeFailure, WithoutTheRepairAFailedWriteLeavesTheMembersDifferent) {
    World world(2);
    world.config.on_full = OnFull::kFail;
    world.config.replicas[1].budget = cap(64 * kKiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    ASSERT_TRUE(faults::arm("rule.repair_full=off"));
    ASSERT_FALSE(world.write(kMiB, 3_b));
    EXPECT_FALSE(world.members_equal(2));
}

// ---- R12

TEST(VolumeFailure, DegradedVolumeGetsANewReplicaWhileItIsWritten) {
    World world(1, 32 * kMiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    for (std::uint64_t at = 0; at < 16 * kMiB; at += 2 * kMiB)
        ASSERT_TRUE(world.write(at, 1_b, 256 * kKiB));
    ASSERT_TRUE(world.run(world.volume->add_replica(world.new_place())));
    EXPECT_EQ(world.volume->status().state, VolumeState::kSyncing);
    std::uint64_t writes = 0;
    while (world.joined.empty()) {
        ASSERT_TRUE(world.write((writes * 37 % 8192) * 4096, static_cast<std::byte>(writes), 4096));
        if (++writes % 5 == 0) {
            ASSERT_TRUE(
                world.run(world.volume->discard({(writes * 53 % 8000) * 4096, 64 * kKiB}, {})));
        }
        ASSERT_LT(writes, 100'000U);
    }
    EXPECT_EQ(world.authority->load()->number, 2U);
    EXPECT_EQ(world.authority->load()->members.size(), 2U);
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_EQ(world.volume->status().state, VolumeState::kOk);
}

/// Lost, and back over a restart of the process: the region that was active at the loss is copied,
/// and the units that were written since.
TEST(VolumeFailure, R11_LostReplicaReturnsByTheMapOfWhatDiffers) {
    World world(2, 64 * kMiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(kMiB, 1_b, 512 * kKiB));
    ASSERT_TRUE(faults::arm("store.data_write=fail@2"));
    ASSERT_TRUE(world.write(0, 2_b));
    faults::disarm_all();
    ASSERT_TRUE(world.run(world.volume->discard({kMiB, 256 * kKiB}, {})));
    ASSERT_TRUE(world.write(40 * kMiB, 3_b));
    ASSERT_TRUE(world.stop());
    // The very same folder, whose content is old now.
    const ReplicaPlace back = world.config.replicas[1];
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(50 * kMiB - kPageBytes, 4_b, 2 * kPageBytes));
    ASSERT_TRUE(
        world.wait_until([&] { return world.run(world.volume->add_replica(back)).has_value(); }));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_EQ(world.authority->load()->number, 3U);
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_EQ(world.read(kMiB), 0_b);
    EXPECT_EQ(world.copied_bytes, kRegionBytes + 3 * kDirtyUnitBytes);
}

/// A process that dies in the middle of such a copy leaves the map as it is.
TEST(VolumeFailure, R11_CopyByAMapThatWasCutShortBeginsAgain) {
    World world(2, 64 * kMiB);
    const bool died = world.die_in([&] {
        CHECK(world.create() && world.start(), "created");
        CHECK(world.write(kMiB, 1_b, 512 * kKiB), "written");
        CHECK(faults::arm("store.data_write=fail@2"), "armed");
        CHECK(world.write(0, 2_b), "written without the other");
        faults::disarm_all();
        CHECK(world.write(40 * kMiB, 3_b), "written");
        CHECK(faults::arm("repl.part_copied=crash@2"), "armed");
        const ReplicaPlace back = world.config.replicas[1];
        world.wait_until([&] { return world.run(world.volume->add_replica(back)).has_value(); });
        world.wait_until([&] { return !world.joined.empty(); });
    });
    ASSERT_TRUE(died);
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(60 * kMiB, 4_b));
    const ReplicaPlace back = world.config.replicas[1];
    ASSERT_TRUE(world.run(world.volume->add_replica(back)));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_LE(world.copied_bytes, 3 * kRegionBytes);
}

TEST(VolumeFailure, JoiningReplicaWhoseDiskFailsGivesUpAndNothingElseChanges) {
    World world(1, 16 * kMiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b, 512 * kKiB));
    ASSERT_TRUE(
        faults::arm("store.data_write=fail@1"));  // the first write from now on is the copy's
    const ReplicaPlace place = world.new_place();
    ASSERT_TRUE(world.run(world.volume->add_replica(place)));
    ASSERT_TRUE(world.wait_until([&] { return !world.lost.empty(); }));
    EXPECT_EQ(world.lost[0].first, place.member.replica);
    EXPECT_EQ(world.authority->load()->number, 1U);
    EXPECT_TRUE(world.write(0, 2_b));
    ASSERT_TRUE(world.run(world.volume->add_replica(world.new_place())));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(2));
}

TEST(VolumeFailure, CopyWhoseSourceCannotBeReadBlamesNotTheJoiningReplicasDisk) {
    World world(1, 16 * kMiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b, 512 * kKiB));
    ASSERT_TRUE(faults::arm("store.data_read=fail@1"));  // the first read from now on is the copy's
    const ReplicaPlace place = world.new_place();
    ASSERT_TRUE(world.run(world.volume->add_replica(place)));
    ASSERT_TRUE(world.wait_until([&] { return !world.lost.empty(); }));
    EXPECT_EQ(world.lost[0].first, place.member.replica);
    EXPECT_EQ(world.lost[0].second.code, Errc::kCancelled);  // kIo would put its pool out
    EXPECT_EQ(world.read(0, 512 * kKiB), 1_b);
    ASSERT_TRUE(world.wait_until(
        [&] { return world.run(world.volume->add_replica(world.new_place())).has_value(); }));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(2));
}

TEST(VolumeFailure, BarredReplicaIsGivenUpAndTheVolumeGoesOn) {
    World world(1, 16 * kMiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b, 512 * kKiB));
    const ReplicaPlace place = world.new_place();
    world.authority->barred = place.member.replica;
    ASSERT_TRUE(world.run(world.volume->add_replica(place)));
    ASSERT_TRUE(world.wait_until([&] { return !world.lost.empty(); }));
    EXPECT_EQ(world.lost[0].first, place.member.replica);
    EXPECT_EQ(world.lost[0].second.code, Errc::kConflict);  // no disk is to blame
    EXPECT_EQ(world.authority->proposals, 2);               // the first record, and the join once
    EXPECT_EQ(world.authority->load()->number, 1U);
    EXPECT_TRUE(world.write(0, 2_b));
    ASSERT_TRUE(world.wait_until(
        [&] { return world.run(world.volume->add_replica(world.new_place())).has_value(); }));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(2));
    ASSERT_TRUE(faults::arm("store.data_write=fail@2"));
    EXPECT_TRUE(world.write(4096, 3_b));  // the next change of the membership is decided as ever
    EXPECT_EQ(world.authority->load()->members.size(), 1U);
}

TEST(VolumeFailure, CopyKeepsToItsRate) {
    World world(1, 16 * kMiB);
    world.config.copy_bytes_per_second = 20 * kMiB;
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    for (std::uint64_t at = 0; at < 4 * kMiB; at += 512 * kKiB)
        ASSERT_TRUE(world.write(at, 1_b, 512 * kKiB));
    const auto begin = io::Clock::now();
    ASSERT_TRUE(world.run(world.volume->add_replica(world.new_place())));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_GE(io::Clock::now() - begin,
              std::chrono::milliseconds(180));  // 4 MiB at 20 MiB/s: 200 ms
}

TEST(VolumeFailure, AThirdReplicaJoinsAndOneOfThreeMayFail) {
    World world(2, 16 * kMiB);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    ASSERT_TRUE(world.run(world.volume->add_replica(world.new_place())));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(3));
    ASSERT_TRUE(faults::arm("store.data_write=fail@1"));  // the primary's
    ASSERT_TRUE(world.write(4096, 2_b));
    EXPECT_EQ(world.authority->load()->members.size(), 2U);
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_EQ(world.read(0), 1_b);
    EXPECT_EQ(world.read(4096), 2_b);
    EXPECT_EQ(world.run(world.volume->add_replica(world.config.replicas[1])).error().code,
              Errc::kExists);
}

// ---- R8

TEST(VolumeFailure, R8_RetriedWriteIsAnsweredAndNotAppliedAgain) {
    for (const bool rule : {true, false}) {
        World world(2);
        ASSERT_TRUE(world.create());
        ASSERT_TRUE(world.start());
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.retry_ids=off"));
        }
        const block::WriteOptions first{.id = {77, 1}};
        const block::WriteOptions second{.id = {77, 2}};
        ASSERT_TRUE(world.write(0, 1_b, 4096, first));
        ASSERT_TRUE(world.write(0, 2_b, 4096, second));
        ASSERT_TRUE(world.write(0, 1_b, 4096, first));  // sent again: its answer was lost
        EXPECT_EQ(world.read(0), rule ? 2_b : 1_b);  // without the rule it lands on the later one
    }
}

TEST(VolumeFailure, StoppedVolumeRefusesRequests) {
    World world(1);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.run(world.volume->stop()));
    EXPECT_EQ(world.write(0, 1_b).error().code, Errc::kClosed);
    EXPECT_EQ(world.run(world.volume->flush()).error().code, Errc::kClosed);
    world.volume.reset();
}

}  // namespace
}  // namespace ublkd::volume
