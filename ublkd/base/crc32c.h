// CRC-32C (Castagnoli, reflected, as in RFC 3720 B.4): SSE4.2 where the processor has it, a table
// elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ublkd {

/// The CRC of `data` continued from `seed` (0 for a new one). crc32c("123456789") is 0xe3069283.
std::uint32_t crc32c(std::span<const std::byte> data, std::uint32_t seed = 0) noexcept;

/// The table version, for processors without the instruction; tests hold both against each other.
std::uint32_t crc32c_portable(std::span<const std::byte> data, std::uint32_t seed = 0) noexcept;

}  // namespace ublkd
