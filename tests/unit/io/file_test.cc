// Goal: O_DIRECT files through the ring: what is written is read, errors and ends of files are told
// apart.
#include "ublkd/io/file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "tests/unit/io/io_fixture.h"
#include "ublkd/io/buffer_pool.h"

namespace ublkd::io {
namespace {

class FileTest : public IoTest {
  protected:
    File create(const char* name, bool direct = true) {
        auto file = File::open(*reactor_, folder() + "/" + name,
                               OpenOptions{.create = true, .exclusive = true, .direct = direct});
        EXPECT_TRUE(file) << to_string(file.error());
        return std::move(*file);
    }
    std::unique_ptr<BufferPool> pool_ = std::move(*BufferPool::create(2 * kMiB));
};

TEST_F(FileTest, WrittenBytesAreReadAndDurable) {
    File file = create("a");
    Buffer out = pool_->try_acquire(kMaxIoBytes);
    Buffer in = pool_->try_acquire(kMaxIoBytes);
    for (std::size_t i = 0; i < out.size(); ++i) out.data()[i] = static_cast<std::byte>(i * 7);
    ASSERT_TRUE(run(file.write(kMiB, out.span())));
    ASSERT_TRUE(run(file.sync()));
    ASSERT_TRUE(run(file.read(kMiB, in.span())));
    EXPECT_EQ(std::memcmp(in.data(), out.data(), out.size()), 0);
    ASSERT_TRUE(run(file.read(0, in.span())));  // the hole before it
    EXPECT_EQ(in.data()[100], std::byte{0});
    EXPECT_EQ(*file.size_bytes(), kMiB + kMaxIoBytes);
    ASSERT_TRUE(run(file.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kMiB, kPageBytes)));
    ASSERT_TRUE(run(file.read(kMiB, in.span())));
    EXPECT_EQ(in.data()[5], std::byte{0});
    EXPECT_EQ(in.data()[kPageBytes + 5], out.data()[kPageBytes + 5]);
}

TEST_F(FileTest, AlignmentIsTold) {
    const File direct = create("direct");
    EXPECT_TRUE(direct.alignment_bytes() == 512 || direct.alignment_bytes() == 4096);
    const File buffered = create("buffered", false);
    EXPECT_EQ(buffered.alignment_bytes(), 1U);
}

TEST_F(FileTest, ReadPastTheEndIsCorruptNotShort) {
    for (const bool direct : {true, false}) {
        File file = create(direct ? "end-direct" : "end-buffered", direct);
        Buffer buffer = pool_->try_acquire(2 * kPageBytes);
        std::memset(buffer.data(), 0x55, buffer.size());
        ASSERT_TRUE(run(file.write(0, buffer.span().first(kPageBytes))));
        for (const off_t size : {off_t{4096}, off_t{4096 - 512}, off_t{1000}, off_t{0}}) {
            ASSERT_EQ(::ftruncate(file.ref().fd, size), 0);
            const auto result = run(file.read(0, buffer.span()));
            ASSERT_FALSE(result) << size;
            EXPECT_EQ(result.error().code, Errc::kCorrupt)
                << size << " " << to_string(result.error());
        }
    }
}

TEST_F(FileTest, MisalignedDirectRequestsAreErrorsNotCrashes) {
    File file = create("misaligned");
    Buffer buffer = pool_->try_acquire(2 * kPageBytes);
    const auto result = run(file.write(100, buffer.span().first(kPageBytes)));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::kInvalidArgument);
}

TEST_F(FileTest, ErrorsOfOpenAreTold) {
    const auto code = [this](const std::string& path, OpenOptions options) {
        const auto file = File::open(*reactor_, path, options);
        return file ? Errc::kExists : file.error().code;
    };
    EXPECT_EQ(code(folder() + "/missing", {}), Errc::kNotFound);
    {
        const File made = create("taken");
    }
    EXPECT_EQ(code(folder() + "/taken", {.create = true, .exclusive = true}), Errc::kExists);
    EXPECT_EQ(code("/proc/self/comm", {.read_only = true}),
              Errc::kUnsupported);  // no O_DIRECT there
}

TEST_F(FileTest, ReadOnlyFileRefusesWrites) {
    {
        const File made = create("ro");
    }
    auto file = File::open(*reactor_, folder() + "/ro", OpenOptions{.read_only = true});
    ASSERT_TRUE(file);
    Buffer buffer = pool_->try_acquire(kPageBytes);
    EXPECT_FALSE(run(file->write(0, buffer.span())));
}

TEST_F(FileTest, FullDeviceIsNoSpace) {
    auto file = File::open(*reactor_, "/dev/full", OpenOptions{.direct = false});
    ASSERT_TRUE(file) << to_string(file.error());
    Buffer buffer = pool_->try_acquire(kPageBytes);
    const auto result = run(file->write(0, buffer.span()));
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::kNoSpace);
}

TEST_F(FileTest, WriteThatIsCutShortGoesOnToItsError) {
    // A file size limit takes the first half; the rest fails. Nothing may look written.
    File file = create("limited");
    rlimit old{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
    rlimit small = old;
    small.rlim_cur = kPageBytes;
    const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    Buffer buffer = pool_->try_acquire(4 * kPageBytes);
    const auto result = run(file.write(0, buffer.span()));
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    std::signal(SIGXFSZ, old_handler);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().sys_errno, EFBIG);
}

TEST_F(FileTest, MovedFilesCloseOnce) {
    File file = create("moved");
    const int fd = file.ref().fd;
    File other = std::move(file);
    EXPECT_FALSE(file.is_open());  // NOLINT(bugprone-use-after-move): that is the question
    EXPECT_EQ(other.ref().fd, fd);
    other = create("second");
    EXPECT_EQ(fcntl(fd, F_GETFD), -1);
    other.close_now();
    other.close_now();
}

}  // namespace
}  // namespace ublkd::io
