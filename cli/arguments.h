// From argv to an Invocation. arguments.cc is the one user of CLI11, which is built from the table
// of commands (command.h); help comes from help.cc. What is wrong is one message that says what is
// allowed.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "cli/command.h"

namespace ublkd::cli {

struct Parsed {
    Invocation invocation;
    std::string help;  // --help was given: print this and end
};

/// Words between blanks.
std::vector<std::string> words_of(const std::string& text);

std::expected<Parsed, std::string> parse_arguments(const std::vector<std::string>& given);

}  // namespace ublkd::cli
