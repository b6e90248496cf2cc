// Goal: what a request costs, what is shared, what errors do. Method: a replica on the disk,
// counted requests (ReplicaStore::stats()), fault points. What every BlockDevice does:
// replica_suite_test.cc; power cuts: tests/crash.
#include <sys/stat.h>

#include "tests/unit/store/replica_fixture.h"
#include "ublkd/store/real_disk.h"

namespace ublkd::store {
namespace {

class ReplicaStoreTest : public ReplicaTest {
  protected:
    io::Task<void> write_one(std::uint64_t offset_bytes, std::span<const std::byte> data) {
        const Result<void> written =
            co_await store_->write(offset_bytes, data, block::WriteOptions{});
        if (!written) last_error_ = written.error();
        failed_ += written ? 0 : 1;
    }
    io::Task<void> flush_one() {
        const Result<void> flushed = co_await store_->flush();
        failed_ += flushed ? 0 : 1;
    }
    io::Task<void> write_all(std::vector<std::uint64_t> offsets, std::span<const std::byte> data) {
        io::TaskGroup group;
        for (const std::uint64_t offset : offsets) group.start(write_one(offset, data));
        co_await group.wait();
    }
    io::Task<void> write_neighbours(std::uint64_t page) {
        io::TaskGroup group;
        for (std::uint64_t i = 0; i < 8; ++i)
            group.start(write_one(page + i * kSectorBytes,
                                  memory_.span().subspan(i * kSectorBytes, kSectorBytes)));
        co_await group.wait();
    }
    io::Task<void> flush_many(int count) {
        io::TaskGroup group;
        for (int i = 0; i < count; ++i) group.start(flush_one());
        co_await group.wait();
    }
    Errc write_error(std::uint64_t offset_bytes) {
        const auto written = write(offset_bytes, kPageBytes, 1);
        return written ? Errc::kConflict : written.error().code;
    }

    int failed_ = 0;
    std::optional<Error> last_error_;
};

TEST_F(ReplicaStoreTest, ASteadyWriteIsOneDiskRequest) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    const StoreStats before = store_->stats();
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(write(kPageBytes, kPageBytes, i));
    const StoreStats after = store_->stats();
    EXPECT_EQ(after.data_writes - before.data_writes, 10U);
    EXPECT_EQ(after.map_writes, before.map_writes);
    EXPECT_EQ(after.superblock_writes, before.superblock_writes);
    EXPECT_EQ(after.data_syncs + after.data_reads + after.bounced, 0U);
}

TEST_F(ReplicaStoreTest, FirstWritesToRegionsShareAMapWrite) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    const StoreStats before = store_->stats();
    run(write_all(
        {kRegionBytes, 2 * kRegionBytes, 3 * kRegionBytes, kRegionBytes + kMiB, 4 * kRegionBytes},
        memory(kPageBytes, 2)));
    EXPECT_EQ(failed_, 0);
    EXPECT_LE(store_->stats().map_writes - before.map_writes, 2U);
    EXPECT_EQ(store_->activity().count(), 5U);
}

TEST_F(ReplicaStoreTest, SectorsOfOnePageWrittenAtOnceAllStay) {
    for (std::size_t i = 0; i < 8; ++i) {
        const auto sector = memory_.span().subspan(i * kSectorBytes, kSectorBytes);
        std::fill(sector.begin(), sector.end(), static_cast<std::byte>(i + 1));
    }
    run(write_neighbours(kRegionBytes));
    EXPECT_EQ(failed_, 0);
    for (std::uint64_t i = 0; i < 8; ++i)
        EXPECT_EQ(value_at(kRegionBytes + i * kSectorBytes, kSectorBytes), static_cast<int>(i + 1));
}

TEST_F(ReplicaStoreTest, WithoutThePageLockSectorsAreLost) {
    ASSERT_TRUE(write(kRegionBytes, kPageBytes, 0xff));
    ASSERT_TRUE(faults::arm("rule.page_lock=off"));
    for (std::size_t i = 0; i < 8; ++i) {
        const auto sector = memory_.span().subspan(i * kSectorBytes, kSectorBytes);
        std::fill(sector.begin(), sector.end(), static_cast<std::byte>(i + 1));
    }
    run(write_neighbours(kRegionBytes));
    int lost = 0;
    for (std::uint64_t i = 0; i < 8; ++i)
        lost += value_at(kRegionBytes + i * kSectorBytes, kSectorBytes) == static_cast<int>(i + 1)
                    ? 0
                    : 1;
    EXPECT_GT(lost, 0);
}

TEST_F(ReplicaStoreTest, MisalignedMemoryAndLargeRaggedWritesGoThroughABuffer) {
    io::AlignedMemory odd(kMaxIoBytes + kPageBytes);
    const auto data = odd.span().subspan(3, kMaxIoBytes);
    for (std::size_t i = 0; i < data.size(); ++i)
        data[i] = static_cast<std::byte>(i * 7 + i / 4096);
    ASSERT_TRUE(run(store_->write(kSectorBytes, data, block::WriteOptions{})));
    EXPECT_EQ(store_->stats().bounced, 1U);
    const auto into = memory_.span();
    ASSERT_TRUE(run(store_->read(kSectorBytes, into)));
    EXPECT_TRUE(std::ranges::equal(into, data));
    EXPECT_EQ(value_at(0, kSectorBytes), 0);
}

TEST_F(ReplicaStoreTest, WhereThePoolOfBuffersIsEmptyItsOwnReserveServes) {
    std::vector<io::Buffer> all;
    while (true) {
        io::Buffer buffer = buffers_->try_acquire(kPageBytes);
        if (!buffer) break;
        all.push_back(std::move(buffer));
    }
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < 50; ++i) offsets.push_back(i * 3 * kPageBytes + kSectorBytes);
    run(write_all(offsets, memory(kSectorBytes, 5)));
    EXPECT_EQ(failed_, 0);
    for (const std::uint64_t offset : offsets) EXPECT_EQ(value_at(offset, kSectorBytes), 5);
}

TEST_F(ReplicaStoreTest, AHoleIsReadWithoutTheDisk) {
    EXPECT_EQ(value_at(kRegionBytes, kMaxIoBytes), 0);
    EXPECT_EQ(store_->stats().data_reads, 0U);
}

TEST_F(ReplicaStoreTest, FlushesShareOneAndAnIdleFlushCostsNothing) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    run(flush_many(20));
    EXPECT_EQ(store_->stats().data_syncs, 1U);
    run(flush_many(3));
    EXPECT_EQ(store_->stats().data_syncs, 1U);
    ASSERT_TRUE(run(store_->write_zeroes(Range{0, kPageBytes}, block::ZeroOptions{.fua = true})));
    EXPECT_EQ(store_->stats().data_syncs, 2U);
}

TEST_F(ReplicaStoreTest, ADiscardOfAnEmptyVolumeMarksNothing) {
    ASSERT_TRUE(run(store_->discard(Range{0, kSizeBytes}, {})));
    EXPECT_EQ(store_->activity().count(), 0U);
    EXPECT_EQ(store_->stats().zeroings, 0U);
}

TEST_F(ReplicaStoreTest, ADiscardGivesSpaceBackToThePool) {
    ASSERT_TRUE(write(0, 4 * kDirtyUnitBytes, 1));
    EXPECT_EQ(pool_->budget()->used_bytes(), 4 * kDirtyUnitBytes);
    ASSERT_TRUE(run(store_->discard(Range{kSectorBytes, 4 * kDirtyUnitBytes - kSectorBytes}, {})));
    EXPECT_EQ(pool_->budget()->used_bytes(), kDirtyUnitBytes) << "the first unit keeps a sector";
    EXPECT_EQ(value_at(0, kSectorBytes), 1);
    EXPECT_EQ(value_at(kSectorBytes, kMaxIoBytes - kPageBytes), 0);
    const auto status = run(store_->block_status(Range{0, kSizeBytes}, 10));
    ASSERT_TRUE(status);
    ASSERT_EQ(status->size(), 2U);
    EXPECT_EQ(status->at(0).length_bytes, kDirtyUnitBytes);
    EXPECT_TRUE(status->at(1).zero);
}

TEST_F(ReplicaStoreTest, KeptZeroesStayAllocated) {
    ASSERT_TRUE(run(store_->write_zeroes(Range{0, kDirtyUnitBytes},
                                         block::ZeroOptions{.keep_allocated = true})));
    EXPECT_TRUE(store_->allocated().test(0));
    EXPECT_EQ(value_at(0, kDirtyUnitBytes), 0);
}

TEST_F(ReplicaStoreTest, WithoutHolesZeroesAreWrittenUnlessTheyMustBeFast) {
    ASSERT_TRUE(write(0, 2 * kDirtyUnitBytes, 1));
    ASSERT_TRUE(faults::arm("store.zero=fail:95"));
    const Range ragged{kSectorBytes, kDirtyUnitBytes};
    const auto fast = run(store_->write_zeroes(ragged, block::ZeroOptions{.fast_only = true}));
    ASSERT_FALSE(fast);
    EXPECT_EQ(fast.error().code, Errc::kUnsupported);
    EXPECT_EQ(value_at(0, 2 * kDirtyUnitBytes), 1) << "nothing was changed";
    ASSERT_TRUE(run(store_->discard(ragged, {})));
    EXPECT_EQ(value_at(ragged.offset_bytes, ragged.length_bytes), 0);
    EXPECT_EQ(value_at(0, kSectorBytes), 1);
    EXPECT_EQ(value_at(ragged.end_bytes(), kDirtyUnitBytes - kSectorBytes), 1);
    EXPECT_EQ(store_->allocated().count(), 2U);
    EXPECT_FALSE(store_->failed());
}

TEST_F(ReplicaStoreTest, R17_DiscardIsZeroWhereTheDiskCannotPunch) {
    for (const bool rule : {false, true}) {
        ASSERT_TRUE(write(0, kDirtyUnitBytes, 1));
        ASSERT_TRUE(faults::arm("store.zero=fail:95"));
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.discard_is_zero=off"));
        }
        ASSERT_TRUE(run(store_->discard(Range{0, kDirtyUnitBytes}, {})));
        EXPECT_EQ(value_at(0, kDirtyUnitBytes), rule ? 0 : 1);
        faults::disarm_all();
    }
}

// ---- errors

TEST_F(ReplicaStoreTest, TheSizeOfThePoolIsKept) {
    pool_->budget()->set_cap_bytes(2 * kDirtyUnitBytes);
    ASSERT_TRUE(write(0, 2 * kDirtyUnitBytes, 1));
    EXPECT_EQ(write_error(kRegionBytes), Errc::kNoSpace);
    EXPECT_FALSE(store_->failed());
    EXPECT_TRUE(write(kPageBytes, kPageBytes, 2)) << "what is allocated can be written";
    ASSERT_TRUE(run(store_->discard(Range{0, kDirtyUnitBytes}, {})));
    EXPECT_TRUE(write(kRegionBytes, kPageBytes, 3));
}

TEST_F(ReplicaStoreTest, WithoutTheSizeAPoolTakesTheRoomOfOthers) {
    constexpr std::uint64_t kCapBytes = 2 * kDirtyUnitBytes;
    for (const bool rule : {true, false}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.pool_cap=off"));
        }
        pool_->budget()->set_cap_bytes(kCapBytes);
        for (std::uint64_t at = 0; at < 8 * kDirtyUnitBytes; at += kDirtyUnitBytes)
            EXPECT_EQ(write(at, kDirtyUnitBytes, 1).has_value(), !rule || at < kCapBytes);
        struct stat info{};
        ASSERT_EQ(stat((path() + "/data").c_str(), &info), 0);
        EXPECT_EQ(static_cast<std::uint64_t>(info.st_blocks) * 512 <= kCapBytes, rule);
    }
}

TEST_F(ReplicaStoreTest, AFullDiskDoesNotPutTheReplicaOut) {
    std::uint64_t at = 0;
    for (const char* fault : {"store.data_write=fail:28@1", "store.map_write=fail:28@1"}) {
        at += kRegionBytes;
        ASSERT_TRUE(faults::arm(fault));
        EXPECT_EQ(write_error(at), Errc::kNoSpace) << fault;
        EXPECT_FALSE(store_->failed());
        EXPECT_TRUE(write(at, kPageBytes, 7)) << fault;
        EXPECT_EQ(value_at(at, kPageBytes), 7);
    }
}

TEST_F(ReplicaStoreTest, AReadErrorIsReportedAndNoMore) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    ASSERT_TRUE(faults::arm("store.data_read=fail@1"));
    const auto got = run(store_->read(0, memory(kPageBytes, 0)));
    ASSERT_FALSE(got);
    EXPECT_EQ(got.error().code, Errc::kIo);
    EXPECT_FALSE(store_->failed());
    EXPECT_EQ(value_at(0, kPageBytes), 1);
}

class ReplicaError : public ReplicaStoreTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(ReplicaError, PutsTheReplicaOutForGood) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    ASSERT_TRUE(faults::arm(std::string(GetParam()) + "@1"));
    const bool wrote = write(kRegionBytes, kSectorBytes, 2).has_value();
    const bool discarded = run(store_->discard(Range{0, kPageBytes}, {})).has_value();
    const bool flushed = run(store_->flush()).has_value();
    SuperblockChange change;
    change.number = 5;
    const bool updated = run(store_->update_superblock(change)).has_value();
    EXPECT_FALSE(wrote && discarded && flushed && updated);
    ASSERT_TRUE(store_->failed()) << GetParam();
    EXPECT_EQ(store_->failed()->code, Errc::kIo);
    EXPECT_EQ(store_->failed()->sys_errno, EIO);
    // The fault was for one hit: nothing is tried again.
    const StoreStats before = store_->stats();
    EXPECT_EQ(write_error(0), Errc::kIo);
    EXPECT_FALSE(run(store_->read(0, memory(kPageBytes, 0))));
    EXPECT_FALSE(run(store_->flush()));
    EXPECT_FALSE(run(store_->discard(Range{0, kPageBytes}, {})));
    EXPECT_FALSE(run(store_->block_status(Range{0, kPageBytes}, 1)));
    EXPECT_FALSE(run(store_->mark_clean()));
    EXPECT_FALSE(run(store_->update_superblock(change)));
    const StoreStats after = store_->stats();
    EXPECT_EQ(after.data_writes + after.data_reads + after.data_syncs + after.superblock_writes +
                  after.map_writes,
              before.data_writes + before.data_reads + before.data_syncs +
                  before.superblock_writes + before.map_writes);
    reopen();
    EXPECT_FALSE(store_->superblock().clean);
}

INSTANTIATE_TEST_SUITE_P(Steps, ReplicaError,
                         ::testing::Values("store.data_write=fail", "store.after_data_write=fail",
                                           "store.data_sync=fail", "store.after_data_sync=fail",
                                           "store.map_write=fail", "store.after_map_write=fail",
                                           "store.zero=fail", "store.after_zero=fail",
                                           "store.superblock_write=fail",
                                           "store.after_superblock_write=fail"),
                         [](const auto& step) {
                             std::string name = step.param;
                             name = name.substr(6, name.find('=') - 6);
                             return name;
                         });

TEST_F(ReplicaStoreTest, AFailedFlushIsToldToAllWhoSharedIt) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    ASSERT_TRUE(faults::arm("store.data_sync=fail@1"));
    run(flush_many(4));
    EXPECT_EQ(failed_, 4) << "and what came after it fails at once";
    EXPECT_TRUE(store_->failed());
}

TEST_F(ReplicaStoreTest, WhatIsOutIsOutForTheNextProcessToo) {
    for (const bool rule : {false, true}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.out_is_marked=off"));
        }
        store::SuperblockChange change;
        change.boot_id = store::BootId{std::byte{7}};
        ASSERT_TRUE(run(store_->update_superblock(change)));
        ASSERT_TRUE(faults::arm("store.data_sync=fail@1"));
        ASSERT_TRUE(write(0, kPageBytes, 1));
        EXPECT_FALSE(run(store_->flush()));
        faults::disarm_all();
        reopen();
        EXPECT_EQ(store_->superblock().boot_id == store::BootId{}, rule);
        EXPECT_FALSE(store_->superblock().clean);
    }
}

/// A replica's folder in which writes of the superblock wait while `hangs`.
class HangingFolder final : public DiskFolder {
  public:
    struct Hang {
        bool hangs = false;
        io::Event ends;
    };
    HangingFolder(io::Reactor& reactor, std::string path, Hang* hang)
        : real_(reactor, std::move(path)), hang_(hang) {}

    Result<void> try_lock() override { return real_.try_lock(); }
    Result<std::unique_ptr<DiskFile>> open(const char* name, OpenMode mode) override {
        TRY_ASSIGN(auto file, real_.open(name, mode));
        if (std::string_view(name) != "superblock") return file;
        return std::unique_ptr<DiskFile>(std::make_unique<File>(std::move(file), hang_));
    }
    Result<void> begin_making() override { return real_.begin_making(); }
    Result<void> publish() override { return real_.publish(); }
    void abandon() noexcept override { real_.abandon(); }

  private:
    class File final : public DiskFile {
      public:
        File(std::unique_ptr<DiskFile> real, Hang* hang) : real_(std::move(real)), hang_(hang) {}
        Result<void> try_lock() override { return real_->try_lock(); }
        void start() override { real_->start(); }
        std::uint32_t alignment_bytes() const override { return real_->alignment_bytes(); }
        Result<std::uint64_t> size_bytes() const override { return real_->size_bytes(); }
        Result<void> set_size(std::uint64_t bytes) override { return real_->set_size(bytes); }
        Result<Range> next_data(std::uint64_t from) const override {
            return real_->next_data(from);
        }
        io::Task<Result<void>> read(std::uint64_t at, std::span<std::byte> into) override {
            return real_->read(at, into);
        }
        io::Task<Result<void>> write(std::uint64_t at, std::span<const std::byte> from,
                                     Durability durability) override {
            if (hang_->hangs) co_await hang_->ends.wait();
            co_return co_await real_->write(at, from, durability);
        }
        io::Task<Result<void>> sync() override { return real_->sync(); }
        io::Task<Result<void>> zero(ZeroMode mode, Range range) override {
            return real_->zero(mode, range);
        }

      private:
        std::unique_ptr<DiskFile> real_;
        Hang* hang_;
    };
    RealDiskFolder real_;
    Hang* hang_;
};

TEST_F(ReplicaStoreTest, AFailureIsToldThoughTheDiskThenHangs) {
    store::SuperblockChange change;
    change.boot_id = store::BootId{std::byte{7}};
    ASSERT_TRUE(run(store_->update_superblock(change)));
    close_store();
    HangingFolder::Hang hang;
    auto folder = std::make_unique<HangingFolder>(*reactor_, path(), &hang);
    auto opened = run(
        ReplicaStore::open_in(reactor_.get(), buffers_.get(), std::move(folder), id_, options()));
    ASSERT_TRUE(opened) << to_string(opened.error());
    store_ = std::move(*opened);
    ASSERT_TRUE(write(0, kPageBytes, 1));
    hang.hangs = true;
    ASSERT_TRUE(faults::arm("store.data_sync=fail@1"));
    EXPECT_EQ(run(store_->flush()).error().code, Errc::kIo);  // waited for the mark for ever
    EXPECT_FALSE(write(0, kPageBytes, 2));
    EXPECT_EQ(store_->superblock().boot_id, change.boot_id);
    hang.ends.set();  // the disk goes on, and so does the mark
    reopen();
    EXPECT_EQ(store_->superblock().boot_id, store::BootId{});
}

// ---- activity and clean mark

TEST_F(ReplicaStoreTest, ClearsWhatIsIdleAndFlushed) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    ASSERT_TRUE(write(kRegionBytes, kPageBytes, 1));
    ASSERT_TRUE(run(store_->flush()));
    const std::vector<std::uint32_t> regions{0};
    ASSERT_TRUE(run(store_->clear_activity(regions, 1)));
    EXPECT_FALSE(store_->activity().test(0));
    EXPECT_TRUE(store_->activity().test(1));
    reopen();
    EXPECT_FALSE(store_->activity().test(0));
    EXPECT_TRUE(store_->allocated().test(0))
        << "the allocated map went to disk before the bit was cleared";
    EXPECT_EQ(value_at(0, kPageBytes), 1);
}

// ---- dirty maps

SuperblockChange lost_now(ReplicaId replica, std::uint64_t number, std::size_t place = 0) {
    SuperblockChange change;
    change.lost = LostReplicas();
    (*change.lost)[place] = {replica, number, 0};
    return change;
}

/// R5: what was under way when a member was lost may differ on it.
TEST_F(ReplicaStoreTest, R11_MapOfALostReplicaBeginsWithWhatIsActive) {
    for (const bool rule : {true, false}) {
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.map_begins_active=off"));
        }
        const ReplicaId lost(rule ? 5 : 6);
        ASSERT_TRUE(write(kRegionBytes, kPageBytes, 1));
        ASSERT_TRUE(run(store_->update_superblock(lost_now(lost, 2))));
        faults::disarm_all();
        ASSERT_NE(store_->dirty(lost), nullptr);
        EXPECT_EQ(store_->dirty(lost)->test(kRegionBytes / kDirtyUnitBytes), rule);
        EXPECT_FALSE(store_->dirty(lost)->test(0));
        EXPECT_EQ(store_->dirty(ReplicaId(7)), nullptr);
    }
    EXPECT_EQ(store_->dirty(ReplicaId(5)), nullptr) << "its place was given to another";
}

/// Read back from the disk: a process that dies has the unit of each change that reached the data.
TEST_F(ReplicaStoreTest, R11_UnitOfAChangeIsOnDiskBeforeTheChange) {
    for (const bool rule : {true, false}) {
        const ReplicaId lost(rule ? 5 : 6);
        ASSERT_TRUE(run(store_->update_superblock(lost_now(lost, 2, 1))));
        if (!rule) {
            ASSERT_TRUE(faults::arm("rule.dirty_bit_first=off"));
        }
        const std::uint64_t at = (rule ? 2 : 3) * kRegionBytes + kDirtyUnitBytes;
        ASSERT_TRUE(write(at, kPageBytes, 1));
        faults::disarm_all();
        reopen();
        ASSERT_NE(store_->dirty(lost), nullptr);
        EXPECT_EQ(store_->dirty(lost)->test(at / kDirtyUnitBytes), rule);
    }
    ASSERT_TRUE(run(store_->discard({2 * kRegionBytes + kDirtyUnitBytes, kDirtyUnitBytes}, {})));
    EXPECT_TRUE(store_->dirty(ReplicaId(6))->test(2 * kRegionBytes / kDirtyUnitBytes + 1));
}

TEST_F(ReplicaStoreTest, KeepsTheBitOfARegionThatIsNotFlushedOrUnknown) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    const std::vector<std::uint32_t> regions{0, 1, 4000};
    ASSERT_TRUE(run(store_->clear_activity(regions, 1)));
    EXPECT_TRUE(store_->activity().test(0));
}

TEST_F(ReplicaStoreTest, AWriteAfterTheCleanMarkRemovesItFirst) {
    ASSERT_TRUE(write(0, kPageBytes, 1));
    ASSERT_TRUE(run(store_->mark_clean()));
    const std::uint64_t before = store_->stats().superblock_writes;
    ASSERT_TRUE(write(0, kPageBytes, 2));
    ASSERT_TRUE(write(0, kPageBytes, 3));
    EXPECT_EQ(store_->stats().superblock_writes, before + 1);
    reopen();
    EXPECT_FALSE(store_->superblock().clean);
}

}  // namespace
}  // namespace ublkd::store
