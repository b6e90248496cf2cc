// Goal: a process killed at any of the store's fault points leaves a replica that opens and holds
// each acknowledged change (a dead process loses nothing that the kernel has); one that was being
// made is there whole or not at all. Method: a child works on real files and is killed (SIGKILL) at
// the n-th hit of a point; what was acknowledged is counted in shared memory; the parent opens the
// replica and compares it with a model.
#include <sys/mman.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <map>

#include "tests/unit/store/temporary_folder.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/io/aligned_memory.h"
#include "ublkd/store/file_system.h"
#include "ublkd/store/pool.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::store {
namespace {

constexpr ReplicaId kId{5};
constexpr std::uint64_t kSizeBytes = 5 * kRegionBytes;
constexpr int kSteps = 48;

/// What step `i` of the work does.
struct Step {
    enum class Kind { kWrite, kDiscard, kFlush, kUpdate, kClear } kind;
    Range range;
};
Step step_of(int i) {
    constexpr std::array kKinds{Step::Kind::kWrite,  Step::Kind::kWrite, Step::Kind::kFlush,
                                Step::Kind::kUpdate, Step::Kind::kWrite, Step::Kind::kDiscard,
                                Step::Kind::kFlush,  Step::Kind::kClear};
    const std::uint64_t place = static_cast<std::uint64_t>(i);
    const std::uint64_t bytes = i % 3 == 0 ? kSectorBytes : 2 * kPageBytes;
    return Step{kKinds[place % kKinds.size()],
                Range{place % 5 * kRegionBytes + place % 3 * kPageBytes, bytes}};
}

/// Value of each sector that was ever changed, and the number, after `steps` steps.
struct Model {
    std::map<std::uint64_t, int> sectors;
    std::uint64_t number = 0;
};
Model model_after(int steps) {
    Model model;
    for (int i = 0; i < steps; ++i) {
        const Step step = step_of(i);
        if (step.kind == Step::Kind::kUpdate) model.number = static_cast<std::uint64_t>(i);
        if (step.kind != Step::Kind::kWrite && step.kind != Step::Kind::kDiscard) continue;
        for (std::uint64_t at = step.range.offset_bytes; at < step.range.end_bytes();
             at += kSectorBytes)
            model.sectors[at] = step.kind == Step::Kind::kWrite ? i + 1 : 0;
    }
    return model;
}

/// Everything that a process needs to work on the replica; made in the process that uses it.
class Process {
  public:
    explicit Process(const std::string& folder) : folder_(folder) {}
    Errc open_pool() {
        auto pool = fs::exists(folder_ + "/pool")
                        ? Pool::open(folder_)
                        : Pool::create(folder_, PoolConfig{.id = {}, .domain = ""});
        if (!pool) return pool.error().code;
        pool_ = std::move(*pool);
        return Errc::kConflict;  // "no error" of this test
    }
    Result<void> create() {
        const ReplicaConfig config{
            .volume = VolumeId(1), .incarnation = kId, .size_bytes = kSizeBytes};
        TRY_ASSIGN(store_, run(ReplicaStore::create(reactor_.get(), buffers_.get(),
                                                    pool_->replica_folder(kId), config)));
        return {};
    }
    Result<void> open() {
        TRY_ASSIGN(store_, run(ReplicaStore::open(reactor_.get(), buffers_.get(),
                                                  pool_->replica_folder(kId))));
        return {};
    }
    Result<void> take(int i) {
        const Step step = step_of(i);
        const auto data = memory_.span().first(step.range.length_bytes);
        switch (step.kind) {
            case Step::Kind::kWrite:
                std::fill(data.begin(), data.end(), static_cast<std::byte>(i + 1));
                return run(store_->write(step.range.offset_bytes, data,
                                         block::WriteOptions{.fua = i % 5 == 0}));
            case Step::Kind::kDiscard:
                return run(store_->discard(step.range, {}));
            case Step::Kind::kFlush:
                return run(store_->flush());
            case Step::Kind::kUpdate: {
                SuperblockChange change;
                change.number = static_cast<std::uint64_t>(i);
                return run(store_->update_superblock(change));
            }
            case Step::Kind::kClear: {
                const std::vector<std::uint32_t> regions{0, 1, 2, 3, 4};
                return run(store_->clear_activity(regions, 1));
            }
        }
        return {};
    }
    int value_at(std::uint64_t offset_bytes) {
        const auto sector = memory_.span().first(kSectorBytes);
        if (!run(store_->read(offset_bytes, sector))) return -2;
        for (const std::byte b : sector) {
            if (b != sector[0]) return -1;
        }
        return static_cast<int>(sector[0]);
    }
    ReplicaStore& store() { return *store_; }
    Pool& pool() { return *pool_; }

  private:
    template <class T>
    T run(io::Task<T> task) {
        return reactor_->run_until_complete(std::move(task));
    }
    std::string folder_;
    std::unique_ptr<io::Reactor> reactor_ = std::move(*io::Reactor::create());
    std::unique_ptr<io::BufferPool> buffers_ = std::move(*io::BufferPool::create(kMiB));
    io::AlignedMemory memory_{kMaxIoBytes};
    std::unique_ptr<Pool> pool_;
    std::unique_ptr<ReplicaStore> store_;
};

[[noreturn]] void work_until_killed(const std::string& folder, const char* fault,
                                    int* acknowledged) {
    Process process(folder);
    if (process.open_pool() != Errc::kConflict || !process.create()) std::_Exit(2);
    if (!faults::arm(fault)) std::_Exit(3);
    for (int i = 0; i < kSteps; ++i) {
        if (!process.take(i)) std::_Exit(4);
        *acknowledged = i + 1;
    }
    std::_Exit(0);  // the point was not hit so often
}

class StoreKill : public ::testing::TestWithParam<const char*> {
  protected:
    ~StoreKill() override { munmap(shared_, kPageBytes); }

    test::TemporaryFolder folder_;
    // With the processes that die.
    void* shared_ =
        mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int* acknowledged_ = static_cast<int*>(shared_);
};

TEST_P(StoreKill, LeavesEachAcknowledgedChange) {
    const std::string path = folder_.path() + "/pool";
    EXPECT_EXIT(work_until_killed(path, GetParam(), acknowledged_),
                testing::KilledBySignal(SIGKILL), "");
    Process after(path);
    ASSERT_EQ(after.open_pool(), Errc::kConflict);
    const auto opened = after.open();
    ASSERT_TRUE(opened) << to_string(opened.error());
    const Model old = model_after(*acknowledged_);
    Model next = model_after(*acknowledged_ + 1);
    for (const auto& [at, new_value] : next.sectors) {
        const auto before = old.sectors.find(at);
        const int old_value = before == old.sectors.end() ? 0 : before->second;
        const int found = after.value_at(at);
        EXPECT_TRUE(found == old_value || found == new_value)
            << "offset " << at << " holds " << found << ", not " << old_value << " or "
            << new_value;
        if (found != 0) {
            EXPECT_TRUE(after.store().allocated().test(at / kDirtyUnitBytes));
        }
    }
    const std::uint64_t number = after.store().superblock().number;
    EXPECT_TRUE(number == old.number || number == next.number) << number;
    EXPECT_FALSE(after.store().superblock().clean && *acknowledged_ > 0);
}

INSTANTIATE_TEST_SUITE_P(
    Points, StoreKill,
    ::testing::Values("store.data_write=crash@1", "store.data_write=crash@9",
                      "store.after_data_write=crash@1", "store.after_data_write=crash@12",
                      "store.data_read=crash@2", "store.data_sync=crash@2",
                      "store.after_data_sync=crash@3", "store.zero=crash@2",
                      "store.after_zero=crash@2", "store.map_write=crash@1",
                      "store.map_write=crash@7", "store.after_map_write=crash@2",
                      "store.after_map_write=crash@8", "store.superblock_write=crash@1",
                      "store.superblock_write=crash@3", "store.after_superblock_write=crash@2"),
    [](const auto& point) {
        std::string name = point.param;
        for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
        return name;
    });

[[noreturn]] void create_until_killed(const std::string& folder, const char* fault) {
    Process process(folder);
    if (process.open_pool() != Errc::kConflict || !faults::arm(fault)) std::_Exit(2);
    (void)process.create();
    std::_Exit(0);
}

TEST(StoreKillWhileMaking, TheReplicaIsNotThereAndTheRestIsSwept) {
    for (const char* fault : {"store.create=crash", "store.superblock_write=crash@2",
                              "store.map_write=crash@2", "store.publish=crash"}) {
        const test::TemporaryFolder folder;
        const std::string path = folder.path() + "/pool";
        EXPECT_EXIT(create_until_killed(path, fault), testing::KilledBySignal(SIGKILL), "");
        EXPECT_EQ(fs::list(path + "/replicas")->size(), 1U) << "the death came in the middle";
        Process after(path);
        ASSERT_EQ(after.open_pool(), Errc::kConflict);
        EXPECT_TRUE(fs::list(path + "/replicas")->empty()) << fault;
        EXPECT_TRUE(after.pool().replicas()->empty());
        EXPECT_TRUE(after.create()) << fault;
    }
}

}  // namespace
}  // namespace ublkd::store
