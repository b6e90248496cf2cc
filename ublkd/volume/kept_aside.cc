#include "ublkd/volume/kept_aside.h"

#include <fcntl.h>

#include <span>

#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/io/file.h"

namespace ublkd::volume {
namespace {

constexpr const char* kName = "/ids";
constexpr io::OpenOptions kBuffered{.direct = false};
// docs/format-replica.md
static_assert(sizeof(replication::AppliedIds::Table) == 921'344);
using Checksum = std::array<std::byte, sizeof(std::uint32_t)>;

}  // namespace

io::Task<Result<void>> put_aside(io::Reactor* reactor, const std::string& folder,
                                 const replication::AppliedIds::Table* table) {
    const auto content = std::as_bytes(std::span(table, 1));
    io::OpenOptions options = kBuffered;
    options.create = true;
    CO_TRY_ASSIGN(io::File file, io::File::open(*reactor, folder + kName, options));
    CO_TRY(co_await file.write(0, content));
    Checksum checksum;
    store_le<std::uint32_t>(checksum.data(), crc32c(content));
    CO_TRY(co_await file.write(content.size(), checksum));
    CO_TRY(co_await file.sync());
    io::OpenOptions of_folder = kBuffered;
    of_folder.read_only = true;
    CO_TRY_ASSIGN(io::File names, io::File::open(*reactor, folder, of_folder));
    co_return co_await names.sync();
}

io::Task<Result<void>> take_aside(io::Reactor* reactor, const std::string& folder,
                                  replication::AppliedIds::Table* table) {
    const auto content = std::as_writable_bytes(std::span(table, 1));
    CO_TRY_ASSIGN(io::File file, io::File::open(*reactor, folder + kName, kBuffered));
    CO_TRY(co_await file.read(0, content));
    Checksum checksum;
    CO_TRY(co_await file.read(content.size(), checksum));
    if (load_le<std::uint32_t>(checksum.data()) != crc32c(content)) {
        *table = {};
        co_return fail(Errc::kCorrupt, "a table of applied ids that was put aside");
    }
    co_return Result<void>{};
}

}  // namespace ublkd::volume
