// Goal: what BlockDevice checks before and after its implementation. Method: an implementation that
// counts its calls and answers what the test says.
#include "ublkd/block/block_device.h"

#include <gtest/gtest.h>

#include "ublkd/io/reactor.h"

namespace ublkd::block {
namespace {

class CountingDevice final : public BlockDevice {
  public:
    Geometry geometry_{.size_bytes = 16 * kMiB, .logical_block_bytes = 4096};
    int calls = 0;
    std::vector<Extent> extents{Extent{4096, true, false}};

    const Geometry& geometry() const override { return geometry_; }

  private:
    io::Task<Result<void>> called() {
        ++calls;
        co_return Result<void>{};
    }
    io::Task<Result<void>> do_read(std::uint64_t, std::span<std::byte>) override {
        return called();
    }
    io::Task<Result<void>> do_write(std::uint64_t, std::span<const std::byte>,
                                    WriteOptions) override {
        return called();
    }
    io::Task<Result<void>> do_flush() override { return called(); }
    io::Task<Result<void>> do_discard(Range, WriteOptions) override { return called(); }
    io::Task<Result<void>> do_write_zeroes(Range, ZeroOptions) override { return called(); }
    io::Task<Result<std::vector<Extent>>> do_block_status(Range, std::size_t) override {
        co_return extents;
    }
};

class BlockDeviceTest : public ::testing::Test {
  protected:
    std::unique_ptr<io::Reactor> reactor_ = std::move(*io::Reactor::create());
    CountingDevice device_;
    std::vector<std::byte> bytes_ = std::vector<std::byte>(kMiB);
};

TEST_F(BlockDeviceTest, ImplementationSeesOnlyRequestsOfWholeLogicalBlocks) {
    const auto span = std::span<std::byte>(bytes_);
    EXPECT_FALSE(reactor_->run_until_complete(device_.read(512, span.first(4096))));
    EXPECT_FALSE(reactor_->run_until_complete(device_.write(0, span.first(512), {})));
    EXPECT_FALSE(reactor_->run_until_complete(device_.discard(Range{0, 512}, {})));
    EXPECT_FALSE(reactor_->run_until_complete(device_.write_zeroes(Range{16 * kMiB, 4096}, {})));
    EXPECT_EQ(device_.calls, 0);
    EXPECT_TRUE(reactor_->run_until_complete(device_.read(4096, span.first(4096))));
    EXPECT_TRUE(reactor_->run_until_complete(device_.write(0, span.first(kMaxIoBytes), {})));
    EXPECT_EQ(device_.calls, 2);
}

TEST_F(BlockDeviceTest, ReadOnlyDeviceSeesNoChange) {
    device_.geometry_.read_only = true;
    const auto refused =
        reactor_->run_until_complete(device_.write(0, std::span(bytes_).first(4096), {}));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kReadOnly);
    EXPECT_EQ(device_.calls, 0);
}

TEST_F(BlockDeviceTest, ExtentsBeyondTheRangeAreABug) {
    device_.extents = {Extent{8192, true, false}};
    EXPECT_DEATH((void)reactor_->run_until_complete(device_.block_status(Range{0, 4096}, 4)),
                 "extents lie within");
    device_.extents = {};
    EXPECT_DEATH((void)reactor_->run_until_complete(device_.block_status(Range{0, 4096}, 4)),
                 "1 to max_extents");
}

}  // namespace
}  // namespace ublkd::block
