// Identifiers: 64 bits, written as a prefix, "0" and 16 hex digits, as EBS writes them
// (vol-0a1b2c3d4e5f60718). Each kind is a type of its own, so that a volume's id cannot be passed
// for a replica's. 0 is "none" and never drawn.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace ublkd {

std::uint64_t random_u64();  // from the kernel; never 0
std::string format_id(std::string_view prefix, std::uint64_t value);
std::optional<std::uint64_t> parse_id(std::string_view prefix, std::string_view text) noexcept;

template <class Kind>
class Id {
  public:
    constexpr Id() = default;
    constexpr explicit Id(std::uint64_t value) : value_(value) {}
    static Id random() { return Id(random_u64()); }
    /// nullopt unless `text` is the prefix, "0" and 16 lower-case hex digits, and not 0.
    static std::optional<Id> parse(std::string_view text) noexcept {
        const auto value = parse_id(Kind::kPrefix, text);
        return value ? std::optional<Id>(Id(*value)) : std::nullopt;
    }
    constexpr std::uint64_t value() const { return value_; }
    constexpr explicit operator bool() const { return value_ != 0; }
    std::string to_string() const { return format_id(Kind::kPrefix, value_); }
    friend constexpr auto operator<=>(Id, Id) = default;

  private:
    std::uint64_t value_ = 0;
};

struct VolumeKind {
    static constexpr std::string_view kPrefix = "vol-";
};
struct ReplicaKind {
    static constexpr std::string_view kPrefix = "rep-";
};
struct PoolKind {
    static constexpr std::string_view kPrefix = "pool-";
};
struct ClusterKind {
    static constexpr std::string_view kPrefix = "cluster-";
};
struct HostKind {
    static constexpr std::string_view kPrefix = "host-";
};
struct JoinTokenKind {
    static constexpr std::string_view kPrefix = "join-";
};
struct InstanceKind {
    static constexpr std::string_view kPrefix = "i-";
};
struct AttachmentKind {
    static constexpr std::string_view kPrefix = "att-";
};

using VolumeId = Id<VolumeKind>;
using ReplicaId =
    Id<ReplicaKind>;  // one incarnation of a replica: made anew each time a replica is made
using PoolId = Id<PoolKind>;
using ClusterId = Id<ClusterKind>;
using HostId = Id<HostKind>;
using JoinTokenId = Id<JoinTokenKind>;
using InstanceId = Id<InstanceKind>;
using AttachmentId =
    Id<AttachmentKind>;  // also the attachment's token in the membership record (R15)

}  // namespace ublkd

template <class Kind>
struct std::hash<ublkd::Id<Kind>> {
    std::size_t operator()(ublkd::Id<Kind> id) const noexcept {
        return std::hash<std::uint64_t>()(id.value());
    }
};
