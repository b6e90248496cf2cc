// A disk in memory below the store (store/disk_file.h) that records each write, hole and flush as
// it is issued and as it ends, takes a random time for each, and builds the images that a power cut
// at any of these moments may leave: what is durable is there; of what is not, any subset, torn at
// 512-byte sectors, older before newer.
//
// A write is durable when a flush of its file that began after its end has ended, or at its own end
// where it was written so. A flush that fails loses what it should have made durable: a later flush
// does not bring it back (as Linux does it).
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "tests/crash/sparse_bytes.h"
#include "ublkd/io/task.h"
#include "ublkd/store/disk_file.h"

namespace ublkd::crash {

inline constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

/// The files of one replica.
struct DiskImage {
    static constexpr std::array<std::string_view, 3> kNames{"superblock", "data", "maps"};
    struct File {
        bool exists = false;
        std::uint64_t size_bytes = 0;
        SparseBytes bytes;
    };
    std::array<File, 3> files;
};

class RecordedDisk {
  public:
    explicit RecordedDisk(std::uint64_t seed, DiskImage image = {})
        : now_(std::move(image)), random_(seed) {}
    RecordedDisk(const RecordedDisk&) = delete;
    RecordedDisk& operator=(const RecordedDisk&) = delete;

    /// A replica's folder on this disk, which outlives it.
    std::unique_ptr<store::DiskFolder> folder();

    /// Forgets what was recorded: the present state is where images start from.
    void start_recording();
    /// The present moment: the number of steps (issues and ends) that were recorded.
    std::size_t moment() const { return moment_; }

    /// What is done with the sectors that are not durable at the moment of the cut.
    enum class Loss { kAll, kNone, kRandom };
    /// The image that a cut after `moment` steps leaves. Moments must not decrease over calls.
    DiskImage image_at(std::size_t moment, Loss loss);

    /// The next flush of the data file fails, and what it should have made durable may be lost for
    /// good.
    void fail_next_sync() { fail_next_sync_ = true; }
    /// The next read fails for want of memory.
    void fail_next_read() { fail_next_read_ = true; }
    /// Ends each operation at once instead of after a random time (for reading an image).
    void set_immediate() { immediate_ = true; }
    /// The file system cannot tell holes from data, or cannot punch.
    void set_no_seek() { no_seek_ = true; }
    void set_no_punch() { no_punch_ = true; }

  private:
    friend class RecordedFile;
    friend class RecordedFolder;

    struct Step {
        std::size_t file = 0;
        std::uint64_t offset_bytes = 0;
        std::vector<std::byte> data;   // of a write
        std::uint64_t zero_bytes = 0;  // of a hole
        bool keep = false;
        std::size_t issued = 0;  // moments
        std::size_t ended = kNever;
        std::size_t durable = kNever;
        bool lost = false;  // by a failed flush
    };
    std::size_t issue(Step step);
    void end(std::size_t index, bool durable);
    void synced(std::size_t file, std::size_t begun);
    void lose_unflushed(std::size_t file);
    void apply(const Step& step, DiskImage& to, Loss loss);
    io::Task<void> take_time();

    DiskImage now_;
    DiskImage base_;  // all of steps_[0, settled_) applied
    std::size_t settled_ = 0;
    std::vector<Step> steps_;
    std::size_t moment_ = 0;
    std::mt19937_64 random_;
    bool fail_next_sync_ = false;
    bool fail_next_read_ = false;
    bool immediate_ = false;
    bool no_seek_ = false;
    bool no_punch_ = false;
};

}  // namespace ublkd::crash
