#include "ublkd/store/map_file.h"

#include <algorithm>
#include <cstring>

#include "ublkd/base/bytes.h"
#include "ublkd/base/check.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::store {
namespace {

// docs/format-replica.md, "maps".
constexpr std::uint32_t kMapMagic = 0x504d4c55;  // "ULMP"
constexpr std::size_t kMapVersionAt = 4;
constexpr std::size_t kKindAt = 6;
constexpr std::size_t kIncarnationAt = 8;
constexpr std::size_t kIndexAt = 16;
constexpr std::size_t kMapChecksumAt = 20;
constexpr std::uint64_t kPageSectors = kPageBytes / kMapSectorBytes;
static_assert(kMapSectorWords * 8 + kMapHeaderBytes == kMapSectorBytes);

std::uint32_t checksum(std::span<const std::byte, kMapSectorBytes> sector) {
    constexpr std::array<std::byte, 4> kZero{};
    std::uint32_t crc = crc32c(sector.first(kMapChecksumAt));
    crc = crc32c(kZero, crc);
    return crc32c(sector.subspan(kMapChecksumAt + 4), crc);
}

}  // namespace

void encode_map_sector(const MapSectorPlace& place, const Bitmap& bits,
                       std::span<std::byte, kMapSectorBytes> sector) {
    std::byte* const at = sector.data();
    std::memset(at, 0, sector.size());
    store_le<std::uint32_t>(at, kMapMagic);
    store_le<std::uint16_t>(at + kMapVersionAt, kMapVersion);
    store_le<std::uint8_t>(at + kKindAt, static_cast<std::uint8_t>(place.kind));
    store_le<std::uint64_t>(at + kIncarnationAt, place.incarnation.value());
    store_le<std::uint32_t>(at + kIndexAt, place.index);
    const std::uint64_t first = place.index * kMapSectorWords;
    for (std::uint64_t i = 0; i < kMapSectorWords && first + i < bits.words(); ++i)
        store_le<std::uint64_t>(at + kMapHeaderBytes + i * 8, bits.word(first + i));
    store_le<std::uint32_t>(at + kMapChecksumAt, checksum(sector));
}

Result<void> decode_map_sector(const MapSectorPlace& place,
                               std::span<const std::byte, kMapSectorBytes> sector, Bitmap& bits) {
    const std::byte* const at = sector.data();
    if (load_le<std::uint32_t>(at) != kMapMagic) return fail(Errc::kCorrupt, "map: magic");
    if (load_le<std::uint32_t>(at + kMapChecksumAt) != checksum(sector))
        return fail(Errc::kCorrupt, "map: checksum");
    if (load_le<std::uint16_t>(at + kMapVersionAt) != kMapVersion)
        return fail(Errc::kUnsupported, "map: format version");
    if (load_le<std::uint8_t>(at + kKindAt) != static_cast<std::uint8_t>(place.kind) ||
        load_le<std::uint32_t>(at + kIndexAt) != place.index)
        return fail(Errc::kCorrupt, "map: not where it was written");
    if (load_le<std::uint64_t>(at + kIncarnationAt) != place.incarnation.value())
        return fail(Errc::kCorrupt, "map: of another replica");
    const std::uint64_t first = place.index * kMapSectorWords;
    for (std::uint64_t i = 0; i < kMapSectorWords; ++i) {
        const auto word = load_le<std::uint64_t>(at + kMapHeaderBytes + i * 8);
        const std::uint64_t begin = (first + i) * 64;
        const std::uint64_t left = begin < bits.size() ? bits.size() - begin : 0;
        if (word != 0 && (left == 0 || (left < 64 && word >> left != 0)))
            return fail(Errc::kCorrupt, "map: bits past its end");
        if (left > 0) bits.set_word(first + i, word);
    }
    return {};
}

PersistentMap::PersistentMap(DiskFile* file, MapKind kind, ReplicaId incarnation,
                             std::uint64_t bits, std::uint64_t offset_bytes)
    : file_(file),
      kind_(kind),
      incarnation_(incarnation),
      offset_bytes_(offset_bytes),
      pages_(divide_up(bits, kMapPageBits)),
      bits_(bits),
      on_disk_(bits),
      dirty_pages_(pages_),
      run_(kRunPages * kPageBytes),
      writing_(&PersistentMap::round, this) {
    CHECK(run_, "memory for a map's pages");
}

void PersistentMap::encode_run(std::uint64_t first_page, std::uint64_t pages) {
    for (std::uint64_t i = 0; i < pages * kPageSectors; ++i) {
        const MapSectorPlace place{kind_, incarnation_,
                                   static_cast<std::uint32_t>(first_page * kPageSectors + i)};
        encode_map_sector(place, bits_,
                          std::span<std::byte, kMapSectorBytes>(run_.data() + i * kMapSectorBytes,
                                                                kMapSectorBytes));
    }
}

template <class Step>
void PersistentMap::each_word(std::uint64_t first_page, std::uint64_t pages, Step step) {
    const std::uint64_t first = first_page * kMapPageWords;
    const std::uint64_t end = std::min(bits_.words(), first + pages * kMapPageWords);
    for (std::uint64_t word = first; word < end; ++word) {
        const std::uint64_t in_run = word - first;
        step(word, load_le<std::uint64_t>(run_.data() + in_run / kMapSectorWords * kMapSectorBytes +
                                          kMapHeaderBytes + in_run % kMapSectorWords * 8));
    }
}

io::Task<Result<void>> PersistentMap::format() {
    for (std::uint64_t page = 0; page < pages_; page += kRunPages) {
        CO_TRY(co_await write_run(page, std::min(kRunPages, pages_ - page)));
    }
    co_return Result<void>{};
}

io::Task<Result<void>> PersistentMap::load() {
    for (std::uint64_t page = 0; page < pages_; page += kRunPages) {
        const std::uint64_t pages = std::min(kRunPages, pages_ - page);
        const std::span<std::byte> into = run_.span().first(pages * kPageBytes);
        CO_TRY(co_await file_->read(offset_bytes_ + page * kPageBytes, into));
        for (std::uint64_t i = 0; i < pages * kPageSectors; ++i) {
            const MapSectorPlace place{kind_, incarnation_,
                                       static_cast<std::uint32_t>(page * kPageSectors + i)};
            CO_TRY(decode_map_sector(place,
                                     std::span<std::byte, kMapSectorBytes>(
                                         run_.data() + i * kMapSectorBytes, kMapSectorBytes),
                                     bits_));
        }
    }
    on_disk_ = bits_;
    co_return Result<void>{};
}

io::Task<Result<void>> PersistentMap::round(void* self) {
    return static_cast<PersistentMap*>(self)->write_dirty();
}

io::Task<Result<void>> PersistentMap::write_dirty() {
    if (failed_) co_return fail(*failed_);
    for (std::uint64_t page = dirty_pages_.find_set(0); page < pages_;
         page = dirty_pages_.find_set(page)) {
        const std::uint64_t end = std::min(dirty_pages_.find_clear(page), page + kRunPages);
        const Result<void> written = co_await write_run(page, end - page);
        if (!written) {
            if (written.error().code != Errc::kNoSpace) failed_ = written.error();
            co_return written;
        }
        page = end;
    }
    co_return Result<void>{};
}

io::Task<Result<void>> PersistentMap::write_run(std::uint64_t first_page, std::uint64_t pages) {
    if (const int error = faults::hit("store.map_write")) co_return fail_errno(error, "write map");
    encode_run(first_page, pages);
    for (std::uint64_t page = first_page; page < first_page + pages; ++page)
        dirty_pages_.clear(page);
    ++writes_;
    const std::span<const std::byte> bytes = run_.span().first(pages * kPageBytes);
    const Result<void> written =
        co_await file_->write(offset_bytes_ + first_page * kPageBytes, bytes, Durability::kDurable);
    if (!written) {
        for (std::uint64_t page = first_page; page < first_page + pages; ++page)
            dirty_pages_.set(page);
        co_return written;
    }
    if (const int error = faults::hit("store.after_map_write"))
        co_return fail_errno(error, "write map");
    // What was cleared meanwhile stays "not on disk": its page is dirty again, and its bit is set
    // anew first.
    each_word(first_page, pages, [this](std::uint64_t word, std::uint64_t written_word) {
        on_disk_.set_word(word, written_word & bits_.word(word));
    });
    co_return Result<void>{};
}

}  // namespace ublkd::store
