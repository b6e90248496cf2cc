// The conformance suite of block::BlockDevice: what every layer that is one promises
// (block_device.h), as tests. Run it on an implementation by giving a Subject:
//
//   class MySubject : public suites::DeviceSubject { ... };
//   INSTANTIATE_TEST_SUITE_P(MyDevice, BlockDeviceSuite,
//   ::testing::Values(suites::subject<MySubject>("my")),
//                            suites::subject_name);
//
// and linking ublkd_block_device_suite. Each test makes a subject, works on its device from one
// thread, compares it byte for byte with a model in memory, and, where the device keeps its data,
// opens it again and compares once more.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tests/suites/seed.h"
#include "ublkd/base/bytes.h"
#include "ublkd/block/block_device.h"
#include "ublkd/io/buffer_pool.h"
#include "ublkd/io/reactor.h"

namespace ublkd::suites {

/// What makes the device under test, and owns it. All calls come on the reactor's thread.
class DeviceSubject {
  public:
    virtual ~DeviceSubject() = default;
    /// A new device of `size_bytes` (a multiple of 4096) that reads as zeroes. Called once. It
    /// lives until close().
    virtual io::Task<Result<block::BlockDevice*>> make(io::Reactor* reactor,
                                                       io::BufferPool* buffers,
                                                       std::uint64_t size_bytes) = 0;
    /// Closes the device cleanly and opens it again. kUnsupported: it keeps nothing, or cannot be
    /// opened read-only.
    virtual io::Task<Result<block::BlockDevice*>> reopen(bool read_only) = 0;
    /// Stops and destroys the device; called at the end of each test.
    virtual io::Task<void> close() = 0;
};

struct Subject {
    std::string name;
    std::function<std::unique_ptr<DeviceSubject>()> make;
};
inline void PrintTo(const Subject& subject, std::ostream* out) { *out << subject.name; }
inline std::string subject_name(const ::testing::TestParamInfo<Subject>& info) {
    return info.param.name;
}

template <class T>
Subject subject(std::string name) {
    return Subject{std::move(name), [] { return std::unique_ptr<DeviceSubject>(new T()); }};
}

}  // namespace ublkd::suites

/// The fixture: reactor, buffers, the device, and its model.
class BlockDeviceSuite : public ::testing::TestWithParam<ublkd::suites::Subject> {
  protected:
    // Ragged against regions (4 MiB), dirty units (64 KiB) and blocks (512 KiB).
    static constexpr std::uint64_t kSizeBytes = 8 * ublkd::kMiB + 68 * ublkd::kKiB;

    void SetUp() override;
    void TearDown() override;

    ublkd::block::BlockDevice& device() { return *device_; }
    ublkd::Result<void> read(std::uint64_t offset_bytes, std::span<std::byte> into);
    /// Writes to the device and, where that succeeds, to the model.
    ublkd::Result<void> write(std::uint64_t offset_bytes, std::span<const std::byte> data,
                              bool fua = false);
    ublkd::Result<void> discard(ublkd::Range range, bool fua = false);
    ublkd::Result<void> write_zeroes(ublkd::Range range, ublkd::block::ZeroOptions options);
    ublkd::Result<void> flush();
    /// False where the device cannot (and failed, where it tried).
    bool reopen(bool read_only = false);

    /// `length_bytes` that occur nowhere else: each word names the write and its own place in it.
    std::span<const std::byte> new_data(std::size_t length_bytes, std::size_t memory_offset = 0);
    /// Compares `range`, or all, with the model.
    void expect_range(ublkd::Range range);
    void expect_all() { expect_range(ublkd::Range{0, kSizeBytes}); }
    /// Walks block_status() over all; no range with data may be called a hole or zero.
    void expect_status_honest(std::size_t max_extents);
    ublkd::suites::Random& random() { return random_; }
    ublkd::Range random_range(std::uint64_t max_bytes);
    template <class T>
    T run(ublkd::io::Task<T> task) {
        return reactor_->run_until_complete(std::move(task));
    }

    std::unique_ptr<ublkd::io::Reactor> reactor_;
    std::unique_ptr<ublkd::io::BufferPool> buffers_;
    std::unique_ptr<ublkd::suites::DeviceSubject> subject_;
    ublkd::block::BlockDevice* device_ = nullptr;
    std::vector<std::byte> model_;
    std::vector<std::byte> memory_;  // what new_data() and reads use
    std::uint64_t writes_ = 0;
    ublkd::suites::Random random_;
};
