// A layer between SQLite and its file system that knows what is on stable storage. Every write
// since a file's last sync may or may not survive a power cut: image() builds what a machine would
// find afterwards, each unsynced write kept or dropped by the seed. It can also fail syncs and
// writes. Registered as SQLite's default while it lives; one at a time. Not thread-safe beyond what
// one store does: changes are recorded under a mutex.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace ublkd::metadata::test {

class RecordingVfs {
  public:
    RecordingVfs();
    RecordingVfs(const RecordingVfs&) = delete;
    RecordingVfs& operator=(const RecordingVfs&) = delete;
    ~RecordingVfs();

    /// Called before each write, truncate and sync of a file; taking images is its use.
    std::function<void()> before_change;
    bool fail_syncs = false;
    std::string fail_syncs_of;  // the base name of a file whose syncs fail
    bool fail_writes = false;   // as a full disk does

    /// Writes into `folder` what a power cut now would leave of the recorded files, by their base
    /// names.
    void image(const std::string& folder, std::mt19937_64& random);
    int syncs() const { return syncs_; }

    // For the layer's functions.
    struct Change {
        std::uint64_t offset_bytes = 0;
        std::string data;
        std::optional<std::uint64_t> truncate_bytes;
    };
    struct Content {
        std::string durable;
        std::vector<Change> unsynced;
    };
    int change(const std::string& path, Change change);
    int sync(const std::string& path);
    void removed(const std::string& path);
    sqlite3_vfs* below() { return below_; }

  private:
    sqlite3_vfs* below_;
    sqlite3_vfs layer_{};
    std::recursive_mutex mutex_;
    std::map<std::string, Content> files_;
    int syncs_ = 0;
};

}  // namespace ublkd::metadata::test
