#include "ublkd/daemon/join_token.h"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "ublkd/base/crc32c.h"

namespace ublkd::daemon {
namespace {

constexpr std::string_view kBegin = "ublkd-join-";
constexpr std::byte kVersion{1};
constexpr std::size_t kAddressMax = 64;
constexpr std::size_t kBeforeAddress = 1 + 8 + 32 + 32;
constexpr std::size_t kChecksum = 4;

std::string in_hex(std::span<const std::byte> bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : bytes) {
        text += kDigits[std::to_integer<unsigned>(byte) >> 4];
        text += kDigits[std::to_integer<unsigned>(byte) & 15];
    }
    return text;
}

std::optional<std::vector<std::byte>> from_hex(std::string_view text) {
    const auto digit = [](char c) {
        if (c >= '0' && c <= '9') return c - '0';
        if (c >= 'a' && c <= 'f') return c - 'a' + 10;
        return -1;
    };
    if (text.size() % 2 != 0) return std::nullopt;
    std::vector<std::byte> bytes;
    for (std::size_t at = 0; at < text.size(); at += 2) {
        const int high = digit(text[at]);
        const int low = digit(text[at + 1]);
        if (high < 0 || low < 0) return std::nullopt;
        bytes.push_back(static_cast<std::byte>(high * 16 + low));
    }
    return bytes;
}

void append_number(std::vector<std::byte>& bytes, std::uint64_t number, unsigned count) {
    for (unsigned at = count; at-- > 0;)
        bytes.push_back(static_cast<std::byte>((number >> (8 * at)) & 255));
}

std::uint64_t number_at(std::span<const std::byte> bytes) {
    std::uint64_t number = 0;
    for (const std::byte byte : bytes)
        number = (number << 8) | std::to_integer<std::uint64_t>(byte);
    return number;
}

}  // namespace

std::string JoinToken::text() const {
    std::vector<std::byte> bytes{kVersion};
    append_number(bytes, id.value(), 8);
    bytes.insert(bytes.end(), authority.begin(), authority.end());
    bytes.insert(bytes.end(), secret.begin(), secret.end());
    for (const char c : address) bytes.push_back(static_cast<std::byte>(c));
    append_number(bytes, crc32c(bytes), kChecksum);
    return std::string(kBegin) + in_hex(bytes);
}

std::expected<JoinToken, std::string> JoinToken::parse(std::string_view text) {
    constexpr const char* kNotWhole =
        "the token is not whole: copy all of what 'ebs-cli cluster token' printed";
    if (!text.starts_with(kBegin))
        return std::unexpected(
            "this is no token: 'ebs-cli cluster token', at the host with the "
            "cluster's authority, prints one");
    const auto bytes = from_hex(text.substr(kBegin.size()));
    if (!bytes || bytes->size() <= kBeforeAddress + kChecksum ||
        bytes->size() > kBeforeAddress + kAddressMax + kChecksum)
        return std::unexpected(kNotWhole);
    const std::span<const std::byte> whole(*bytes);
    const auto content = whole.first(whole.size() - kChecksum);
    if (number_at(whole.last(kChecksum)) != crc32c(content)) return std::unexpected(kNotWhole);
    if (content[0] != kVersion) return std::unexpected("the token is of another version of ublkd");
    JoinToken token;
    token.id = JoinTokenId(number_at(content.subspan(1, 8)));
    std::ranges::copy(content.subspan(9, 32), token.authority.begin());
    std::ranges::copy(content.subspan(41, 32), token.secret.begin());
    for (const std::byte byte : content.subspan(kBeforeAddress))
        token.address += static_cast<char>(byte);
    return token;
}

std::string hex_of(const io::Sha256& bytes) { return in_hex(bytes); }

std::optional<io::Sha256> sha256_of_hex(std::string_view hex) {
    const auto bytes = from_hex(hex);
    io::Sha256 made{};
    if (!bytes || bytes->size() != made.size()) return std::nullopt;
    std::ranges::copy(*bytes, made.begin());
    return made;
}

}  // namespace ublkd::daemon
