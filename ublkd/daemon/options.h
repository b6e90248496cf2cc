// The command line of ublkd. Parsed by hand: five flags. A wrong one is a message that says what is
// allowed.
#pragma once

#include <expected>
#include <string>
#include <vector>

namespace ublkd::daemon {

struct Options {
    std::string state;        // --state DIR: all files under DIR, for running as any user; "": the
                              // system's folders
    std::string config_file;  // --config F; "": state folder's or /etc/ublkd/ublkd.toml
    bool detach_all = false;  // stop for good: detach everything, then end
    bool help = false;
    bool version = false;
};

/// The text of --help.
extern const char kUsage[];

std::expected<Options, std::string> parse_options(const std::vector<std::string>& arguments);

}  // namespace ublkd::daemon
