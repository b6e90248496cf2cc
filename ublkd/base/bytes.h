// Reading and writing integers of fixed byte order in buffers (our formats are little-endian, NBD
// is big-endian).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace ublkd {

static_assert(std::endian::native == std::endian::little, "on-disk structs are used in place");

template <class T>
    requires std::is_integral_v<T>
T load_le(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class T>
    requires std::is_integral_v<T>
void store_le(std::byte* to, T value) noexcept {
    std::memcpy(to, &value, sizeof value);
}

template <class T>
    requires std::is_integral_v<T>
constexpr T byte_swapped(T value) noexcept {
    if constexpr (sizeof(T) == 1) return value;
    if constexpr (sizeof(T) == 2)
        return static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
    if constexpr (sizeof(T) == 4)
        return static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
    if constexpr (sizeof(T) == 8)
        return static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
}
template <class T>
    requires std::is_integral_v<T>
T load_be(const std::byte* from) noexcept {
    return byte_swapped(load_le<T>(from));
}
template <class T>
    requires std::is_integral_v<T>
void store_be(std::byte* to, T value) noexcept {
    store_le(to, byte_swapped(value));
}

inline bool is_all_zero(std::span<const std::byte> data) noexcept {
    return data.empty() || (data[0] == std::byte{0} &&
                            std::memcmp(data.data(), data.data() + 1, data.size() - 1) == 0);
}

}  // namespace ublkd
