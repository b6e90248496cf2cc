#include "ublkd/peer/hello.h"

#include <algorithm>

#include "ublkd/base/bytes.h"
#include "ublkd/peer/layout.h"

namespace ublkd::peer {

const char* to_string(Reason reason) noexcept {
    switch (reason) {
        case Reason::kVersion:
            return "no common version";
        case Reason::kFeature:
            return "a feature that is needed is not there";
        case Reason::kCluster:
            return "another cluster";
        case Reason::kVolume:
            return "the volume is not there";
        case Reason::kHost:
            return "another host";
        case Reason::kBusy:
            return "all connections are taken";
        case Reason::kProtocol:
            return "a frame was refused";
        case Reason::kStopping:
            return "stopping";
    }
    return "unknown";
}

std::expected<Agreed, Refusal> agree(const Hello& own, const Hello& other) {
    const auto refused = [](Reason reason) { return std::unexpected(Refusal{.reason = reason}); };
    const std::uint16_t newest = std::min(own.newest_version, other.newest_version);
    if (newest < std::max(own.oldest_version, other.oldest_version))
        return refused(Reason::kVersion);
    if (own.cluster != other.cluster) return refused(Reason::kCluster);
    if (own.volume != other.volume) return refused(Reason::kVolume);
    if ((own.required & ~other.features) != 0 || (other.required & ~own.features) != 0)
        return refused(Reason::kFeature);
    return Agreed{.version = newest, .features = own.features & other.features};
}

std::array<std::byte, kHelloBytes> encode(const Hello& hello) {
    std::array<std::byte, kHelloBytes> header;
    layout::begin_header(header, FrameKind::kHello, kHelloVersion);
    std::byte* const at = header.data();
    store_le<std::uint16_t>(at + layout::kOldest, hello.oldest_version);
    store_le<std::uint16_t>(at + layout::kNewest, hello.newest_version);
    store_le<std::uint64_t>(at + layout::kFeatures, hello.features);
    store_le<std::uint64_t>(at + layout::kRequired, hello.required);
    store_le<std::uint64_t>(at + layout::kCluster, hello.cluster.value());
    store_le<std::uint64_t>(at + layout::kHost, hello.host.value());
    store_le<std::uint64_t>(at + layout::kHelloVolume, hello.volume.value());
    std::ranges::copy(hello.boot_id, at + layout::kBootId);
    store_le<std::uint64_t>(at + layout::kHelloAttachment, hello.attachment.value());
    layout::end_header(header);
    return header;
}

std::array<std::byte, kRefusalBytes> encode(const Refusal& refusal) {
    std::array<std::byte, kRefusalBytes> header;
    layout::begin_header(header, FrameKind::kRefusal, kHelloVersion);
    store_le<std::uint16_t>(header.data() + layout::kOldest, refusal.oldest_version);
    store_le<std::uint16_t>(header.data() + layout::kNewest, refusal.newest_version);
    store_le<std::uint16_t>(header.data() + layout::kReason,
                            static_cast<std::uint16_t>(refusal.reason));
    layout::end_header(header);
    return header;
}

std::array<std::byte, kAliveBytes> encode_alive(std::uint16_t version) {
    std::array<std::byte, kAliveBytes> header;
    layout::begin_header(header, FrameKind::kAlive, version);
    layout::end_header(header);
    return header;
}

Result<Hello> decode_hello(std::span<const std::byte, kHelloBytes> header) {
    const std::byte* const at = header.data();
    const bool zero = is_all_zero(header.subspan(12, 4)) && is_all_zero(header.subspan(20, 4)) &&
                      is_all_zero(header.subspan(layout::kHelloEnd));
    if (!zero) return fail(Errc::kProtocol, "hello: not zero where it should be");
    Hello hello;
    hello.oldest_version = load_le<std::uint16_t>(at + layout::kOldest);
    hello.newest_version = load_le<std::uint16_t>(at + layout::kNewest);
    hello.features = load_le<std::uint64_t>(at + layout::kFeatures);
    hello.required = load_le<std::uint64_t>(at + layout::kRequired);
    hello.cluster = ClusterId(load_le<std::uint64_t>(at + layout::kCluster));
    hello.host = HostId(load_le<std::uint64_t>(at + layout::kHost));
    hello.volume = VolumeId(load_le<std::uint64_t>(at + layout::kHelloVolume));
    std::copy_n(at + layout::kBootId, hello.boot_id.size(), hello.boot_id.begin());
    hello.attachment = AttachmentId(load_le<std::uint64_t>(at + layout::kHelloAttachment));
    if (hello.oldest_version == 0 || hello.newest_version < hello.oldest_version)
        return fail(Errc::kProtocol, "hello: versions");
    if ((hello.required & ~hello.features) != 0)
        return fail(Errc::kProtocol, "hello: requires a feature that it has not");
    if (!hello.cluster || !hello.host || !hello.volume || is_all_zero(hello.boot_id))
        return fail(Errc::kProtocol, "hello: an id is missing");
    return hello;
}

Result<Refusal> decode_refusal(std::span<const std::byte, kRefusalBytes> header) {
    const std::byte* const at = header.data();
    const bool zero =
        is_all_zero(header.subspan(12, 4)) && is_all_zero(header.subspan(layout::kRefusalEnd));
    const auto reason = load_le<std::uint16_t>(at + layout::kReason);
    if (!zero) return fail(Errc::kProtocol, "refusal: not zero where it should be");
    if (reason < static_cast<std::uint16_t>(Reason::kVersion) ||
        reason > static_cast<std::uint16_t>(Reason::kStopping))
        return fail(Errc::kProtocol, "refusal: reason");
    return Refusal{.reason = Reason(reason),
                   .oldest_version = load_le<std::uint16_t>(at + layout::kOldest),
                   .newest_version = load_le<std::uint16_t>(at + layout::kNewest)};
}

}  // namespace ublkd::peer
