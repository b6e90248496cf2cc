#include "ublkd/front/ublk/device_channel_linux.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "ublkd/base/units.h"

namespace ublkd::front::ublk {
namespace {

class LinuxChannel final : public DeviceChannel {
  public:
    LinuxChannel(io::Reactor* reactor, int fd, unsigned queues, unsigned depth)
        : reactor_(reactor), file_(reactor->register_fd(fd)), maps_(queues, nullptr) {
        const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        page_bytes_ = page;
        map_bytes_ = align_up(depth * sizeof(uapi::IoDescriptor), page);
    }
    ~LinuxChannel() override {
        const int fd = file_.fd;
        reactor_->unregister_fd(file_);
        for (const uapi::IoDescriptor* const map : maps_) {
            if (map != nullptr) (void)munmap(const_cast<uapi::IoDescriptor*>(map), map_bytes_);
        }
        ::close(fd);
    }

    Result<void> map_descriptors() override {
        for (unsigned queue = 0; queue < maps_.size(); ++queue) {
            void* const at =
                mmap(nullptr, map_bytes_, PROT_READ, MAP_SHARED | MAP_POPULATE, file_.fd,
                     static_cast<off_t>(uapi::descriptor_offset(queue, page_bytes_)));
            if (at == MAP_FAILED) return fail_errno(errno, "map the queue's descriptors");
            (void)madvise(at, map_bytes_,
                          MADV_DONTFORK);  // a child must not keep the device's file alive
            maps_[queue] = static_cast<const uapi::IoDescriptor*>(at);
        }
        return {};
    }

    uapi::IoDescriptor descriptor(unsigned queue, unsigned tag) const override {
        return maps_[queue][tag];
    }

    void fetch(unsigned queue, unsigned tag, io::Completion* completion) override {
        command(uapi::kFetch, queue, tag, 0, completion);
    }
    void commit_and_fetch(unsigned queue, unsigned tag, int result,
                          io::Completion* completion) override {
        command(uapi::kCommitAndFetch, queue, tag, result, completion);
    }

    Result<void> take_data(unsigned queue, unsigned tag, std::span<std::byte> into,
                           std::uint64_t offset) override {
        while (!into.empty()) {
            const ssize_t got = pread(file_.fd, into.data(), into.size(),
                                      static_cast<off_t>(uapi::data_position(queue, tag, offset)));
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0)
                return fail_errno(got < 0 ? errno : EIO, "copy a request's data from the kernel");
            into = into.subspan(static_cast<std::size_t>(got));
            offset += static_cast<std::uint64_t>(got);
        }
        return {};
    }

    Result<void> give_data(unsigned queue, unsigned tag, std::span<const std::byte> from,
                           std::uint64_t offset) override {
        while (!from.empty()) {
            const ssize_t put = pwrite(file_.fd, from.data(), from.size(),
                                       static_cast<off_t>(uapi::data_position(queue, tag, offset)));
            if (put < 0 && errno == EINTR) continue;
            if (put <= 0)
                return fail_errno(put < 0 ? errno : EIO, "copy a request's data to the kernel");
            from = from.subspan(static_cast<std::size_t>(put));
            offset += static_cast<std::uint64_t>(put);
        }
        return {};
    }

  private:
    void command(std::uint32_t operation, unsigned queue, unsigned tag, int result,
                 io::Completion* completion) {
        io_uring_sqe sqe;
        std::memset(&sqe, 0, sizeof sqe);
        sqe.opcode = IORING_OP_URING_CMD;
        sqe.fd = file_.fd;
        if (file_.registered >= 0) {
            sqe.fd = file_.registered;
            sqe.flags = IOSQE_FIXED_FILE;
        }
        sqe.cmd_op = operation;
        const uapi::IoCommand wire{static_cast<std::uint16_t>(queue),
                                   static_cast<std::uint16_t>(tag), result, 0};
        std::memcpy(reinterpret_cast<std::byte*>(&sqe) + offsetof(io_uring_sqe, cmd), &wire,
                    sizeof wire);
        reactor_->submit_until_end(sqe, completion);
    }

    io::Reactor* reactor_;
    io::FdRef file_;
    std::size_t page_bytes_ = 0;
    std::size_t map_bytes_ = 0;
    std::vector<const uapi::IoDescriptor*> maps_;
};

}  // namespace

Result<std::unique_ptr<DeviceChannel>> open_device_channel(io::Reactor* reactor,
                                                           const std::string& path, unsigned queues,
                                                           unsigned depth) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) return fail_errno(errno, "open /dev/ublkcN");
    auto channel = std::make_unique<LinuxChannel>(reactor, fd, queues, depth);
    return std::unique_ptr<DeviceChannel>(std::move(channel));
}

}  // namespace ublkd::front::ublk
