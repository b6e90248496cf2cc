// DiskFile and DiskFolder over the kernel: files of one replica through the reactor's ring. Fault
// point: store.disk (broken_disk.h).
#pragma once

#include <memory>
#include <string>

#include "ublkd/base/fd.h"
#include "ublkd/io/file.h"
#include "ublkd/store/broken_disk.h"
#include "ublkd/store/disk_file.h"

namespace ublkd::store {

class RealDiskFile final : public DiskFile {
  public:
    RealDiskFile(io::File file, BrokenDisk broken)
        : file_(std::move(file)), broken_(std::move(broken)) {}

    /// flock(2) of the open file that all our requests go through: each one in flight holds on to
    /// it.
    Result<void> try_lock() override;
    void start() override { file_.start(); }
    std::uint32_t alignment_bytes() const override { return file_.alignment_bytes(); }
    Result<std::uint64_t> size_bytes() const override { return file_.size_bytes(); }
    Result<void> set_size(std::uint64_t size_bytes) override;
    Result<Range> next_data(std::uint64_t from_bytes) const override;
    io::Task<Result<void>> read(std::uint64_t offset_bytes, std::span<std::byte> into) override;
    io::Task<Result<void>> write(std::uint64_t offset_bytes, std::span<const std::byte> from,
                                 Durability durability) override;
    io::Task<Result<void>> sync() override;
    io::Task<Result<void>> zero(ZeroMode mode, Range range) override;

  private:
    io::Task<Result<void>> write_durable(std::uint64_t offset_bytes,
                                         std::span<const std::byte> from);
    io::File file_;
    BrokenDisk broken_;
};

/// `<parent>/<name>`; while it is made `<parent>/<name>.making`. The lock is flock(2) on the
/// folder.
class RealDiskFolder final : public DiskFolder {
  public:
    RealDiskFolder(io::Reactor& reactor, std::string path);
    ~RealDiskFolder() override = default;

    Result<void> try_lock() override;
    Result<std::unique_ptr<DiskFile>> open(const char* name, OpenMode mode) override;
    Result<void> begin_making() override;
    Result<void> publish() override;
    void abandon() noexcept override;

  private:
    std::string folder() const;

    io::Reactor* reactor_;
    std::string path_;
    bool making_ = false;
    Fd lock_;
};

}  // namespace ublkd::store
