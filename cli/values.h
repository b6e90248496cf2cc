// Sizes, times and other values as a person writes and reads them. No state.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace ublkd::cli {

/// "10G" is 10 GiB; units K, M, G, T (also KiB, GB, ...: all powers of 1024), fractions allowed;
/// whole MiB in the end. An error says what is allowed.
std::expected<std::uint64_t, std::string> parse_size(std::string_view text);
/// "30s", "5m", "2h", or seconds.
std::expected<std::chrono::milliseconds, std::string> parse_duration(std::string_view text);
/// "10G", "1.5T", "512M": at most one digit behind the point.
std::string short_size(std::uint64_t bytes);
/// "10 GiB".
std::string long_size(std::uint64_t bytes);
/// "3d", "4h", "12m", "5s".
std::string short_duration(std::uint64_t seconds);

/// * stands for anything.
bool glob_fits(std::string_view pattern, std::string_view text);
std::string percent_encoded(std::string_view text);
/// Of the API, for a volume by its id or name.
std::string volume_path(std::string_view volume);
std::string lower(std::string_view text);

}  // namespace ublkd::cli
