// Goal: a replica is made whole or not at all, is opened by one store at a time and only when
// nothing else may still write to it, and is refused when its files are damaged. Method: real
// files; damage by hand; fault points; locks held from outside.
#include <sys/file.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/unit/store/replica_fixture.h"
#include "ublkd/store/file_system.h"

namespace ublkd::store {
namespace {

using ReplicaOpen = ReplicaTest;

Errc code(const ReplicaStore::Opened& opened) {
    return opened ? Errc::kConflict : opened.error().code;
}

TEST_F(ReplicaOpen, KeepsWhatItWasMadeWith) {
    store_.reset();
    ReplicaConfig config{.volume = VolumeId(8), .incarnation = ReplicaId(9), .size_bytes = kMiB};
    config.boot_id.fill(std::byte{1});
    auto made = run(ReplicaStore::create(reactor_.get(), buffers_.get(),
                                         pool_->replica_folder(ReplicaId(9)), config));
    ASSERT_TRUE(made) << to_string(made.error());
    made->reset();
    const auto opened = run(ReplicaStore::open(reactor_.get(), buffers_.get(),
                                               pool_->replica_folder(ReplicaId(9)), options()));
    ASSERT_TRUE(opened) << to_string(opened.error());
    const Superblock& found = (*opened)->superblock();
    EXPECT_EQ(found.volume, VolumeId(8));
    EXPECT_EQ(found.number, 0U);
    EXPECT_TRUE(found.record.empty());
    EXPECT_EQ(found.boot_id, config.boot_id);
    EXPECT_TRUE(found.clean);
    EXPECT_TRUE((*opened)->both_superblocks_valid());
    EXPECT_EQ((*opened)->geometry().size_bytes, kMiB);
    EXPECT_EQ((*opened)->activity().count() + (*opened)->allocated().count(), 0U);
}

TEST_F(ReplicaOpen, IsRefusedWhereItIsNotOrNotNamedByAnId) {
    id_ = ReplicaId(1);
    EXPECT_EQ(code(try_open()), Errc::kNotFound);
    EXPECT_EQ(code(run(ReplicaStore::open(reactor_.get(), buffers_.get(), folder_.path() + "/x",
                                          options()))),
              Errc::kInvalidArgument);
    EXPECT_EQ(code(try_create(ReplicaId(42))), Errc::kExists);
    EXPECT_EQ(code(try_create(ReplicaId(2), 100)), Errc::kInvalidArgument);
    EXPECT_EQ(code(try_create(ReplicaId(2), 0)), Errc::kInvalidArgument);
}

TEST_F(ReplicaOpen, IsHadByOneStoreAtATimeAndNotRemovedMeanwhile) {
    const auto second = run(ReplicaStore::open(reactor_.get(), buffers_.get(), path(), options()));
    EXPECT_EQ(code(second), Errc::kBusy);
    ASSERT_TRUE(faults::arm("rule.files_locked=off"));
    EXPECT_TRUE(run(ReplicaStore::open(reactor_.get(), buffers_.get(), path(), options())))
        << "two stores have one replica where the rule is off";
    faults::disarm_all();
    EXPECT_EQ(pool_->remove_replica(id_).error().code, Errc::kBusy);
    store_.reset();
    EXPECT_TRUE(pool_->remove_replica(id_));
    EXPECT_FALSE(fs::exists(path()));
}

/// As after SIGKILL: requests in the kernel hold the open file, and with it the lock, when the
/// process is gone.
TEST_F(ReplicaOpen, WaitsForTheLastWritesOfADeadProcess) {
    for (const char* name : {"data", "maps", "superblock"}) {
        store_.reset();
        const int fd = ::open((path() + "/" + name).c_str(), O_RDWR | O_CLOEXEC);
        ASSERT_EQ(::flock(fd, LOCK_EX), 0);
        EXPECT_EQ(code(try_open()), Errc::kBusy) << name;
        std::thread ends([fd] {
            std::this_thread::sleep_for(std::chrono::milliseconds(30));
            ::close(fd);
        });
        StoreOptions patient = options();
        patient.lock_wait_ms = 10'000;
        EXPECT_TRUE(run(ReplicaStore::open(reactor_.get(), buffers_.get(), path(), patient)))
            << name;
        ends.join();
    }
}

TEST_F(ReplicaOpen, AFailureWhileItIsMadeLeavesNothing) {
    for (const char* fault : {"store.create=fail:28", "store.superblock_write=fail@2",
                              "store.map_write=fail:28@2", "store.publish=fail"}) {
        ASSERT_TRUE(faults::arm(fault));
        EXPECT_FALSE(try_create(ReplicaId(3))) << fault;
        faults::disarm_all();
        EXPECT_EQ(fs::list(folder_.path() + "/pool/replicas")->size(), 1U) << fault;
    }
    EXPECT_TRUE(try_create(ReplicaId(3)));
}

io::Task<void> count_turns(io::Reactor* reactor, const bool* ended, int* turns) {
    while (!*ended) {
        co_await reactor->sleep_for(std::chrono::milliseconds(5));
        ++*turns;
    }
}

io::Task<void> make_and_open(io::Reactor* reactor, io::BufferPool* buffers, std::string folder,
                             ReplicaConfig config, StoreOptions options, bool* ended) {
    {
        auto making = ReplicaStore::create(reactor, buffers, folder, config, options);
        auto made = co_await making;
        EXPECT_TRUE(made);
        if (made) {
            SuperblockChange change;
            change.clean = false;
            EXPECT_TRUE(
                co_await (*made)->update_superblock(change));  // so that open() looks for data
        }
    }
    auto opening = ReplicaStore::open(reactor, buffers, folder, options);
    const auto opened = co_await opening;
    EXPECT_TRUE(opened);
    auto again = ReplicaStore::create(reactor, buffers, folder, config, options);
    const auto refused = co_await again;
    EXPECT_EQ(code(refused), Errc::kExists);
    *ended = true;
}

TEST_F(ReplicaOpen, WhatBlocksOnTheDiskIsTheWorkersAndTheReactorGoesOn) {
    ASSERT_TRUE(faults::arm("store.create=delay:200;store.publish=delay:200"));
    StoreOptions with_worker = options();
    with_worker.worker = std::make_shared<io::Worker>("pool");
    const ReplicaConfig config{
        .volume = VolumeId(7), .incarnation = ReplicaId(3), .size_bytes = kSizeBytes};
    bool ended = false;
    int turns = 0;
    io::Gate gate;
    io::spawn(gate, count_turns(reactor_.get(), &ended, &turns));
    run(make_and_open(reactor_.get(), buffers_.get(), pool_->replica_folder(ReplicaId(3)), config,
                      with_worker, &ended));
    run(gate.close());
    EXPECT_GT(turns, 20);
}

TEST_F(ReplicaOpen, FilesCutShortAreCorrupt) {
    for (const char* name : {"data", "maps", "superblock"}) {
        const std::string file = path() + "/" + name;
        const auto size = std::filesystem::file_size(file);
        std::filesystem::resize_file(file, size - 512);
        EXPECT_EQ(code(try_open()), Errc::kCorrupt) << name;
        std::filesystem::resize_file(file, 0);
        EXPECT_EQ(code(try_open()), Errc::kCorrupt) << name;
        store_ = nullptr;
        ASSERT_TRUE(pool_->remove_replica(id_));
        store_ = create(id_);
    }
}

TEST_F(ReplicaOpen, MissingFilesAreNotFound) {
    std::filesystem::remove(path() + "/maps");
    EXPECT_EQ(code(try_open()), Errc::kNotFound);
}

TEST_F(ReplicaOpen, ADamagedMapIsRefused) {
    damage("maps", 100);
    EXPECT_EQ(code(try_open()), Errc::kCorrupt);
}

TEST_F(ReplicaOpen, ADamagedAllocatedMapIsRefused) {
    damage("maps", kPageBytes + 700);
    EXPECT_EQ(code(try_open()), Errc::kCorrupt);
}

TEST_F(ReplicaOpen, OneDamagedSuperblockIsReportedBothAreRefused) {
    damage("superblock", 20);
    reopen();
    EXPECT_FALSE(store_->both_superblocks_valid());
    store_.reset();
    damage("superblock", kPageBytes + 20);
    EXPECT_EQ(code(try_open()), Errc::kCorrupt);
}

TEST_F(ReplicaOpen, AFolderUnderAnotherReplicasNameIsRefused) {
    store_.reset();
    std::filesystem::rename(path(), pool_->replica_folder(ReplicaId(77)));
    id_ = ReplicaId(77);
    EXPECT_EQ(code(try_open()), Errc::kCorrupt);
}

TEST_F(ReplicaOpen, AfterACrashTheAllocatedMapIsFoundAgain) {
    ASSERT_TRUE(write(3 * kRegionBytes + 3 * kDirtyUnitBytes, kPageBytes, 1));
    ASSERT_TRUE(write(kSizeBytes - kSectorBytes, kSectorBytes, 2));
    reopen();  // without a clean mark: no bit of the allocated map was ever written
    EXPECT_FALSE(store_->superblock().clean);
    EXPECT_TRUE(store_->allocated().test(3 * 64 + 3));
    EXPECT_TRUE(store_->allocated().test(5 * 64));
    EXPECT_LE(store_->allocated().count(), 4U) << "what is a hole in the file stays one";
    EXPECT_EQ(pool_->budget()->used_bytes(), store_->allocated().count() * kDirtyUnitBytes);
    EXPECT_EQ(value_at(3 * kRegionBytes + 3 * kDirtyUnitBytes, kPageBytes), 1);
    EXPECT_EQ(value_at(kSizeBytes - kSectorBytes, kSectorBytes), 2);
}

TEST_F(ReplicaOpen, AfterACleanCloseTheMapsAreExact) {
    ASSERT_TRUE(write(0, 2 * kDirtyUnitBytes, 1));
    ASSERT_TRUE(run(store_->discard(Range{0, kDirtyUnitBytes}, {})));
    ASSERT_TRUE(run(store_->mark_clean()));
    reopen();
    EXPECT_TRUE(store_->superblock().clean);
    EXPECT_FALSE(store_->allocated().test(0));
    EXPECT_TRUE(store_->allocated().test(1));
    EXPECT_EQ(store_->activity().count(), 1U);
    ASSERT_TRUE(write(0, kPageBytes, 3));
    EXPECT_FALSE(store_->superblock().clean) << "the first change removes the mark";
}

}  // namespace
}  // namespace ublkd::store
