// Small readers of arguments that several commands share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/client.h"

namespace ublkd::cli {

/// KEY=VALUE each, to the API's [{"Key", "Value"}].
Outcome<api::Json> parse_tags(const std::vector<std::string>& tags);
/// A whole number; `option` is for the message.
Outcome<std::uint64_t> parse_number(const std::string& option, const std::string& text);

}  // namespace ublkd::cli
