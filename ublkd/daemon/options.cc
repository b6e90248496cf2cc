#include "ublkd/daemon/options.h"

namespace ublkd::daemon {

const char kUsage[] = R"(usage: ublkd [--state DIR] [--config FILE] [--detach-all]
The daemon of replicated block volumes. Without a configuration it starts uninitialized: 'ebs-cli init' makes one.

  --state DIR     keep all files (metadata, sockets, configuration) under DIR; for running as any user
  --config FILE   configuration (default: DIR/ublkd.toml with --state, else /etc/ublkd/ublkd.toml)
  --detach-all    detach every volume, also those that a former daemon left attached, then end
  --version       print the version
  --help          print this

Signals: TERM and INT stop it, devices stay for the next start; HUP reads the log level from the configuration again.
Example: ublkd --state /tmp/try &  ebs-cli --socket /tmp/try/api.sock init --dir /tmp/try/pool
)";

std::expected<Options, std::string> parse_options(const std::vector<std::string>& arguments) {
    Options options;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
        std::string name = arguments[i];
        std::string value;
        bool has_value = false;
        if (const auto equals = name.find('=');
            name.starts_with("--") && equals != std::string::npos) {
            value = name.substr(equals + 1);
            name.resize(equals);
            has_value = true;
        }
        const bool takes_value = name == "--state" || name == "--config";
        if (takes_value && !has_value) {
            if (++i == arguments.size()) return std::unexpected(name + " needs a value");
            value = arguments[i];
        } else if (!takes_value && has_value) {
            return std::unexpected(name + " takes no value");
        }
        if (takes_value && value.empty()) return std::unexpected(name + " needs a value");
        if (name == "--state")
            options.state = value;
        else if (name == "--config")
            options.config_file = value;
        else if (name == "--detach-all")
            options.detach_all = true;
        else if (name == "--help" || name == "-h")
            options.help = true;
        else if (name == "--version")
            options.version = true;
        else
            return std::unexpected("unknown argument '" + arguments[i] + "'; see ublkd --help");
    }
    return options;
}

}  // namespace ublkd::daemon
