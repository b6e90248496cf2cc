#include "tests/history/stamp.h"

#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"

namespace ublkd::history {
namespace {

constexpr std::uint64_t kStampMagic = 0x5453'4864'6b6c'6275;  // "ublkdHST"
constexpr std::size_t kSequenceAt = 8;
constexpr std::size_t kSectorAt = 16;
constexpr std::size_t kWriterAt = 24;
constexpr std::size_t kFillingAt = 28;
constexpr std::size_t kChecksumAt = 508;

/// splitmix64: one step.
std::uint64_t next(std::uint64_t& state) {
    std::uint64_t z = state += 0x9e37'79b9'7f4a'7c15;
    z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
    z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
    return z ^ (z >> 31);
}

}  // namespace

void write_stamp(std::span<std::byte, kSectorBytes> into, OperationId by, std::uint64_t sector) {
    store_le(into.data(), kStampMagic);
    store_le(into.data() + kSequenceAt, by.sequence);
    store_le(into.data() + kSectorAt, sector);
    store_le(into.data() + kWriterAt, by.writer);
    std::uint64_t state = by.sequence ^ (std::uint64_t{by.writer} << 32) ^ (sector << 16);
    for (std::size_t at = kFillingAt; at < kChecksumAt; at += sizeof state)
        store_le(into.data() + at, next(state));
    store_le(into.data() + kChecksumAt, crc32c(into.first<kChecksumAt>()));
}

Seen read_stamp(std::span<const std::byte, kSectorBytes> from, std::uint64_t sector) {
    if (is_all_zero(from)) return Seen{.count = 1};
    const bool whole =
        load_le<std::uint64_t>(from.data()) == kStampMagic &&
        load_le<std::uint32_t>(from.data() + kChecksumAt) == crc32c(from.first<kChecksumAt>());
    if (!whole) return Seen{.what = Seen::What::kTorn, .count = 1};
    Seen seen{.what = Seen::What::kStamp,
              .by = OperationId{load_le<std::uint32_t>(from.data() + kWriterAt),
                                load_le<std::uint64_t>(from.data() + kSequenceAt)},
              .address = load_le<std::uint64_t>(from.data() + kSectorAt),
              .count = 1};
    if (seen.address == sector)
        seen.address = 0;
    else
        seen.what = Seen::What::kMisplaced;
    return seen;
}

std::vector<Seen> read_stamps(std::span<const std::byte> from, std::uint64_t sector) {
    std::vector<Seen> all;
    for (std::size_t at = 0; at < from.size(); at += kSectorBytes, ++sector) {
        const Seen seen = read_stamp(from.subspan(at).first<kSectorBytes>(), sector);
        if (!all.empty() && all.back().what == seen.what && all.back().by == seen.by &&
            seen.what != Seen::What::kMisplaced)
            ++all.back().count;
        else
            all.push_back(seen);
    }
    return all;
}

}  // namespace ublkd::history
