#include "ublkd/store/superblock_look.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "ublkd/base/fd.h"

namespace ublkd::store {

Result<Superblock> look_at_superblock(const std::string& folder, ReplicaId incarnation) {
    const Fd file(::open((folder + "/superblock").c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return fail_errno(errno, "open superblock");
    std::optional<SuperblockCopy> newest;
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
        std::array<std::byte, kSuperblockBytes> page{};
        const auto at = static_cast<off_t>(copy * kSuperblockBytes);
        const auto got = ::pread(file.get(), page.data(), page.size(), at);
        if (got < 0) return fail_errno(errno, "read superblock");
        const auto decoded = decode_superblock(page, copy, incarnation);
        if (!decoded && decoded.error().code == Errc::kUnsupported) return fail(decoded.error());
        if (decoded && (!newest || decoded->sequence > newest->sequence)) newest = *decoded;
    }
    if (!newest) return fail(Errc::kCorrupt, "superblock: neither copy is valid");
    return newest->value;
}

}  // namespace ublkd::store
