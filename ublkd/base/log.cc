#include "ublkd/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace ublkd::log {
namespace {

spdlog::logger& logger() {
    static const auto kLogger = [] {
        auto made = spdlog::stderr_logger_mt("ublkd");
        made->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
        return made;
    }();
    return *kLogger;
}

spdlog::level::level_enum to_spdlog(Level level) {
    switch (level) {
        case Level::kDebug:
            return spdlog::level::debug;
        case Level::kInfo:
            return spdlog::level::info;
        case Level::kWarn:
            return spdlog::level::warn;
        case Level::kError:
            break;
    }
    return spdlog::level::err;
}

}  // namespace

void set_level(Level level) { logger().set_level(to_spdlog(level)); }

bool parse_level(std::string_view name, Level& level) {
    if (name == "debug")
        level = Level::kDebug;
    else if (name == "info")
        level = Level::kInfo;
    else if (name == "warn")
        level = Level::kWarn;
    else if (name == "error")
        level = Level::kError;
    else
        return false;
    return true;
}

void write(Level level, std::string_view text) { logger().log(to_spdlog(level), "{}", text); }
bool enabled(Level level) { return logger().should_log(to_spdlog(level)); }

}  // namespace ublkd::log
