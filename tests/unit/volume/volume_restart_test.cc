// Goal: starting after a death of the process (R7, R8), after another boot (R9), after an
// interrupted copy (R12) and at every named step. Method: a child process writes and dies (SIGKILL
// at a fault point, or an end without a stop); another start over the same folders finds every
// acknowledged write, and members that are equal byte for byte.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <fstream>
#include <iterator>
#include <thread>

#include "tests/unit/volume/volume_world.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::volume {
namespace {

using test::World;
using test::operator""_b;

/// Opens the store of a member that no volume has open and changes it behind the protocol's back.
void tamper(World& world, std::size_t replica, std::optional<std::uint64_t> offset_bytes,
            std::byte value, store::SuperblockChange change) {
    world.reactor();
    auto opened = world.run(store::ReplicaStore::open(&world.reactor(), world.buffers(),
                                                      world.config.replicas[replica].folder, {}));
    CHECK(opened.has_value(), "the member's store opens");
    if (offset_bytes) {
        auto buffer = world.buffer_of(4096);
        std::fill(buffer.span().begin(), buffer.span().end(), value);
        CHECK(world.run((*opened)->write(*offset_bytes, buffer.span(), {})), "write to one member");
    }
    CHECK(world.run((*opened)->update_superblock(change)), "change of the superblock");
}

void create_and_write(World& world) {
    const bool died = world.die_in([&] {
        CHECK(world.create() && world.start(), "created");
        CHECK(world.write(0, 1_b) && world.write(8 * kMiB, 2_b), "written");
    });
    CHECK(!died, "the child ends without a stop");
}

TEST(VolumeRestart, R7_WriteThatReachedOneMemberIsOnAllBeforeItIsRead) {
    for (const bool rule : {true, false}) {
        World world(2);
        create_and_write(world);
        // As if this write had reached the primary's disk alone when the process died.
        tamper(world, 0, 4096, 9_b, {});
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.union_copy=off"));
        }
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.authority->load()->number, 1U);
        EXPECT_EQ(world.read(4096), 9_b);
        EXPECT_EQ(world.members_equal(2), rule);
        EXPECT_EQ(world.read(0), 1_b);
        EXPECT_EQ(world.read(8 * kMiB), 2_b);
    }
}

TEST(VolumeRestart, R7_RegionsOutsideOfTheUnionAreServedAtOnce) {
    World world(2);
    create_and_write(world);
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.volume->status().state, VolumeState::kSyncing);
    EXPECT_EQ(world.volume->status().sync_total_bytes, 2 * kRegionBytes);
    EXPECT_EQ(world.read(32 * kMiB), 0_b);
    EXPECT_EQ(world.read(8 * kMiB), 2_b);  // waits for its copy
    EXPECT_TRUE(world.wait_until([&] { return world.volume->status().state == VolumeState::kOk; }));
}

TEST(VolumeRestart, R7_DeathWhileTheUnionIsCopiedBeginsItAgain) {
    for (const int hit : {1, 2}) {
        World world(2, 64 * kMiB, test::Disk::kMemory);
        create_and_write(world);
        tamper(world, 0, 4096, 9_b, {});
        tamper(world, 0, 8 * kMiB + 4096, 8_b, {});
        world.close_reactor();
        ASSERT_TRUE(world.die_in([&] {
            CHECK(faults::arm("repl.region_copied=crash@" + std::to_string(hit)), "armed");
            CHECK(world.start(), "started");
            world.wait_until([] { return false; });
        }));
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.read(4096), 9_b);
        EXPECT_EQ(world.read(8 * kMiB + 4096), 8_b);
        EXPECT_EQ(world.read(8 * kMiB), 2_b);
        EXPECT_TRUE(world.members_equal(2));
    }
}

TEST(VolumeRestart, R10_NothingIsCopiedForWhatWasFlushedAWhileAgo) {
    World world(2, 64 * kMiB, test::Disk::kMemory);
    const bool died = world.die_in([&] {
        CHECK(world.create() && world.start(), "created");
        CHECK(world.write(0, 1_b) && world.write(8 * kMiB, 2_b), "written");
        CHECK(world.run(world.volume->flush()), "flushed");
        CHECK(world.write(8 * kMiB, 3_b), "written again");
        world.wait_until([] { return false; }, 6);  // bits are cleared each 5 seconds
    });
    ASSERT_FALSE(died);
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.volume->status().sync_total_bytes,
              kRegionBytes);  // the one that was written since
    EXPECT_EQ(world.read(0), 1_b);
    EXPECT_EQ(world.read(8 * kMiB), 3_b);
    EXPECT_TRUE(world.members_equal(2));
}

TEST(VolumeRestart, StoppedVolumeStartsInAnotherBootWithoutACopy) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 1_b));
    ASSERT_TRUE(world.stop());
    world.another_boot();
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.volume->status().state, VolumeState::kOk);
    EXPECT_EQ(world.authority->load()->number, 1U);
    EXPECT_EQ(world.authority->load()->loss_count, 0U);
    EXPECT_EQ(world.read(0), 1_b);
}

TEST(VolumeRestart, R9_AllMembersInAnotherBootGoOnUnderALossNumber) {
    for (const std::size_t members : {1U, 2U}) {
        World world(members);
        create_and_write(world);
        if (members == 2) tamper(world, 1, 4096, 9_b, {});  // a write that the primary's disk lost
        world.another_boot();
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.authority->load()->number, 2U);
        EXPECT_EQ(world.authority->load()->loss_count, 1U);
        EXPECT_EQ(world.read(0), 1_b);
        EXPECT_EQ(world.read(4096), 0_b);  // the primary's disk is the source
        EXPECT_TRUE(world.members_equal(members));
        ASSERT_TRUE(world.stop());
        world.another_boot();
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.authority->load()->loss_count, 1U);
    }
}

/// The member that is left gets another one, as the volume's owner does it: never the lost one
/// under its own id.
void replace_lost(World& world) {
    ASSERT_TRUE(world.wait_until([&] { return world.authority->load()->members.size() == 1; }));
    for (int i = 0; i < 20; ++i) world.run(world.nap());
    EXPECT_TRUE(world.joined.empty());  // the volume brings nobody back by itself
    const ReplicaPlace place = world.new_place();
    ASSERT_TRUE(
        world.wait_until([&] { return world.run(world.volume->add_replica(place)).has_value(); }));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_EQ(world.joined[0], place.member.replica);
}

TEST(VolumeRestart, R9_SecondaryThatRestartedAloneIsLostAndReplacedByACopy) {
    for (const bool rule : {true, false}) {
        World world(2);
        create_and_write(world);
        // The member's disk lost a write and its activity bit: what a power cut of its host alone
        // may do.
        tamper(world, 1, 0, 0_b,
               store::SuperblockChange{.boot_id = store::BootId{std::byte{99}}, .clean = false});
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.boot_check=off;rule.union_copy=off"));
        }
        ASSERT_TRUE(world.start());
        if (!rule) {
            EXPECT_FALSE(world.members_equal(2));
            continue;
        }
        replace_lost(world);
        EXPECT_EQ(world.authority->load()->number, 3U);  // one left, and another came
        EXPECT_EQ(world.authority->load()->loss_count, 0U);
        EXPECT_TRUE(world.members_equal(2));
        EXPECT_EQ(world.read(0), 1_b);
    }
}

TEST(VolumeRestart, R9_PrimaryThatRestartedAloneHandsOverToAMemberThatDidNot) {
    World world(2);
    create_and_write(world);
    // Its disk lost an acknowledged write, which the other member has.
    tamper(world, 0, 0, 0_b,
           store::SuperblockChange{.boot_id = store::BootId{std::byte{99}}, .clean = false});
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.read(0), 1_b);
    EXPECT_EQ(world.authority->load()->primary, world.config.replicas[1].member.replica);
    replace_lost(world);
    EXPECT_TRUE(world.members_equal(2));
    EXPECT_EQ(world.authority->load()->loss_count, 0U);
}

TEST(VolumeRestart, R9_WithoutTheBootCheckAnAcknowledgedWriteIsLostAlthoughAMemberHasIt) {
    World world(2);
    create_and_write(world);
    tamper(world, 0, 0, 0_b,
           store::SuperblockChange{.boot_id = store::BootId{std::byte{99}}, .clean = false});
    ASSERT_TRUE(faults::arm("rule.boot_check=off"));
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.read(0), 0_b);
}

std::string file_content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// The primary's disk failed: it lost a write, was marked out, and then lost the copy of the
/// superblock that the mark was in. The other copy says that it is in sync.
TEST(VolumeRestart, R9_DamagedSuperblockHidesNoMarkThatPutAReplicaOut) {
    for (const bool rule : {true, false}) {
        World world(2);
        create_and_write(world);
        const std::string path = world.config.replicas[0].folder + "/superblock";
        const std::string before = file_content(path);
        tamper(world, 0, 0, 0_b, store::SuperblockChange{.boot_id = store::BootId{}});
        world.close_reactor();
        std::string after = file_content(path);
        const std::size_t marked =
            before.compare(0, store::kSuperblockBytes, after, 0, store::kSuperblockBytes) != 0
                ? 0
                : store::kSuperblockBytes;
        after[marked + 20] = static_cast<char>(~after[marked + 20]);
        std::ofstream(path, std::ios::binary) << after;
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.both_superblocks=off"));
        }
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.read(0), rule ? 1_b : 0_b);  // acknowledged, and the other member has it
    }
}

TEST(VolumeRestart, MissingMemberIsProposedOutAndAMissingPrimaryReplaced) {
    for (const std::size_t gone : {0U, 1U}) {
        World world(2);
        create_and_write(world);
        std::filesystem::remove_all(world.config.replicas[gone].folder);
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.read(0), 1_b);
        EXPECT_EQ(world.authority->load()->number, 2U);
        EXPECT_EQ(world.authority->load()->primary, world.config.replicas[1 - gone].member.replica);
        EXPECT_EQ(world.volume->status().state, VolumeState::kDegraded);
    }
}

TEST(VolumeRestart, MemberThatCannotBeOpenedForAShortageStaysAMember) {
    const std::pair<int, Errc> shortages[] = {{EMFILE, Errc::kExhausted},
                                              {ENOMEM, Errc::kExhausted},
                                              {EACCES, Errc::kNotPermitted},
                                              {EOPNOTSUPP, Errc::kUnsupported}};
    for (const auto& [error, code] : shortages) {
        for (const int nth : {1, 2}) {
            World world(2);
            create_and_write(world);
            const auto before = *world.authority->load();
            ASSERT_TRUE(faults::arm(fmt::format("store.open=fail:{}@{}", error, nth)));
            const auto started = world.start();
            ASSERT_FALSE(started);
            EXPECT_EQ(started.error().code, code);
            EXPECT_EQ(*world.authority->load(), before);
            faults::disarm_all();
            ASSERT_TRUE(world.start());
            EXPECT_TRUE(world.members_equal(2));
            EXPECT_EQ(*world.authority->load(), before);
        }
    }
    World world(2);
    create_and_write(world);
    ASSERT_TRUE(
        faults::arm(fmt::format("rule.shortage_is_no_loss=off;store.open=fail:{}@2", EMFILE)));
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.authority->load()->members.size(), 1U);
}

TEST(VolumeRestart, MemberWhoseDiskIsTheReasonLeaves) {
    for (const int error : {EIO, EROFS, ETIMEDOUT}) {
        World world(2);
        create_and_write(world);
        ASSERT_TRUE(faults::arm(fmt::format("store.open=fail:{}@2", error)));
        ASSERT_TRUE(world.start());
        EXPECT_EQ(world.authority->load()->members.size(), 1U);
        EXPECT_EQ(world.read(0), 1_b);
    }
}

TEST(VolumeRestart, ReplicaThatKnowsAGreaterNumberThanTheAuthorityIsRefused) {
    World world(1);
    create_and_write(world);
    auto record = *world.authority->load();
    const auto old = record;
    record.number = 5;
    tamper(world, 0, {}, 0_b,
           store::SuperblockChange{.number = 5,
                                   .record = store::RecordBytes(replication::encode(record))});
    const auto started = world.start();
    ASSERT_FALSE(started);
    EXPECT_EQ(started.error().code, Errc::kStale);
    EXPECT_EQ(*world.authority->load(), old);
}

/// The store was restored from a backup of before the second member left; the first one, which
/// knows better, is not there.
TEST(VolumeRestart, R16_ReplicaThatLeftIsNotServedByAStoreThatIsBehind) {
    for (const bool rule : {true, false}) {
        World world(2);
        create_and_write(world);
        auto newer = *world.authority->load();
        newer.number = 5;
        newer.members.pop_back();
        tamper(world, 1, {}, 0_b,
               store::SuperblockChange{.left_by = store::RecordBytes(replication::encode(newer))});
        std::filesystem::remove_all(world.config.replicas[0].folder);
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.older_store=off"));
        }
        const auto started = world.start();
        ASSERT_EQ(started.has_value(), !rule);
        if (rule) {
            EXPECT_EQ(started.error().code, Errc::kStale);
        }
    }
}

TEST(VolumeRestart, ReplicaMadeWithoutARecordServesUnderTheFirst) {
    World world(2);
    world.reactor();
    replication::Membership record;
    record.volume = world.config.id;
    record.number = 1;
    for (const auto& place : world.config.replicas) {
        const store::ReplicaConfig config{.volume = world.config.id,
                                          .incarnation = place.member.replica,
                                          .size_bytes = world.config.size_bytes};
        ASSERT_TRUE(world.run(store::ReplicaStore::create(&world.reactor(), world.buffers(),
                                                          place.folder, config, {})));
        record.members.push_back(place.member);
    }
    record.primary = record.members[0].replica;
    world.authority->save(record);
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.authority->load()->number, 1U);
    EXPECT_EQ(world.authority->load()->loss_count, 0U);
    EXPECT_TRUE(world.write(0, 1_b));
    EXPECT_TRUE(world.members_equal(2));
}

TEST(VolumeRestart, R8_RetryAfterADeathIsRecognisedByTheFileOfIds) {
    for (const bool rule : {true, false}) {
        World world(2);
        world.die_in([&] {
            CHECK(world.create() && world.start(), "created");
            CHECK(world.write(0, 1_b, 4096, {.id = {77, 1}}), "written");
            CHECK(world.write(0, 2_b, 4096, {.id = {77, 2}}), "written over");
        });
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.retry_ids=off"));
        }
        ASSERT_TRUE(world.start());
        ASSERT_TRUE(world.write(0, 1_b, 4096,
                                {.id = {77, 1}}));  // ublk's re-issue: its completion was not seen
        EXPECT_EQ(world.read(0), rule ? 2_b : 1_b);
        EXPECT_TRUE(world.members_equal(2));
    }
}

/// What it has applied it can't tell: a change that comes again would go over a later one.
TEST(VolumeRestart, R8_MemberWhoseTableIsGoneDoesNotTakeOver) {
    for (const bool rule : {true, false}) {
        World world(2);
        world.die_in([&] {
            CHECK(world.create() && world.start(), "created");
            CHECK(world.write(0, 1_b, 4096, {.id = {77, 1}}), "written");
            CHECK(world.write(0, 2_b, 4096, {.id = {77, 2}}), "written over");
        });
        const auto& [primary, secondary] =
            std::tie(world.config.replicas[0], world.config.replicas[1]);
        ASSERT_TRUE(std::filesystem::remove(fmt::format("{}/ids-{}-{}", world.config.run_dir,
                                                        world.config.id.to_string(),
                                                        secondary.member.replica.to_string())));
        std::filesystem::remove_all(primary.folder);
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.ids_of_this_boot=off"));
        }
        ASSERT_EQ(world.start().has_value(), !rule);
        if (rule) {
            EXPECT_FALSE(world.start()) << "nor at the next start, which finds an empty one";
            continue;
        }
        ASSERT_TRUE(world.write(0, 1_b, 4096, {.id = {77, 1}}));
        EXPECT_EQ(world.read(0), 1_b) << "an acknowledged write is undone";
    }
}

TEST(VolumeRestart, InterruptedCopyBeginsAgain) {
    World world(1, 16 * kMiB);
    const ReplicaPlace place = world.new_place();
    const bool died = world.die_in([&] {
        CHECK(world.create() && world.start(), "created");
        for (std::uint64_t at = 0; at < 8 * kMiB; at += 512 * kKiB)
            CHECK(world.write(at, 1_b, 512 * kKiB), "written");
        CHECK(faults::arm("repl.part_copied=crash@5"), "armed");
        CHECK(world.run(world.volume->add_replica(place)), "added");
        world.wait_until([] { return false; });
    });
    ASSERT_TRUE(died);
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 2_b));  // the folder holds older content now
    ASSERT_TRUE(world.run(world.volume->add_replica(place)));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(2));
}

TEST(VolumeRestart, PendingJoinOfABarredReplicaIsGivenUpByTheNextStart) {
    World world(1, 16 * kMiB);
    const ReplicaPlace place = world.new_place();
    world.authority->barred = place.member.replica;
    for (const char* fault : {"repl.pending_stored=crash", "repl.barred=crash"}) {
        const bool died = world.die_in([&] {
            if (!world.authority->load()) CHECK(world.create(), "created");
            CHECK(world.start() && world.write(0, 1_b, 512 * kKiB), "written");
            CHECK(faults::arm(fault), "armed");
            CHECK(world.run(world.volume->add_replica(place)), "added");
            world.wait_until([] { return false; });
        });
        ASSERT_TRUE(died) << fault;
        world.another_boot();
        ASSERT_TRUE(world.start()) << fault;
        EXPECT_EQ(world.read(0), 1_b);
        EXPECT_TRUE(world.write(4096, 2_b));
        ASSERT_TRUE(world.stop());
        world.close_reactor();
    }
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.run(world.volume->add_replica(world.new_place())));
    ASSERT_TRUE(world.wait_until([&] { return !world.joined.empty(); }));
    EXPECT_TRUE(world.members_equal(2));
}

// ---- dying anywhere

/// What a child has had acknowledged, in memory that both processes see.
struct Shared {
    std::array<std::uint8_t, 64> acknowledged;  // per slot: the last value that was acknowledged
    std::array<std::uint8_t, 64> sent;          // and the last that was sent
};

class SharedMemory {
  public:
    SharedMemory() {
        void* const memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(memory != MAP_FAILED, "shared memory");
        shared_ = static_cast<Shared*>(memory);
    }
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;
    ~SharedMemory() { munmap(shared_, sizeof(Shared)); }
    Shared* operator->() const { return shared_; }

  private:
    Shared* shared_;
};

std::uint64_t place_of(std::size_t slot) { return (slot % 8) * 2 * kMiB + (slot / 8) * 4096; }

void write_slot(World& world, const SharedMemory& shared, std::size_t slot, std::uint8_t value) {
    shared->sent[slot] = value;
    if (world.write(place_of(slot), static_cast<std::byte>(value)))
        shared->acknowledged[slot] = value;
}

/// Each slot holds the last acknowledged value, or the one that was under way.
void expect_slots(World& world, const SharedMemory& shared) {
    for (std::size_t slot = 0; slot < shared->sent.size(); ++slot) {
        const auto found = world.read(place_of(slot));
        ASSERT_TRUE(found.has_value()) << slot;
        const auto value = std::to_integer<std::uint8_t>(*found);
        EXPECT_TRUE(value == shared->acknowledged[slot] || value == shared->sent[slot])
            << slot << ": " << int{value} << ", acknowledged " << int{shared->acknowledged[slot]};
        shared->acknowledged[slot] = shared->sent[slot] = value;
    }
}

/// A life: start, writes, a member's disk that fails (where asked), a new replica, writes, stop.
void live(World& world, const SharedMemory& shared, bool lose_a_member) {
    CHECK(world.start(), "started");
    std::uint8_t value = 1;
    const auto writes = [&](std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) write_slot(world, shared, (i * 7) % 64, ++value);
    };
    writes(10);
    CHECK(world.run(world.volume->flush()), "flushed");
    writes(10);
    if (lose_a_member) {
        CHECK(faults::arm("store.data_write=fail@2"), "armed");
        writes(2);
        CHECK(faults::arm("store.data_write=off"), "armed");
    }
    const ReplicaPlace place = world.new_place();
    if (world.run(world.volume->add_replica(place))) {
        while (world.joined.empty() && world.lost.size() < 3) writes(1);
    }
    writes(5);
    world.run(world.nap());
    (void)world.stop();
}

TEST(VolumeRestart, DeathAtEveryNamedStepLosesNothingThatWasAcknowledged) {
    const char* const points[] = {"volume.opened",
                                  "volume.before_store",
                                  "repl.record_stored",
                                  "repl.adopted",
                                  "repl.serving",
                                  "repl.own_applied",
                                  "repl.applied",
                                  "repl.before_answer",
                                  "repl.pending_stored",
                                  "repl.proposal_sent",
                                  "repl.authorized",
                                  "repl.part_copied",
                                  "repl.join_marked",
                                  "volume.before_clean",
                                  "volume.marked_clean",
                                  "store.data_write",
                                  "store.after_data_write",
                                  "store.superblock_write",
                                  "store.after_superblock_write",
                                  "store.map_write"};
    for (const bool lose : {false, true}) {
        for (const char* const point : points) {
            for (const int hit : {1, 2, 5, 12, 30}) {
                World world(2, 16 * kMiB, test::Disk::kMemory);
                ASSERT_TRUE(world.create());
                world.close_reactor();
                const SharedMemory shared;
                const auto before = world.config.replicas;
                world.die_in([&] {
                    CHECK(faults::arm(std::string(point) + "=crash@" + std::to_string(hit)),
                          "armed");
                    live(world, shared, lose);
                });
                SCOPED_TRACE(std::string(point) + "@" + std::to_string(hit) +
                             (lose ? " losing a member" : ""));
                // The next daemon knows the folders of all replicas that were ever made.
                for (const auto& entry :
                     std::filesystem::recursive_directory_iterator(world.folder())) {
                    const auto id = ReplicaId::parse(entry.path().filename().string());
                    const bool known =
                        std::any_of(before.begin(), before.end(), [&](const ReplicaPlace& place) {
                            return id && place.member.replica == *id;
                        });
                    if (id && entry.is_directory() && !known)
                        world.config.replicas.push_back(
                            {.member = {.replica = *id, .host = HostId(1), .pool = PoolId(3)},
                             .folder = entry.path().string(),
                             .budget = {},
                             .direct = before[0].direct});
                }
                ASSERT_TRUE(world.start());
                expect_slots(world, shared);
                EXPECT_TRUE(world.members_equal(world.volume->status().number == 0
                                                    ? 0
                                                    : world.authority->load()->members.size()));
                ASSERT_TRUE(world.stop());
            }
        }
    }
}

TEST(VolumeRestart, DeathAtRandomMomentsLosesNothingThatWasAcknowledged) {
    World world(2, 16 * kMiB);
    ASSERT_TRUE(world.create());
    world.close_reactor();
    const SharedMemory shared;
    std::uint8_t value = 0;
    for (int round = 0; round < 8; ++round) {
        value = static_cast<std::uint8_t>(value + 30);
        world.die_in([&] {
            std::thread([round] {
                std::this_thread::sleep_for(std::chrono::milliseconds(20 + 17 * round));
                kill(getpid(), SIGKILL);
            }).detach();
            CHECK(world.start(), "started");
            for (std::size_t i = 0;; ++i) {
                write_slot(world, shared, (i * 13) % 64, static_cast<std::uint8_t>(value + i % 30));
                if (i % 11 == 0) CHECK(world.run(world.volume->flush()), "flushed");
            }
        });
        if (round % 3 == 2)
            world.another_boot();  // the disk kept all: only the rules of R9 are exercised
        ASSERT_TRUE(world.start());
        expect_slots(world, shared);
        EXPECT_TRUE(world.members_equal(2)) << round;
        if (round % 2 == 0) {
            ASSERT_TRUE(world.stop());
        } else {
            ASSERT_TRUE(world.run(world.volume->flush()));
            ASSERT_TRUE(world.stop());
        }
        world.close_reactor();
    }
}

TEST(VolumeRestart, StartEndsWhereTheAuthorityAnswersNoProposal) {
    World world(2);
    ASSERT_TRUE(world.create());
    ASSERT_TRUE(world.start());
    ASSERT_TRUE(world.write(0, 3_b));
    ASSERT_TRUE(world.stop());
    std::filesystem::remove_all(world.config.replicas[1].folder);
    world.authority->deaf = true;
    world.config.start_limit = std::chrono::milliseconds(300);
    for (int round = 0; round < 2; ++round) {  // once more: what the first left does no harm
        const auto started = world.start();
        ASSERT_FALSE(started);
        EXPECT_EQ(started.error().code, Errc::kTimedOut);
        EXPECT_NE(to_string(started.error()).find("R4"), std::string::npos)
            << to_string(started.error());
    }
    EXPECT_EQ(world.authority->load()->members.size(), 2U);
    world.authority->deaf = false;
    world.config.start_limit = std::chrono::seconds(10);
    ASSERT_TRUE(world.start());
    EXPECT_EQ(world.read(0), 3_b);
    EXPECT_EQ(world.authority->load()->members.size(), 1U);
}

}  // namespace
}  // namespace ublkd::volume
