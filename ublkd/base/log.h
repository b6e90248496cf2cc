// The daemon's log: one line per event, to stderr (journald, a file or a terminal). Not for the
// data path: a request that fails is logged once, at the boundary. log.cc is the one user of
// spdlog.
#pragma once

#include <fmt/core.h>

#include <string>
#include <string_view>

namespace ublkd::log {

enum class Level { kDebug, kInfo, kWarn, kError };

void set_level(Level level);
/// nullopt-free parse for configuration: returns false where `name` is none of debug, info, warn,
/// error.
bool parse_level(std::string_view name, Level& level);
void write(Level level, std::string_view text);
bool enabled(Level level);

template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::kDebug))
        write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
    if (enabled(Level::kInfo))
        write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::kWarn, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
    write(Level::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace ublkd::log
