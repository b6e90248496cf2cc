#include "tests/crash/recorded_disk.h"

#include <cerrno>

#include "ublkd/base/check.h"
#include "ublkd/io/reactor.h"

namespace ublkd::crash {

class RecordedFile final : public store::DiskFile {
  public:
    RecordedFile(RecordedDisk* disk, std::size_t index, bool direct)
        : disk_(disk), index_(index), direct_(direct) {}

    Result<void> try_lock() override { return {}; }
    void start() override {}
    std::uint32_t alignment_bytes() const override { return direct_ ? kSectorBytes : 1; }
    Result<std::uint64_t> size_bytes() const override { return file().size_bytes; }
    Result<void> set_size(std::uint64_t size_bytes) override {
        file().size_bytes = size_bytes;
        return {};
    }
    Result<Range> next_data(std::uint64_t from_bytes) const override {
        if (disk_->no_seek_) return fail(Errc::kUnsupported, "find data");
        const Range found = file().bytes.next_data(from_bytes);
        return found.length_bytes == 0 ? Range{file().size_bytes, 0} : found;
    }
    io::Task<Result<void>> read(std::uint64_t offset_bytes, std::span<std::byte> into) override {
        CHECK(!direct_ || is_aligned(reinterpret_cast<std::uintptr_t>(into.data()) | offset_bytes |
                                         into.size(),
                                     512),
              "what O_DIRECT takes");
        co_await disk_->take_time();
        if (std::exchange(disk_->fail_next_read_, false))
            co_return fail(Errc::kExhausted, "read", ENOMEM);
        if (offset_bytes + into.size() > file().size_bytes)
            co_return fail(Errc::kCorrupt, "read past the end");
        file().bytes.read(offset_bytes, into);
        co_return Result<void>{};
    }
    io::Task<Result<void>> write(std::uint64_t offset_bytes, std::span<const std::byte> from,
                                 store::Durability durability) override {
        CHECK(!direct_ || is_aligned(reinterpret_cast<std::uintptr_t>(from.data()) | offset_bytes |
                                         from.size(),
                                     512),
              "what O_DIRECT takes");
        CHECK(offset_bytes + from.size() <= file().size_bytes, "within the file");
        RecordedDisk::Step step;
        step.file = index_;
        step.offset_bytes = offset_bytes;
        step.data.assign(from.begin(), from.end());
        const std::size_t at = disk_->issue(std::move(step));
        co_await disk_->take_time();
        disk_->end(at, durability == store::Durability::kDurable);
        co_return Result<void>{};
    }
    io::Task<Result<void>> sync() override {
        const std::size_t begun = disk_->moment_++;
        co_await disk_->take_time();
        ++disk_->moment_;
        if (disk_->fail_next_sync_ && index_ == 1) {
            disk_->fail_next_sync_ = false;
            disk_->lose_unflushed(index_);
            co_return fail(Errc::kIo, "sync", EIO);
        }
        disk_->synced(index_, begun);
        co_return Result<void>{};
    }
    io::Task<Result<void>> zero(ZeroMode mode, Range range) override {
        if (disk_->no_punch_) co_return fail(Errc::kUnsupported, "zero");
        RecordedDisk::Step step;
        step.file = index_;
        step.offset_bytes = range.offset_bytes;
        step.zero_bytes = range.length_bytes;
        step.keep = mode == ZeroMode::kKeep;
        const std::size_t at = disk_->issue(std::move(step));
        co_await disk_->take_time();
        disk_->end(at, false);
        co_return Result<void>{};
    }

  private:
    DiskImage::File& file() const { return disk_->now_.files[index_]; }
    RecordedDisk* disk_;
    std::size_t index_;
    bool direct_;
};

class RecordedFolder final : public store::DiskFolder {
  public:
    explicit RecordedFolder(RecordedDisk* disk) : disk_(disk) {}

    Result<void> try_lock() override { return {}; }
    Result<std::unique_ptr<store::DiskFile>> open(const char* name, OpenMode mode) override {
        for (std::size_t i = 0; i < DiskImage::kNames.size(); ++i) {
            if (DiskImage::kNames[i] != name) continue;
            if (mode.create == disk_->now_.files[i].exists)
                return fail(mode.create ? Errc::kExists : Errc::kNotFound, "open");
            disk_->now_.files[i].exists = true;
            return std::unique_ptr<store::DiskFile>(new RecordedFile(disk_, i, mode.direct));
        }
        return fail(Errc::kNotFound, "open");
    }
    Result<void> begin_making() override { return {}; }
    Result<void> publish() override { return {}; }
    void abandon() noexcept override {}

  private:
    RecordedDisk* disk_;
};

std::unique_ptr<store::DiskFolder> RecordedDisk::folder() {
    return std::make_unique<RecordedFolder>(this);
}

void RecordedDisk::start_recording() {
    steps_.clear();
    settled_ = 0;
    moment_ = 0;
    base_ = now_;
}

io::Task<void> RecordedDisk::take_time() {
    if (immediate_) co_return;
    for (std::uint64_t turns = 1 + random_() % 4; turns > 0; --turns)
        co_await io::Reactor::current()->yield();
}

std::size_t RecordedDisk::issue(Step step) {
    step.issued = moment_++;
    steps_.push_back(std::move(step));
    return steps_.size() - 1;
}

void RecordedDisk::end(std::size_t index, bool durable) {
    Step& step = steps_[index];
    apply(step, now_, Loss::kNone);
    step.ended = moment_++;
    if (durable) step.durable = moment_;
}

void RecordedDisk::synced(std::size_t file, std::size_t begun) {
    for (Step& step : steps_) {
        if (step.file == file && step.ended < begun && !step.lost && step.durable == kNever)
            step.durable = moment_;
    }
}

void RecordedDisk::lose_unflushed(std::size_t file) {
    for (Step& step : steps_)
        step.lost = step.lost || (step.file == file && step.durable == kNever);
}

void RecordedDisk::apply(const Step& step, DiskImage& to, Loss loss) {
    SparseBytes& bytes = to.files[step.file].bytes;
    if (loss == Loss::kNone) {
        if (step.zero_bytes == 0) {
            bytes.write(step.offset_bytes, step.data);
        } else {
            bytes.zero(Range{step.offset_bytes, step.zero_bytes}, step.keep);
        }
        return;
    }
    const std::uint64_t length = step.zero_bytes == 0 ? step.data.size() : step.zero_bytes;
    for (std::uint64_t at = 0; at < length; at += kSectorBytes) {
        if ((random_() & 1) == 0) continue;
        if (step.zero_bytes == 0) {
            bytes.write(step.offset_bytes + at, std::span(step.data).subspan(at, kSectorBytes));
        } else {
            bytes.zero(Range{step.offset_bytes + at, kSectorBytes}, step.keep);
        }
    }
}

DiskImage RecordedDisk::image_at(std::size_t moment, Loss loss) {
    while (settled_ < steps_.size() && steps_[settled_].durable <= moment)
        apply(steps_[settled_++], base_, Loss::kNone);
    DiskImage image = base_;
    for (std::size_t i = settled_; i < steps_.size() && steps_[i].issued < moment; ++i) {
        if (steps_[i].durable <= moment) {
            apply(steps_[i], image, Loss::kNone);
        } else if (loss == Loss::kNone || (loss == Loss::kRandom && random_() % 3 != 0)) {
            apply(steps_[i], image, random_() % 2 == 0 ? Loss::kNone : loss);
        }
    }
    return image;
}

}  // namespace ublkd::crash
