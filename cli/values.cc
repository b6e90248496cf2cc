#include "cli/values.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>

#include "ublkd/base/units.h"

namespace ublkd::cli {
namespace {

constexpr std::array<std::string_view, 5> kUnits{"K", "M", "G", "T", "P"};

/// The shift of a unit such as "G", "GB" or "gib"; nullopt where it is none.
std::optional<unsigned> unit_shift(std::string_view unit) {
    const std::string given = lower(unit);
    for (unsigned i = 0; i < kUnits.size(); ++i) {
        const std::string letter = lower(kUnits[i]);
        if (given == letter || given == letter + "b" || given == letter + "ib") return 10 * (i + 1);
    }
    return std::nullopt;
}

std::string scaled(std::uint64_t bytes, std::string_view blank, std::string_view suffix) {
    unsigned unit = 0;
    auto value = static_cast<double>(bytes) / 1024;
    while (unit + 1 < kUnits.size() && value >= 1023.95) {
        value /= 1024;
        ++unit;
    }
    if (bytes == 0) return fmt::format("0{}{}", blank, suffix.empty() ? "" : "B");
    const double rounded = std::round(value * 10) / 10;
    if (rounded == std::floor(rounded))
        return fmt::format("{:.0f}{}{}{}", rounded, blank, kUnits[unit], suffix);
    return fmt::format("{:.1f}{}{}{}", rounded, blank, kUnits[unit], suffix);
}

}  // namespace

std::string lower(std::string_view text) {
    std::string made(text);
    for (char& c : made) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return made;
}

std::expected<std::uint64_t, std::string> parse_size(std::string_view text) {
    double number = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    const auto wrong = [&](std::string_view why) {
        return std::unexpected(
            fmt::format("'{}' is not a size: {} (10G is 10 GiB; units K, M, G, T)", text, why));
    };
    if (error != std::errc() || !(number > 0))
        return wrong("give a number greater than 0 and a unit");
    const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    const auto shift = unit_shift(unit);
    if (!shift) return wrong(unit.empty() ? "give a unit" : "there is no such unit");
    const double bytes = std::ldexp(number, static_cast<int>(*shift));
    if (bytes > 9e18) return wrong("that is too much");
    const auto whole = static_cast<std::uint64_t>(bytes);
    if (static_cast<double>(whole) != bytes || whole % kMiB != 0)
        return wrong("sizes are whole MiB");
    return whole;
}

std::expected<std::chrono::milliseconds, std::string> parse_duration(std::string_view text) {
    double number = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
    const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
    double seconds = 0;
    if (unit.empty() || unit == "s")
        seconds = 1;
    else if (unit == "ms")
        seconds = 0.001;
    else if (unit == "m")
        seconds = 60;
    else if (unit == "h")
        seconds = 3600;
    if (error != std::errc() || !(number > 0) || seconds == 0 || number * seconds > 1e9) {
        return std::unexpected(fmt::format(
            "'{}' is not a time: give a number greater than 0 with s, m or h (5m)", text));
    }
    return std::chrono::milliseconds(static_cast<std::int64_t>(number * seconds * 1000));
}

std::string short_size(std::uint64_t bytes) { return scaled(bytes, "", ""); }
std::string long_size(std::uint64_t bytes) { return scaled(bytes, " ", "iB"); }

std::string short_duration(std::uint64_t seconds) {
    if (seconds >= 86400) return fmt::format("{}d", seconds / 86400);
    if (seconds >= 3600) return fmt::format("{}h", seconds / 3600);
    if (seconds >= 60) return fmt::format("{}m", seconds / 60);
    return fmt::format("{}s", seconds);
}

bool glob_fits(std::string_view pattern, std::string_view text) {
    std::size_t at = 0;
    std::size_t star = std::string_view::npos;
    std::size_t star_text = 0;
    std::size_t i = 0;
    while (i < text.size()) {
        if (at < pattern.size() && pattern[at] == '*') {
            star = at++;
            star_text = i;
        } else if (at < pattern.size() && pattern[at] == text[i]) {
            ++at;
            ++i;
        } else if (star != std::string_view::npos) {
            at = star + 1;
            i = ++star_text;
        } else {
            return false;
        }
    }
    while (at < pattern.size() && pattern[at] == '*') ++at;
    return at == pattern.size();
}

std::string percent_encoded(std::string_view text) {
    std::string made;
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' || c == '~')
            made += c;
        else
            made += fmt::format("%{:02X}", byte);
    }
    return made;
}

std::string volume_path(std::string_view volume) {
    return "/v1/volumes/" + percent_encoded(volume);
}

}  // namespace ublkd::cli
