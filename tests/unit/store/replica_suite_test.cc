// Goal: a replica's store is a BlockDevice in every respect. Method: the conformance suite, on
// O_DIRECT and on buffered files; reopened in order (clean mark) and as after the death of the
// process (no mark).
#include "tests/suites/block_device_suite.h"
#include "tests/unit/store/temporary_folder.h"
#include "ublkd/store/pool.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::store {
namespace {

class StoreSubject : public suites::DeviceSubject {
  public:
    StoreSubject(bool direct, bool clean) : direct_(direct), clean_(clean) {}

    io::Task<Result<block::BlockDevice*>> make(io::Reactor* reactor, io::BufferPool* buffers,
                                               std::uint64_t size_bytes) override {
        reactor_ = reactor;
        buffers_ = buffers;
        CO_TRY_ASSIGN(pool_,
                      Pool::create(folder_.path(),
                                   PoolConfig{.id = {}, .domain = "a", .buffered = !direct_}));
        const ReplicaConfig config{.volume = VolumeId(1),
                                   .incarnation = ReplicaId(2),
                                   .size_bytes = size_bytes,
                                   .direct = direct_};
        // Named first: no temporary with a destructor inside a co_await expression.
        io::Task<ReplicaStore::Opened> making =
            ReplicaStore::create(reactor_, buffers_, path(), config, options());
        CO_TRY_ASSIGN(store_, co_await making);
        co_return store_.get();
    }
    io::Task<Result<block::BlockDevice*>> reopen(bool read_only) override {
        if (read_only) co_return fail(Errc::kUnsupported, "a replica is opened to be written");
        if (clean_) {
            CO_TRY(co_await store_->mark_clean());
        }
        store_.reset();
        io::Task<ReplicaStore::Opened> opening =
            ReplicaStore::open(reactor_, buffers_, path(), options());
        CO_TRY_ASSIGN(store_, co_await opening);
        EXPECT_EQ(store_->superblock().clean, clean_);
        co_return store_.get();
    }
    io::Task<void> close() override {
        store_.reset();
        co_return;
    }

  private:
    std::string path() const { return pool_->replica_folder(ReplicaId(2)); }
    StoreOptions options() const { return StoreOptions{pool_->budget()}; }

    bool direct_;
    bool clean_;
    test::TemporaryFolder folder_;
    io::Reactor* reactor_ = nullptr;
    io::BufferPool* buffers_ = nullptr;
    std::unique_ptr<Pool> pool_;
    std::unique_ptr<ReplicaStore> store_;
};

suites::Subject subject(std::string name, bool direct, bool clean) {
    return suites::Subject{
        std::move(name), [direct, clean] { return std::make_unique<StoreSubject>(direct, clean); }};
}

INSTANTIATE_TEST_SUITE_P(ReplicaStore, BlockDeviceSuite,
                         ::testing::Values(subject("direct", true, true),
                                           subject("direct_unclean", true, false),
                                           subject("buffered", false, true)),
                         suites::subject_name);

}  // namespace
}  // namespace ublkd::store
