// MemoryDevice under the conformance suite: at once, and behind a device that lets requests
// overtake each other.
#include "ublkd/block/memory_device.h"

#include "tests/suites/block_device_suite.h"

namespace ublkd::block {
namespace {

/// Ends each request after a random number of turns, and applies it at a random moment of that
/// time.
class ShuffledDevice final : public BlockDevice {
  public:
    ShuffledDevice(io::Reactor* reactor, BlockDevice* inner)
        : reactor_(reactor), inner_(inner), random_(77) {}
    const Geometry& geometry() const override { return inner_->geometry(); }

  private:
    io::Task<void> some_turns() {
        for (std::uint64_t left = random_.between(0, 3); left > 0; --left)
            co_await reactor_->yield();
    }
    io::Task<Result<void>> do_read(std::uint64_t offset_bytes, std::span<std::byte> into) override {
        co_await some_turns();
        auto result = co_await inner_->read(offset_bytes, into);
        co_await some_turns();
        co_return result;
    }
    io::Task<Result<void>> do_write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                                    WriteOptions options) override {
        co_await some_turns();
        auto result = co_await inner_->write(offset_bytes, data, options);
        co_await some_turns();
        co_return result;
    }
    io::Task<Result<void>> do_flush() override { return inner_->flush(); }
    io::Task<Result<void>> do_discard(Range range, WriteOptions options) override {
        co_await some_turns();
        co_return co_await inner_->discard(range, options);
    }
    io::Task<Result<void>> do_write_zeroes(Range range, ZeroOptions options) override {
        co_await some_turns();
        co_return co_await inner_->write_zeroes(range, options);
    }
    io::Task<Result<std::vector<Extent>>> do_block_status(Range range,
                                                          std::size_t max_extents) override {
        return inner_->block_status(range, max_extents);
    }

    io::Reactor* reactor_;
    BlockDevice* inner_;
    suites::Random random_;
};

class MemorySubject : public suites::DeviceSubject {
  public:
    io::Task<Result<BlockDevice*>> make(io::Reactor*, io::BufferPool*,
                                        std::uint64_t size_bytes) override {
        Geometry geometry;
        geometry.size_bytes = size_bytes;
        memory_ = std::make_unique<MemoryDevice>(geometry);
        co_return memory_.get();
    }
    io::Task<Result<BlockDevice*>> reopen(bool read_only) override {
        if (read_only) memory_->set_read_only();
        co_return current();
    }
    io::Task<void> close() override {
        memory_.reset();
        co_return;
    }

  protected:
    virtual BlockDevice* current() { return memory_.get(); }
    std::unique_ptr<MemoryDevice> memory_;
};

class ShuffledSubject final : public MemorySubject {
  public:
    io::Task<Result<BlockDevice*>> make(io::Reactor* reactor, io::BufferPool* buffers,
                                        std::uint64_t size_bytes) override {
        CO_TRY(co_await MemorySubject::make(reactor, buffers, size_bytes));
        shuffled_ = std::make_unique<ShuffledDevice>(reactor, memory_.get());
        co_return shuffled_.get();
    }

  private:
    BlockDevice* current() override { return shuffled_.get(); }
    std::unique_ptr<ShuffledDevice> shuffled_;
};

INSTANTIATE_TEST_SUITE_P(Memory, BlockDeviceSuite,
                         ::testing::Values(suites::subject<MemorySubject>("memory"),
                                           suites::subject<ShuffledSubject>("shuffled")),
                         suites::subject_name);

}  // namespace
}  // namespace ublkd::block
