// Help, the man page and shell completion, all from the table of commands (command.h).
// tests/unit/cli holds packaging/man/ebs-cli.1 against man_page(). No state.
#pragma once

#include <expected>
#include <string>
#include <vector>

namespace ublkd::cli {

/// Of a command, of a group such as "volume", or ("") of the whole.
std::string help_text(const std::string& path);
/// ebs-cli(1), in man(7).
std::string man_page();
/// A script for bash, zsh or fish; it asks `ebs-cli __complete`.
std::expected<std::string, std::string> completion_script(const std::string& shell);

/// What may follow `words` (of which the last is being typed): words of the table, or a marker
/// "<volume>" etc. for what the daemon knows.
std::vector<std::string> completions(const std::vector<std::string>& words);

}  // namespace ublkd::cli
