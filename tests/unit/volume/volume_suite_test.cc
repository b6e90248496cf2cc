// Goal: a volume is a BlockDevice in every respect, with one member and with two. Method: the
// conformance suite; reopened by stopping and starting it; after each test with two members they
// are compared byte for byte.
#include "tests/suites/block_device_suite.h"
#include "tests/unit/volume/volume_world.h"

namespace ublkd::volume {
namespace {

class VolumeSubject : public suites::DeviceSubject {
  public:
    VolumeSubject(std::size_t replicas, Durability durability) : world_(replicas) {
        world_.config.durability = durability;
    }
    io::Task<Result<block::BlockDevice*>> make(io::Reactor* reactor, io::BufferPool* buffers,
                                               std::uint64_t size_bytes) override {
        reactor_ = reactor;
        buffers_ = buffers;
        world_.config.size_bytes = size_bytes;
        auto founding =
            suites::found_volume(reactor_, buffers_, world_.config, world_.authority.get());
        CO_TRY(co_await founding);
        auto starting =
            Volume::start(reactor_, buffers_, world_.config, world_.authority.get(), nullptr);
        CO_TRY_ASSIGN(volume_, co_await starting);
        co_return volume_.get();
    }
    io::Task<Result<block::BlockDevice*>> reopen(bool read_only) override {
        if (read_only) co_return fail(Errc::kUnsupported, "a volume is opened to be written");
        CO_TRY(co_await volume_->stop());
        volume_.reset();
        auto starting =
            Volume::start(reactor_, buffers_, world_.config, world_.authority.get(), nullptr);
        CO_TRY_ASSIGN(volume_, co_await starting);
        co_return volume_.get();
    }
    io::Task<void> close() override {
        if (!volume_) co_return;
        const auto report = co_await volume_->verify();
        EXPECT_TRUE(report.has_value() && report->equal());
        if (report) {
            EXPECT_EQ(report->members, world_.config.replicas.size());
        }
        const auto stopped = co_await volume_->stop();
        EXPECT_TRUE(stopped.has_value());
        volume_.reset();
    }

  private:
    test::World world_;
    io::Reactor* reactor_ = nullptr;
    io::BufferPool* buffers_ = nullptr;
    std::unique_ptr<Volume> volume_;
};

suites::Subject subject(std::string name, std::size_t replicas, Durability durability) {
    return suites::Subject{std::move(name),
                           [=] { return std::make_unique<VolumeSubject>(replicas, durability); }};
}

INSTANTIATE_TEST_SUITE_P(Volume, BlockDeviceSuite,
                         ::testing::Values(subject("one_member", 1, Durability::kFlush),
                                           subject("two_members", 2, Durability::kFlush),
                                           subject("two_members_durable_writes", 2,
                                                   Durability::kWrite)),
                         suites::subject_name);

}  // namespace
}  // namespace ublkd::volume
