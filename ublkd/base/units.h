// Sizes and ranges of the data path, with their units in their names.
#pragma once

#include <compare>
#include <cstdint>

namespace ublkd {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kTiB = 1024 * kGiB;

inline constexpr std::uint32_t kSectorBytes = 512;  // the unit of guest addresses
inline constexpr std::uint32_t kPageBytes = 4096;   // physical block: what a disk writes whole
inline constexpr std::uint32_t kDirtyUnitBytes = 64 * 1024;     // dirty and allocated maps
inline constexpr std::uint32_t kRegionBytes = 4 * 1024 * 1024;  // activity map
inline constexpr std::uint32_t kMaxIoBytes =
    512 * 1024;  // largest data request below the front ends

/// A part of a volume: [offset_bytes, offset_bytes + length_bytes).
struct Range {
    std::uint64_t offset_bytes = 0;
    std::uint64_t length_bytes = 0;

    constexpr std::uint64_t end_bytes() const { return offset_bytes + length_bytes; }
    constexpr bool overlaps(const Range& other) const {
        return offset_bytes < other.end_bytes() && other.offset_bytes < end_bytes();
    }
    friend constexpr auto operator<=>(const Range&, const Range&) = default;
};

constexpr bool is_power_of_two(std::uint64_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t unit) { return value % unit == 0; }
constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t unit) {
    return value - value % unit;
}
/// `value` must be at most 2^64 - unit.
constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) {
    return align_down(value + unit - 1, unit);
}
constexpr std::uint64_t divide_up(std::uint64_t value, std::uint64_t unit) {
    return value / unit + (value % unit != 0 ? 1 : 0);
}
/// The smallest aligned range that holds `range`.
constexpr Range align_out(const Range& range, std::uint64_t unit) {
    const std::uint64_t begin = align_down(range.offset_bytes, unit);
    return Range{begin, align_up(range.end_bytes(), unit) - begin};
}

}  // namespace ublkd
