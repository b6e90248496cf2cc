// The content of a sector that a load writes: it says who wrote it, in which operation, and for
// which sector, and it is told from half of it by a checksum. Little-endian:
//   0 magic "ublkdHST"   8 sequence u64   16 sector u64   24 writer u32   28 filling   508 CRC-32C
// The filling is drawn from the other fields, so that no two stamps have bytes in common by design.
#pragma once

#include <cstddef>
#include <span>

#include "tests/history/history.h"
#include "ublkd/base/units.h"

namespace ublkd::history {

void write_stamp(std::span<std::byte, kSectorBytes> into, OperationId by, std::uint64_t sector);

/// What lies in sector `sector` (`count` is 1).
Seen read_stamp(std::span<const std::byte, kSectorBytes> from, std::uint64_t sector);

/// The sectors from `sector` on, equal neighbours together.
std::vector<Seen> read_stamps(std::span<const std::byte> from, std::uint64_t sector);

}  // namespace ublkd::history
