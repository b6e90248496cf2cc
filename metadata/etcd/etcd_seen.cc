#include "metadata/etcd/etcd_seen.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <optional>
#include <span>

#include "ublkd/base/crc32c.h"
#include "ublkd/base/files.h"
#include "ublkd/base/ids.h"
#include "ublkd/base/log.h"

namespace ublkd::metadata {
namespace {

constexpr std::string_view kBegin = "ublkd-etcd 1 ";

std::string text_of(const EtcdSeen::Mark& mark) {
    std::string text = fmt::format("{}{:016x} {:016x} {:016x} {:08x} ", kBegin, mark.client,
                                   mark.cluster, mark.revision, mark.checksum);
    return text + fmt::format("{:08x}\n", crc32c(std::as_bytes(std::span(text))));
}

std::optional<EtcdSeen::Mark> parse(std::string_view text) {
    EtcdSeen::Mark mark;
    if (text.size() != text_of(mark).size() || !text.starts_with(kBegin)) return std::nullopt;
    std::size_t at = kBegin.size();
    const auto take = [&](auto& into, std::size_t digits) {
        const auto part = text.substr(at, digits);
        at += digits + 1;
        return std::from_chars(part.begin(), part.end(), into, 16).ptr == part.end();
    };
    const bool whole = take(mark.client, 16) && take(mark.cluster, 16) && take(mark.revision, 16) &&
                       take(mark.checksum, 8);
    return whole && text == text_of(mark) ? std::optional(mark) : std::nullopt;
}

}  // namespace

Result<EtcdSeen> EtcdSeen::open(const std::string& path) {
    Mark mark{.client = random_u64()};
    if (path.empty()) return EtcdSeen(Fd(), mark);
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) return fail_errno(errno, "open what was seen of etcd");
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return fail(Errc::kBusy, "another process uses etcd from this state folder");
        return fail_errno(errno, "lock what was seen of etcd");
    }
    TRY_ASSIGN(const std::string text, read_file(path, 4096));
    if (const auto read = parse(text)) return EtcdSeen(std::move(file), *read);
    if (!text.empty() && !text.starts_with(kBegin))
        return fail(Errc::kCorrupt, "what was seen of etcd is none of ublkd's files");
    if (!text.empty()) log::warn("{} is not whole: what it said is not known any more", path);
    EtcdSeen seen(std::move(file), mark);
    TRY(seen.write());
    return seen;
}

void EtcdSeen::see(std::uint64_t cluster, std::uint64_t revision, std::string_view state_text) {
    mark_.cluster = cluster;
    mark_.revision = revision;
    mark_.checksum = checksum_of(state_text);
    if (!file_) return;
    if (const auto done = write(); !done)
        log::warn("what was seen of etcd is not kept: {}", to_string(done.error()));
}

std::uint32_t EtcdSeen::checksum_of(std::string_view state_text) {
    return crc32c(std::as_bytes(std::span(state_text)));
}

Result<void> EtcdSeen::write() {
    const std::string text = text_of(mark_);
    const auto wrote = ::pwrite(file_.get(), text.data(), text.size(), 0);
    if (wrote < 0) return fail_errno(errno, "write what was seen of etcd");
    if (static_cast<std::size_t>(wrote) != text.size())
        return fail(Errc::kNoSpace, "write what was seen of etcd");
    return {};
}

}  // namespace ublkd::metadata
