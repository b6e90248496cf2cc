#include "ublkd/base/ids.h"

#include <sys/random.h>

#include "ublkd/base/check.h"

namespace ublkd {

std::uint64_t random_u64() {
    std::uint64_t value = 0;
    while (value == 0) {
        const auto got = getrandom(&value, sizeof value, 0);
        CHECK(got == static_cast<ssize_t>(sizeof value),
              "getrandom gives 8 bytes at once (man getrandom.2)");
    }
    return value;
}

std::string format_id(std::string_view prefix, std::uint64_t value) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text(prefix);
    text += '0';
    for (int shift = 60; shift >= 0; shift -= 4) text += kDigits[(value >> shift) & 0xf];
    return text;
}

std::optional<std::uint64_t> parse_id(std::string_view prefix, std::string_view text) noexcept {
    if (text.size() != prefix.size() + 17 || !text.starts_with(prefix)) return std::nullopt;
    text.remove_prefix(prefix.size());
    if (text[0] != '0') return std::nullopt;
    std::uint64_t value = 0;
    for (const char c : text.substr(1)) {
        unsigned digit = 0;
        if (c >= '0' && c <= '9') {
            digit = static_cast<unsigned>(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = static_cast<unsigned>(c - 'a') + 10;
        } else {
            return std::nullopt;
        }
        value = (value << 4) | digit;
    }
    return value == 0 ? std::nullopt : std::optional<std::uint64_t>(value);
}

}  // namespace ublkd
