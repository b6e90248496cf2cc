#include "cli/tags.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

namespace ublkd::cli {

Outcome<api::Json> parse_tags(const std::vector<std::string>& tags) {
    api::Json list = api::Json::array();
    for (const std::string& tag : tags) {
        const auto equals = tag.find('=');
        if (equals == std::string::npos || equals == 0) {
            return std::unexpected(
                Failure{kExitUsage, "", fmt::format("a tag is KEY=VALUE; '{}' was given", tag)});
        }
        list.push(api::Json::object()
                      .set("Key", tag.substr(0, equals))
                      .set("Value", tag.substr(equals + 1)));
    }
    return list;
}

Outcome<std::uint64_t> parse_number(const std::string& option, const std::string& text) {
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) {
        return std::unexpected(
            Failure{kExitUsage, "",
                    fmt::format("{} is a whole number from 0 to {}; '{}' was given", option,
                                std::numeric_limits<std::uint64_t>::max(), text)});
    }
    return number;
}

}  // namespace ublkd::cli
