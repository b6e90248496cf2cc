#include "ublkd/base/crc32c.h"

#include <array>

#include "ublkd/base/bytes.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace ublkd {
namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit)
            value = (value >> 1) ^ ((value & 1) != 0 ? 0x82f63b78U : 0U);
        table[i] = value;
    }
    return table;
}
constexpr auto kTable = make_table();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc32c_sse42(std::span<const std::byte> data,
                                                             std::uint32_t seed) noexcept {
    std::uint64_t crc = ~seed;
    const std::byte* at = data.data();
    std::size_t left = data.size();
    for (; left >= 8; left -= 8, at += 8) crc = _mm_crc32_u64(crc, load_le<std::uint64_t>(at));
    auto crc32 = static_cast<std::uint32_t>(crc);
    for (; left > 0; --left, ++at) crc32 = _mm_crc32_u8(crc32, static_cast<std::uint8_t>(*at));
    return ~crc32;
}
#endif

}  // namespace

std::uint32_t crc32c_portable(std::span<const std::byte> data, std::uint32_t seed) noexcept {
    std::uint32_t crc = ~seed;
    for (const std::byte b : data)
        crc = (crc >> 8) ^ kTable[(crc ^ static_cast<std::uint32_t>(b)) & 0xffU];
    return ~crc;
}

std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t seed) noexcept {
#if defined(__x86_64__)
    static const bool kHasSse42 = __builtin_cpu_supports("sse4.2") != 0;
    if (kHasSse42) return crc32c_sse42(data, seed);
#endif
    return crc32c_portable(data, seed);
}

}  // namespace ublkd
