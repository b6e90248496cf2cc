// Goal: each request of the kernel becomes the right call of the BlockDevice and the right answer.
// Method: the conformance suite of block devices through the front end, and single requests on a
// device that records and fails.
#include "tests/suites/block_device_suite.h"
#include "tests/unit/front_ublk/rig.h"

namespace ublkd::front::ublk {
namespace {

using block::MemoryDevice;

/// The disk of the simulated kernel, served by a UblkDevice over memory; it is opened again by a
/// quiesce and a recovery.
class UblkSubject final : public suites::DeviceSubject {
  public:
    io::Task<Result<block::BlockDevice*>> make(io::Reactor* reactor, io::BufferPool* buffers,
                                               std::uint64_t size_bytes) override {
        char name[] = "/tmp/ublk_suite.XXXXXX";
        folder_ = mkdtemp(name);
        reactor_ = reactor;
        buffers_ = buffers;
        kernel_ = std::make_unique<SimulatedKernel>(reactor);
        environment_.driver = kernel_.get();
        environment_.worker = &worker_;
        environment_.run_folder = folder_ + "/run";
        environment_.device_folder = folder_ + "/dev";
        environment_.sys_folder = folder_ + "/sys";
        environment_.names = {folder_ + "/names", folder_ + "/no-udev", {folder_ + "/rules"}};
        options_.volume = VolumeId(5);
        options_.depth = 16;
        options_.queues = 2;
        block::Geometry geometry;
        geometry.size_bytes = size_bytes;
        memory_ = std::make_unique<MemoryDevice>(geometry);
        auto device = co_await UblkDevice::attach(reactor_, buffers_, &environment_, memory_.get(),
                                                  &options_);
        if (!device) co_return fail(device.error());
        device_ = std::move(*device);
        disk_ = std::make_unique<SimulatedDisk>(kernel_.get(), device_->device_id());
        co_return disk_.get();
    }
    io::Task<Result<block::BlockDevice*>> reopen(bool read_only) override {
        if (read_only) co_return fail(Errc::kUnsupported, "a device cannot become read-only");
        (void)co_await device_->quiesce();
        options_.device_id = device_->device_id();
        device_.reset();
        environment_.held = std::make_shared<HeldDevices>();  // of the process that ended
        kernel_->kill_server(options_.device_id);
        auto device = co_await UblkDevice::recover(reactor_, buffers_, &environment_, memory_.get(),
                                                   &options_);
        if (!device) co_return fail(device.error());
        device_ = std::move(*device);
        co_return disk_.get();
    }
    io::Task<void> close() override {
        const auto detached = co_await device_->detach(true);
        EXPECT_TRUE(detached);
        device_.reset();
        EXPECT_EQ(kernel_->device_count(), 0u);
        std::filesystem::remove_all(folder_);
    }

  private:
    std::string folder_;
    io::Reactor* reactor_ = nullptr;
    io::BufferPool* buffers_ = nullptr;
    io::Worker worker_{"suite-files"};
    std::unique_ptr<SimulatedKernel> kernel_;
    UblkEnvironment environment_;
    UblkOptions options_;
    std::unique_ptr<MemoryDevice> memory_;
    std::unique_ptr<UblkDevice> device_;
    std::unique_ptr<SimulatedDisk> disk_;
};

INSTANTIATE_TEST_SUITE_P(UblkFront, BlockDeviceSuite,
                         ::testing::Values(suites::subject<UblkSubject>("ublk")),
                         suites::subject_name);

TEST(UblkRequest, EachOperationArrivesWithItsFlags) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ProbeDevice probe(&memory);
    auto device = rig.attach(&probe);
    ASSERT_TRUE(device);
    std::vector<std::byte> data(8192, std::byte{7});
    EXPECT_EQ(rig.request(uapi::kOperationWrite | uapi::kFlagFua, 16, 16, data), 8192);
    EXPECT_TRUE(probe.last_fua);
    EXPECT_EQ(rig.request(uapi::kOperationWrite, 16, 16, data), 8192);
    EXPECT_FALSE(probe.last_fua);
    EXPECT_EQ(rig.request(uapi::kOperationFlush, 0, 0, {}), 0);
    EXPECT_EQ(probe.flushes, 1);
    EXPECT_EQ(rig.request(uapi::kOperationDiscard, 16, 8, {}), 0);
    EXPECT_EQ(rig.request(uapi::kOperationWriteZeroes | uapi::kFlagNoUnmap, 24, 8, {}), 0);
    EXPECT_TRUE(probe.last_keep_allocated);
    EXPECT_EQ(rig.request(uapi::kOperationWriteZeroes, 24, 8, {}), 0);
    EXPECT_FALSE(probe.last_keep_allocated);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 16, 16, data), 8192);
    EXPECT_TRUE(is_all_zero(data));
    EXPECT_EQ(rig.request(4, 0, 8, {}), -EOPNOTSUPP);  // WRITE_SAME, which no kernel sends any more
    const std::vector<Range> ranges{
        {8192, 8192}, {8192, 8192}, {8192, 4096}, {12288, 4096}, {12288, 4096}};
    EXPECT_EQ(probe.ranges, ranges);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRequest, ErrorsBecomeTheErrnosThatTheBlockLayerKnows) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ProbeDevice probe(&memory);
    auto device = rig.attach(&probe);
    ASSERT_TRUE(device);
    const std::vector<std::pair<Errc, int>> cases{{Errc::kIo, EIO},
                                                  {Errc::kNoSpace, ENOSPC},
                                                  {Errc::kTimedOut, ETIMEDOUT},
                                                  {Errc::kCorrupt, EILSEQ},
                                                  {Errc::kClosed, ENOLINK},
                                                  {Errc::kProtocol, ENOLINK},
                                                  {Errc::kReadOnly, EIO},
                                                  {Errc::kBusy, EIO},
                                                  {Errc::kExhausted, EIO},
                                                  {Errc::kStale, EIO},
                                                  {Errc::kUnsupported, EOPNOTSUPP}};
    std::vector<std::byte> page(kPageBytes);
    for (const auto& [code, sys_errno] : cases) {
        probe.failure = Error{code, EAGAIN, "test"};  // never the errno of a layer below
        EXPECT_EQ(rig.request(uapi::kOperationWrite, 0, 8, page), -sys_errno) << to_string(code);
        EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), -sys_errno) << to_string(code);
        EXPECT_EQ(rig.request(uapi::kOperationFlush, 0, 0, {}), -sys_errno) << to_string(code);
        EXPECT_EQ(rig.request(uapi::kOperationDiscard, 0, 8, {}), -sys_errno) << to_string(code);
        EXPECT_EQ(rig.request(uapi::kOperationWriteZeroes, 0, 8, {}), -sys_errno)
            << to_string(code);
    }
    EXPECT_EQ((*device)->status().errors, cases.size() * 5);
    probe.failure.reset();
    EXPECT_EQ(rig.request(uapi::kOperationRead, 8192 - 8, 16, page), -EIO);  // beyond the end
    EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), 4096);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRequest, LargerThanTheDeviceTakesIsDoneInPartsWithIdsThatFollow) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    ProbeDevice probe(&memory);
    auto device = rig.attach(&probe);
    ASSERT_TRUE(device);
    probe.geometry_for_test().max_io_bytes =
        64 * 1024;  // a recovered device keeps the limits it was made with
    probe.geometry_for_test().max_range_bytes = 1 * kMiB;
    std::vector<std::byte> data(160 * 1024, std::byte{9});
    EXPECT_EQ(rig.request(uapi::kOperationWrite, 0, 320, data), 160 * 1024);
    const std::vector<Range> parts{{0, 65536}, {65536, 65536}, {131072, 32768}};
    EXPECT_EQ(probe.ranges, parts);
    EXPECT_EQ(rig.request(uapi::kOperationDiscard, 0, 5000, {}), 0);
    ASSERT_EQ(probe.ids.size(), 6u);
    for (std::size_t i = 1; i < probe.ids.size(); ++i)
        EXPECT_EQ(probe.ids[i].sequence, probe.ids[i - 1].sequence + 1);
    std::vector<std::byte> back(160 * 1024);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 1024 * 4, 320, back), 160 * 1024);
    ASSERT_TRUE(rig.detach(*device));
}

TEST(UblkRequest, FaultPointFailsOneRequest) {
    Rig rig;
    MemoryDevice memory(small_geometry());
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    ASSERT_TRUE(faults::arm("ublk.request=fail@2"));
    std::vector<std::byte> page(kPageBytes);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), 4096);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), -EIO);
    EXPECT_EQ(rig.request(uapi::kOperationRead, 0, 8, page), 4096);
    ASSERT_TRUE(rig.detach(*device));
}

/// Many requests side by side over all operations, with more data under way than the pool has; each
/// touches a part of its own.
io::Task<void> hammer(SimulatedKernel* kernel, std::uint64_t lane, suites::Random* random,
                      int* failures) {
    constexpr std::uint32_t kLaneSectors = 512;  // 256 KiB
    std::vector<std::byte> model(std::size_t{kLaneSectors} * kSectorBytes);
    std::vector<std::byte> data;
    for (int round = 0; round < 320; ++round) {
        const auto first = static_cast<std::uint32_t>(random->between(0, kLaneSectors - 1));
        const auto count = static_cast<std::uint32_t>(random->between(1, kLaneSectors - first));
        const std::span<std::byte> part =
            std::span(model).subspan(first * kSectorBytes, count * kSectorBytes);
        const std::uint64_t sector = lane * kLaneSectors + first;
        data.assign(part.size(), static_cast<std::byte>(random->between(1, 255)));
        const std::uint64_t kind = random->between(0, 9);
        int result = 0;
        if (kind < 4) {
            result = co_await kernel->request(0, uapi::kOperationWrite, sector, count, data);
            std::copy(data.begin(), data.end(), part.begin());
            result = result == static_cast<int>(data.size()) ? 0 : -1;
        } else if (kind < 6) {
            const std::uint32_t operation =
                kind == 4 ? uapi::kOperationDiscard : uapi::kOperationWriteZeroes;
            result = co_await kernel->request(0, operation, sector, count, std::span<std::byte>());
            std::fill(part.begin(), part.end(), std::byte{0});
        } else if (kind == 6) {
            result =
                co_await kernel->request(0, uapi::kOperationFlush, 0, 0, std::span<std::byte>());
        } else {
            result = co_await kernel->request(0, uapi::kOperationRead, sector, count, data);
            result = result == static_cast<int>(data.size()) &&
                             std::equal(data.begin(), data.end(), part.begin())
                         ? 0
                         : -1;
        }
        if (result != 0) ++*failures;
    }
}

io::Task<void> hammer_all(SimulatedKernel* kernel, suites::Random* random, int* failures) {
    io::TaskGroup group;
    for (std::uint64_t lane = 0; lane < 32; ++lane)
        group.start(hammer(kernel, lane, random, failures));
    co_await group.wait();
}

TEST(UblkRequest, TenThousandRandomOnesGiveWhatTheModelGives) {
    Rig rig;
    rig.options.queues = 2;
    block::Geometry geometry;
    geometry.size_bytes = 8 * kMiB;
    MemoryDevice memory(geometry);
    rig.buffers = std::move(*io::BufferPool::create(1 * kMiB));
    auto device = rig.attach(&memory);
    ASSERT_TRUE(device);
    suites::Random random(3);
    int failures = 0;
    rig.run(hammer_all(rig.kernel.get(), &random, &failures));
    EXPECT_EQ(failures, 0) << suites::seed_text();
    EXPECT_GE((*device)->status().requests, 10'000u);
    EXPECT_EQ((*device)->status().errors, 0u);
    ASSERT_TRUE(rig.detach(*device));
}

}  // namespace
}  // namespace ublkd::front::ublk
