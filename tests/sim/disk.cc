#include "tests/sim/disk.h"

#include <cstring>

namespace ublkd::sim {

using replication::OpKind;

void Disk::apply(const replication::DiskRequest& request, Random* torn) {
    const std::size_t first = request.range.offset_bytes / kSectorBytes;
    for (std::size_t i = 0; i < request.range.length_bytes / kSectorBytes; ++i) {
        if (torn != nullptr && torn->one_in(2)) continue;
        std::byte* const to = now.data() + (first + i) * kSectorBytes;
        if (request.kind == OpKind::kWrite) {
            std::memcpy(to, request.data.data() + i * kSectorBytes, kSectorBytes);
        } else {
            std::memset(to, 0, kSectorBytes);
        }
        version[first + i] = ++versions;
    }
    if (lies && request.kind == OpKind::kWrite && request.range.length_bytes == kPageBytes)
        now[request.range.offset_bytes] ^= std::byte{1};
}

void Disk::mark_dirty(const Range& range) {
    for (auto& [replica, units] : dirty) {
        for (std::uint64_t at = range.offset_bytes / kUnit; at * kUnit < range.end_bytes(); ++at)
            units.insert(static_cast<std::uint32_t>(at));
    }
}

void Disk::make_durable(std::size_t first, std::size_t end) {
    for (std::size_t sector = first; sector < end; ++sector) {
        if (durable_version[sector] == version[sector]) continue;
        std::memcpy(durable.data() + sector * kSectorBytes, now.data() + sector * kSectorBytes,
                    kSectorBytes);
        durable_version[sector] = version[sector];
    }
}

void Disk::flushed(const Snapshot& snapshot) {
    for (std::size_t sector = 0; sector < kSectors; ++sector) {
        if (snapshot.versions[sector] <= durable_version[sector]) continue;
        std::memcpy(durable.data() + sector * kSectorBytes,
                    snapshot.content.data() + sector * kSectorBytes, kSectorBytes);
        durable_version[sector] = snapshot.versions[sector];
    }
}

void Disk::power_cut(Random& random) {
    for (std::size_t sector = 0; sector < kSectors; ++sector) {
        if (version[sector] == durable_version[sector]) continue;
        std::byte* const from = (random.one_in(2) ? now : durable).data() + sector * kSectorBytes;
        std::byte* const to = (from == now.data() + sector * kSectorBytes ? durable : now).data();
        std::memcpy(to + sector * kSectorBytes, from, kSectorBytes);
        durable_version[sector] = version[sector];
    }
    lose_ids();  // under /run
}

void Disk::lose_ids() {
    *ids = {};
    ids_of_member = false;
}

void Disk::make_image() { image_ = Image{durable, durable_version, *this}; }

void Disk::put_image_back() {
    now = durable = image_->content;
    version = durable_version = image_->versions;
    static_cast<Stored&>(*this) = image_->stored;
}

}  // namespace ublkd::sim
