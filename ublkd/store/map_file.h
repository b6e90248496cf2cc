// The maps of a replica on disk: file `maps`, first the activity map (a bit for each 4 MiB), then
// the allocated map and two dirty maps (a bit for each 64 KiB), in pages of eight 512-byte sectors,
// each of which carries its own checksum, kind, place and owner. A sector is what a disk writes
// whole, so a torn page is a mix of valid sectors, each old or new. Bytes: docs/format-replica.md.
//
// A PersistentMap keeps two bitmaps: `bits`, what is wanted, and `on_disk`, what is certainly set
// on disk. Whoever needs a bit on disk sets it and awaits make_durable(); all who do so while a
// write is under way share the next one. Owner: the replica's store, on its reactor. The writer has
// its own memory and waits for no buffer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ublkd/base/ids.h"
#include "ublkd/io/aligned_memory.h"
#include "ublkd/store/bitmap.h"
#include "ublkd/store/disk_file.h"
#include "ublkd/store/shared_round.h"

namespace ublkd::store {

enum class MapKind : std::uint8_t { kActivity = 1, kAllocated = 2, kDirty = 3, kDirtyToo = 4 };

inline constexpr std::uint32_t kMapVersion = 1;
inline constexpr std::size_t kMapSectorBytes = kSectorBytes;
inline constexpr std::size_t kMapHeaderBytes = 32;
inline constexpr std::uint64_t kMapSectorWords = (kMapSectorBytes - kMapHeaderBytes) / 8;  // 60
inline constexpr std::uint64_t kMapPageWords =
    kMapSectorWords * (kPageBytes / kMapSectorBytes);              // 480
inline constexpr std::uint64_t kMapPageBits = kMapPageWords * 64;  // 30720

struct MapSectorPlace {
    MapKind kind;
    ReplicaId incarnation;
    std::uint32_t index = 0;  // of the sector in its map
};
/// Encodes words [place.index * kMapSectorWords, ...) of `bits`; what lies past its end is zero.
void encode_map_sector(const MapSectorPlace& place, const Bitmap& bits,
                       std::span<std::byte, kMapSectorBytes> sector);
/// The reverse, into `bits`. Errors: kCorrupt (magic, checksum, kind, place or owner); kUnsupported
/// (version).
Result<void> decode_map_sector(const MapSectorPlace& place,
                               std::span<const std::byte, kMapSectorBytes> sector, Bitmap& bits);

class PersistentMap {
  public:
    /// `file` is shared by the maps of a replica and outlives them. `offset_bytes`: of the map in
    /// it, whole pages.
    PersistentMap(DiskFile* file, MapKind kind, ReplicaId incarnation, std::uint64_t bits,
                  std::uint64_t offset_bytes);
    PersistentMap(const PersistentMap&) = delete;
    PersistentMap& operator=(const PersistentMap&) = delete;

    static std::uint64_t bytes_for(std::uint64_t bits) {
        return divide_up(bits, kMapPageBits) * kPageBytes;
    }

    /// Writes all pages of a new map, all bits clear.
    io::Task<Result<void>> format();
    /// Reads all pages. kCorrupt, kUnsupported, kIo.
    io::Task<Result<void>> load();

    const Bitmap& bits() const { return bits_; }
    bool test(std::uint64_t bit) const { return bits_.test(bit); }
    bool on_disk(std::uint64_t bit) const { return on_disk_.test(bit); }
    /// True where disk has at least what is wanted of this word.
    bool word_on_disk(std::uint64_t word) const {
        return (bits_.word(word) & ~on_disk_.word(word)) == 0;
    }

    void set(std::uint64_t bit) {
        bits_.set(bit);
        dirty_pages_.set(bit / kMapPageBits);
    }
    /// The bit counts as not on disk from now on, since a write of its page may begin at any time.
    void clear(std::uint64_t bit) {
        bits_.clear(bit);
        on_disk_.clear(bit);
        dirty_pages_.set(bit / kMapPageBits);
    }
    /// Of a bit that is set and not on_disk(): whether the write that is under way brings it there.
    bool is_being_written(std::uint64_t bit) const {
        return !dirty_pages_.test(bit / kMapPageBits);
    }
    /// What bits() says now is on disk when it has ended; with `being_written`, where
    /// is_being_written() holds for all that the caller needs, the write under way will do. After
    /// an error other than kNoSpace the replica is out.
    io::Task<Result<void>> make_durable(bool being_written = false) {
        return writing_.run(being_written);
    }
    std::uint64_t writes() const { return writes_; }

  private:
    static constexpr std::uint64_t kRunPages = 16;  // of one write
    static io::Task<Result<void>> round(void* self);
    io::Task<Result<void>> write_dirty();
    io::Task<Result<void>> write_run(std::uint64_t first_page, std::uint64_t pages);
    void encode_run(std::uint64_t first_page, std::uint64_t pages);
    template <class Step>
    void each_word(std::uint64_t first_page, std::uint64_t pages, Step step);

    DiskFile* file_;
    MapKind kind_;
    ReplicaId incarnation_;
    std::uint64_t offset_bytes_;
    std::uint64_t pages_;
    Bitmap bits_;
    Bitmap on_disk_;
    Bitmap dirty_pages_;
    io::AlignedMemory run_;
    SharedRound writing_;
    std::optional<Error> failed_;  // R14: nothing is written any more
    std::uint64_t writes_ = 0;
};

}  // namespace ublkd::store
