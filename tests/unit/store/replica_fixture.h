// A replica in a pool of its own on the disk, with a reactor: the ground of the store's tests.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/unit/store/temporary_folder.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/io/aligned_memory.h"
#include "ublkd/store/pool.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::store {

class ReplicaTest : public ::testing::Test {
  protected:
    static constexpr std::uint64_t kSizeBytes = 5 * kRegionBytes + kPageBytes + kSectorBytes;

    void SetUp() override {
        pool_ =
            std::move(*Pool::create(folder_.path() + "/pool", PoolConfig{.id = {}, .domain = "a"}));
        store_ = create(id_);
        ASSERT_NE(store_, nullptr);
    }
    void TearDown() override {
        faults::disarm_all();
        close_store();
    }
    void close_store() {
        if (store_) run(store_->close());
        store_.reset();
    }

    template <class T>
    T run(io::Task<T> task) {
        return reactor_->run_until_complete(std::move(task));
    }
    std::string path() const { return pool_->replica_folder(id_); }
    StoreOptions options() const {
        return StoreOptions{.budget = pool_->budget(), .lock_wait_ms = 60};
    }
    ReplicaStore::Opened try_create(ReplicaId id, std::uint64_t size_bytes = kSizeBytes) {
        const ReplicaConfig config{
            .volume = VolumeId(7), .incarnation = id, .size_bytes = size_bytes};
        return run(ReplicaStore::create(reactor_.get(), buffers_.get(), pool_->replica_folder(id),
                                        config, options()));
    }
    std::unique_ptr<ReplicaStore> create(ReplicaId id) {
        auto made = try_create(id);
        EXPECT_TRUE(made) << to_string(made.error());
        return made ? std::move(*made) : nullptr;
    }
    ReplicaStore::Opened try_open() {
        close_store();
        return run(ReplicaStore::open(reactor_.get(), buffers_.get(), path(), options()));
    }
    void reopen() {
        auto opened = try_open();
        ASSERT_TRUE(opened) << to_string(opened.error());
        store_ = std::move(*opened);
    }

    std::span<std::byte> memory(std::size_t bytes, int value) {
        const auto span = memory_.span().first(bytes);
        std::fill(span.begin(), span.end(), static_cast<std::byte>(value));
        return span;
    }
    Result<void> write(std::uint64_t offset_bytes, std::size_t bytes, int value, bool fua = false) {
        return run(
            store_->write(offset_bytes, memory(bytes, value), block::WriteOptions{.fua = fua}));
    }
    /// The bytes' value where all of the range have one; -1: they differ; -2: an error.
    int value_at(std::uint64_t offset_bytes, std::size_t bytes) {
        const auto into = memory(bytes, 0xee);
        if (!run(store_->read(offset_bytes, into))) return -2;
        for (const std::byte b : into) {
            if (b != into[0]) return -1;
        }
        return static_cast<int>(into[0]);
    }
    /// Overwrites bytes of a file of the replica behind the store's back.
    void damage(const char* name, std::uint64_t offset_bytes, std::size_t bytes = 1) {
        const int fd = ::open((path() + "/" + name).c_str(), O_RDWR | O_CLOEXEC);
        ASSERT_GE(fd, 0);
        const std::vector<char> junk(bytes, 0x5a);
        EXPECT_EQ(::pwrite(fd, junk.data(), bytes, static_cast<off_t>(offset_bytes)),
                  static_cast<ssize_t>(bytes));
        ::close(fd);
    }

    test::TemporaryFolder folder_;
    std::unique_ptr<io::Reactor> reactor_ = std::move(*io::Reactor::create());
    std::unique_ptr<io::BufferPool> buffers_ = std::move(*io::BufferPool::create(4 * kMiB));
    io::AlignedMemory memory_{kMaxIoBytes};
    ReplicaId id_{42};
    std::unique_ptr<Pool> pool_;
    std::unique_ptr<ReplicaStore> store_;
};

}  // namespace ublkd::store
