#include "tests/unit/metadata/recording_vfs.h"

#include <cstring>
#include <filesystem>
#include <fstream>

namespace ublkd::metadata::test {
namespace {

RecordingVfs* recorder = nullptr;

/// What SQLite holds for an open file; the file of the VFS below follows it in memory.
struct LayerFile {
    sqlite3_file base;
    std::string* path;
    sqlite3_file* below;
};

sqlite3_file* below(sqlite3_file* file) { return reinterpret_cast<LayerFile*>(file)->below; }
const std::string& path_of(sqlite3_file* file) { return *reinterpret_cast<LayerFile*>(file)->path; }

int on_close(sqlite3_file* file) {
    const int code = below(file)->pMethods->xClose(below(file));
    delete reinterpret_cast<LayerFile*>(file)->path;
    return code;
}
int on_read(sqlite3_file* file, void* to, int length, sqlite3_int64 offset) {
    return below(file)->pMethods->xRead(below(file), to, length, offset);
}
int on_write(sqlite3_file* file, const void* from, int length, sqlite3_int64 offset) {
    RecordingVfs::Change change;
    change.offset_bytes = static_cast<std::uint64_t>(offset);
    change.data.assign(static_cast<const char*>(from), static_cast<std::size_t>(length));
    if (const int code = recorder->change(path_of(file), std::move(change)); code != SQLITE_OK)
        return code;
    return below(file)->pMethods->xWrite(below(file), from, length, offset);
}
int on_truncate(sqlite3_file* file, sqlite3_int64 size) {
    RecordingVfs::Change change;
    change.truncate_bytes = static_cast<std::uint64_t>(size);
    if (const int code = recorder->change(path_of(file), std::move(change)); code != SQLITE_OK)
        return code;
    return below(file)->pMethods->xTruncate(below(file), size);
}
int on_sync(sqlite3_file* file, int flags) {
    if (const int code = recorder->sync(path_of(file)); code != SQLITE_OK) return code;
    return below(file)->pMethods->xSync(below(file), flags);
}
int on_file_size(sqlite3_file* file, sqlite3_int64* size) {
    return below(file)->pMethods->xFileSize(below(file), size);
}
int on_lock(sqlite3_file* file, int level) {
    return below(file)->pMethods->xLock(below(file), level);
}
int on_unlock(sqlite3_file* file, int level) {
    return below(file)->pMethods->xUnlock(below(file), level);
}
int on_check_lock(sqlite3_file* file, int* held) {
    return below(file)->pMethods->xCheckReservedLock(below(file), held);
}
int on_control(sqlite3_file* file, int operation, void* argument) {
    return below(file)->pMethods->xFileControl(below(file), operation, argument);
}
int on_sector_size(sqlite3_file* file) { return below(file)->pMethods->xSectorSize(below(file)); }
/// None promised: no atomic writes, no safe append, and a torn neighbour is possible.
int on_characteristics(sqlite3_file*) { return 0; }
int on_shm_map(sqlite3_file* file, int page, int size, int extend, volatile void** to) {
    return below(file)->pMethods->xShmMap(below(file), page, size, extend, to);
}
int on_shm_lock(sqlite3_file* file, int offset, int count, int flags) {
    return below(file)->pMethods->xShmLock(below(file), offset, count, flags);
}
void on_shm_barrier(sqlite3_file* file) { below(file)->pMethods->xShmBarrier(below(file)); }
int on_shm_unmap(sqlite3_file* file, int remove) {
    return below(file)->pMethods->xShmUnmap(below(file), remove);
}

const sqlite3_io_methods kMethods = {2,
                                     on_close,
                                     on_read,
                                     on_write,
                                     on_truncate,
                                     on_sync,
                                     on_file_size,
                                     on_lock,
                                     on_unlock,
                                     on_check_lock,
                                     on_control,
                                     on_sector_size,
                                     on_characteristics,
                                     on_shm_map,
                                     on_shm_lock,
                                     on_shm_barrier,
                                     on_shm_unmap,
                                     nullptr,
                                     nullptr};

int on_open(sqlite3_vfs*, const char* name, sqlite3_file* file, int flags, int* flags_out) {
    auto* layer = reinterpret_cast<LayerFile*>(file);
    layer->base.pMethods = nullptr;
    layer->below = reinterpret_cast<sqlite3_file*>(layer + 1);
    const int code =
        recorder->below()->xOpen(recorder->below(), name, layer->below, flags, flags_out);
    if (code != SQLITE_OK) return code;
    layer->path = new std::string(name == nullptr ? "" : name);
    layer->base.pMethods = &kMethods;
    return SQLITE_OK;
}
int on_delete(sqlite3_vfs*, const char* name, int sync_folder) {
    recorder->removed(name);
    return recorder->below()->xDelete(recorder->below(), name, sync_folder);
}

void apply(std::string& content, const RecordingVfs::Change& change) {
    if (change.truncate_bytes) {
        content.resize(*change.truncate_bytes);
        return;
    }
    if (content.size() < change.offset_bytes + change.data.size())
        content.resize(change.offset_bytes + change.data.size());
    content.replace(change.offset_bytes, change.data.size(), change.data);
}

}  // namespace

RecordingVfs::RecordingVfs() : below_(sqlite3_vfs_find(nullptr)) {
    recorder = this;
    layer_ = *below_;
    layer_.zName = "recording";
    layer_.szOsFile = static_cast<int>(sizeof(LayerFile)) + below_->szOsFile;
    layer_.xOpen = on_open;
    layer_.xDelete = on_delete;
    sqlite3_vfs_register(&layer_, 1);
}

RecordingVfs::~RecordingVfs() {
    sqlite3_vfs_unregister(&layer_);
    sqlite3_vfs_register(below_, 1);
    recorder = nullptr;
}

int RecordingVfs::change(const std::string& path, Change change) {
    const std::lock_guard guard(mutex_);
    if (before_change) before_change();
    if (fail_writes && !change.truncate_bytes) return SQLITE_FULL;
    files_[path].unsynced.push_back(std::move(change));
    return SQLITE_OK;
}

int RecordingVfs::sync(const std::string& path) {
    const std::lock_guard guard(mutex_);
    if (before_change) before_change();
    if (fail_syncs || std::filesystem::path(path).filename() == fail_syncs_of)
        return SQLITE_IOERR_FSYNC;
    ++syncs_;
    Content& file = files_[path];
    for (const Change& change : file.unsynced) apply(file.durable, change);
    file.unsynced.clear();
    return SQLITE_OK;
}

void RecordingVfs::removed(const std::string& path) {
    const std::lock_guard guard(mutex_);
    files_.erase(path);
}

void RecordingVfs::image(const std::string& folder, std::mt19937_64& random) {
    const std::lock_guard guard(mutex_);
    for (const auto& [path, file] : files_) {
        std::string content = file.durable;
        for (const Change& change : file.unsynced) {
            if (random() % 2 == 0) apply(content, change);
        }
        std::ofstream out(folder + "/" + std::filesystem::path(path).filename().string(),
                          std::ios::binary);
        out.write(content.data(), static_cast<std::streamsize>(content.size()));
    }
}

}  // namespace ublkd::metadata::test
