// Goal: what write() has acknowledged survives a power cut at any moment, and a transaction
// survives whole or not at all. Method: a VFS that knows what was synced (recording_vfs.h) leaves
// images of a power cut before every change that SQLite makes to a file; each image is opened
// afterwards and compared with what had been acknowledged by then. The rule synchronous=FULL
// switched off has to be caught by the same check.
#include <gtest/gtest.h>

#include "metadata/permission.h"
#include "metadata/records.h"
#include "metadata/sqlite_store.h"
#include "tests/unit/metadata/recording_vfs.h"
#include "tests/unit/metadata/sqlite_fixture.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::metadata::test {
namespace {

struct Image {
    std::string folder;
    std::uint64_t acknowledged;  // transactions that write() had returned ok for
};

struct Recovered {
    int images = 0;
    int lost = 0;  // acknowledged, and not there
    int torn = 0;  // half of a transaction, or a database that does not open
};

Result<void> count_up(MetadataStore& store) {
    return store.write([](Transaction& tx) -> Result<void> {
        for (const char* name : {"a", "b"}) {
            TRY_ASSIGN(auto found, tx.get<CounterRecord>(name));
            CounterRecord record = found.value_or(CounterRecord{.name = name});
            ++record.value;
            TRY(tx.put(record));
        }
        // Long enough that transactions take several pages, and the log is checkpointed on the way.
        TRY_ASSIGN(const auto count, tx.get<CounterRecord>("a"));
        TagRecord tag{.resource = "r",
                      .key = std::to_string(count->value),
                      .value = std::string(20'000, 'x')};
        return tx.put(tag);
    });
}

Recovered judge(const std::vector<Image>& images) {
    Recovered verdict;
    for (const Image& image : images) {
        ++verdict.images;
        auto opened = SqliteStore::open(image.folder + "/metadata.db");
        if (!opened) {
            ++verdict.torn;
            continue;
        }
        const std::uint64_t a = (**opened).get<CounterRecord>("a")->value_or(CounterRecord()).value;
        const std::uint64_t b = (**opened).get<CounterRecord>("b")->value_or(CounterRecord()).value;
        const std::size_t tags = (**opened).list<TagRecord>()->size();
        if (a != b || a != tags || a > image.acknowledged + 1) ++verdict.torn;
        if (a < image.acknowledged) ++verdict.lost;
    }
    return verdict;
}

/// Runs transactions, leaves images at random changes, and judges them.
Recovered run(std::uint64_t seed, int transactions) {
    std::mt19937_64 random(seed);
    const TemporaryFolder live;
    const TemporaryFolder cut;
    std::vector<Image> images;
    {
        RecordingVfs disk;
        auto store = SqliteStore::open(live.file("metadata.db"));
        EXPECT_TRUE(store) << to_string(store.error());
        std::uint64_t acknowledged = 0;
        disk.before_change = [&] {
            if (random() % 150 != 0) return;
            const std::string folder = cut.file(std::to_string(images.size()));
            std::filesystem::create_directory(folder);
            disk.image(folder, random);
            images.push_back({folder, acknowledged});
        };
        for (int i = 0; i < transactions; ++i) {
            EXPECT_TRUE(count_up(**store));
            ++acknowledged;
        }
        disk.before_change = {};
    }
    return judge(images);
}

TEST(SqlitePowerCut, AcknowledgedSurvivesAndNothingIsTorn) {
    const std::uint64_t seed = std::random_device()();
    SCOPED_TRACE("seed " + std::to_string(seed));
    const Recovered verdict = run(seed, 160);
    EXPECT_GT(verdict.images, 20);
    EXPECT_EQ(verdict.lost, 0);
    EXPECT_EQ(verdict.torn, 0);
}

TEST(SqlitePowerCut, WithoutSyncsTheCheckFindsLostTransactions) {
    ASSERT_TRUE(faults::arm("rule.metadata_synchronous=off"));
    const Recovered verdict = run(1, 160);
    faults::disarm_all();
    EXPECT_GT(verdict.lost, 0);
}

TEST(SqlitePowerCut, EachCommitSyncsBeforeItReturns) {
    const TemporaryFolder live;
    RecordingVfs disk;
    auto store = *SqliteStore::open(live.file("metadata.db"));
    for (int i = 0; i < 5; ++i) {
        const int before = disk.syncs();
        ASSERT_TRUE(count_up(*store));
        EXPECT_GT(disk.syncs(), before);
    }
}

TEST(SqlitePowerCut, P2_GrantCutAtEachWriteIsWhollyThereOrAbsent) {
    std::mt19937_64 random(7);
    const Holder holder{HostId::random(), ReplicaId::random()};
    const TemporaryFolder live;
    const TemporaryFolder cut;
    std::vector<std::string> images;
    {
        RecordingVfs disk;
        auto store = *SqliteStore::open(live.file("metadata.db"));
        PermissionService permissions(store.get());
        const auto leave_image = [&] {
            // What survives of the unsynced writes differs from one cut to the next.
            for (int i = 0; i < 4; ++i) {
                images.push_back(cut.file(std::to_string(images.size())));
                std::filesystem::create_directory(images.back());
                disk.image(images.back(), random);
            }
        };
        disk.before_change = leave_image;
        EXPECT_EQ(permissions.request("r", holder)->answer, PermissionAnswer::kGranted);
        disk.before_change = {};
        leave_image();  // acknowledged: the last four images have to hold it
    }
    ASSERT_GT(images.size(), 12u);
    for (std::size_t i = 0; i < images.size(); ++i) {
        auto opened = SqliteStore::open(images[i] + "/metadata.db");
        ASSERT_TRUE(opened) << i << ": " << to_string(opened.error());
        const auto records = *PermissionService(opened->get()).list();
        if (i + 4 >= images.size()) {
            ASSERT_EQ(records.size(), 1u) << i;
        }
        ASSERT_LE(records.size(), 1u);
        if (records.empty()) continue;
        EXPECT_EQ(records[0].resource, "r");
        EXPECT_EQ(records[0].host, holder.host);
        EXPECT_EQ(records[0].incarnation, holder.incarnation);
    }
}

TEST(SqliteFailure, FailedSyncPutsTheStoreOut) {
    const TemporaryFolder live;
    RecordingVfs disk;
    auto store = *SqliteStore::open(live.file("metadata.db"));
    ASSERT_TRUE(count_up(*store));
    disk.fail_syncs = true;
    EXPECT_EQ(count_up(*store).error().code, Errc::kIo);
    disk.fail_syncs = false;  // the disk says it is well again: what it lost is not known
    EXPECT_EQ(count_up(*store).error().code, Errc::kIo);
    EXPECT_EQ(store->get<CounterRecord>("a").error().code, Errc::kIo);
    store.reset();
    store = *SqliteStore::open(live.file("metadata.db"));
    EXPECT_TRUE(count_up(*store));
}

/// A transaction whose sync failed is in the log, and the next process may find it there.
TEST(SqliteFailure, WhatIsReadAfterAFailedSyncIsNotUndoneByTheNextStart) {
    for (const bool rule : {true, false}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.metadata_out=off"));
        }
        const TemporaryFolder live;
        const TemporaryFolder left;
        RecordingVfs disk;
        auto store = *SqliteStore::open(live.file("metadata.db"));
        ASSERT_TRUE(count_up(*store));
        disk.fail_syncs = true;
        EXPECT_EQ(count_up(*store).error().code, Errc::kIo);
        disk.fail_syncs = false;
        const auto said = store->get<CounterRecord>("a");
        // SIGKILL: this is what it leaves.
        for (const char* name : {"metadata.db", "metadata.db-wal"})
            std::filesystem::copy_file(live.file(name), left.file(name));
        auto next = *SqliteStore::open(left.file("metadata.db"));
        EXPECT_EQ((*next->get<CounterRecord>("a"))->value, 2u);
        EXPECT_EQ(said.has_value(), !rule);
        if (said) {
            EXPECT_EQ((*said)->value, 1u);  // so somebody was told what is not true any more
        }
        faults::disarm_all();
    }
}

TEST(SqliteFailure, FailedSyncOfACheckpointPutsTheStoreOut) {
    const TemporaryFolder live;
    RecordingVfs disk;
    auto store = *SqliteStore::open(live.file("metadata.db"));
    bool commits = true;
    bool out = false;
    // Fails the syncs of the database file alone, which only checkpoints make.
    for (int i = 0; i < 400 && !out; ++i) {
        disk.fail_syncs_of = "metadata.db";
        commits = commits && count_up(*store).has_value();
        out = !store->get<CounterRecord>("a");
    }
    EXPECT_TRUE(commits);  // the transaction itself is durable in the log
    EXPECT_TRUE(out);
}

TEST(SqliteFailure, FullDiskRefusesAChangeAndTheStoreGoesOn) {
    const TemporaryFolder live;
    RecordingVfs disk;
    auto store = *SqliteStore::open(live.file("metadata.db"));
    ASSERT_TRUE(count_up(*store));
    disk.fail_writes = true;
    EXPECT_EQ(count_up(*store).error().code, Errc::kNoSpace);
    EXPECT_EQ((*store->get<CounterRecord>("a"))->value, 1u);
    disk.fail_writes = false;
    EXPECT_TRUE(count_up(*store));
    EXPECT_EQ((*store->get<CounterRecord>("a"))->value, 2u);
}

}  // namespace
}  // namespace ublkd::metadata::test
