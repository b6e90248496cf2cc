// The token by which a host joins a cluster, as text: where to ask, whom to believe there, and the
// secret that is good for one host. "ublkd-join-" and hex, with a checksum, since a part of it may
// be lost on its way. docs/cluster.md. Plain values; no thread.
#pragma once

#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "ublkd/base/ids.h"
#include "ublkd/io/tls.h"

namespace ublkd::daemon {

struct JoinToken {
    JoinTokenId id;
    io::Sha256 authority{};  // fingerprint of the cluster authority's certificate
    io::Sha256 secret{};
    std::string address;  // ADDRESS:PORT

    std::string text() const;
    /// An error is a sentence for a person, without the token.
    static std::expected<JoinToken, std::string> parse(std::string_view text);
};

std::string hex_of(const io::Sha256& bytes);
std::optional<io::Sha256> sha256_of_hex(std::string_view hex);

}  // namespace ublkd::daemon
