#include "ublkd/base/fault_injection.h"

#ifdef UBLKD_FAULTS

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace ublkd::faults {
namespace {

enum class Action { kCrash, kFail, kDelay, kOff };

struct Point {
    Action action = Action::kOff;
    std::int64_t argument = 0;   // errno or milliseconds
    std::uint64_t only_hit = 0;  // 0: each hit
    std::uint64_t hits = 0;
};

std::mutex mutex;
std::map<std::string, Point, std::less<>> points;
std::atomic<bool> any_armed = false;  // keeps the data path off the mutex while nothing is armed

bool parse_number(std::string_view text, std::int64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && value >= 0;
}

std::optional<Point> parse_action(std::string_view text) {
    Point point;
    std::int64_t number = 0;
    if (const auto at = text.find('@'); at != std::string_view::npos) {
        if (!parse_number(text.substr(at + 1), number) || number == 0) return std::nullopt;
        point.only_hit = static_cast<std::uint64_t>(number);
        text = text.substr(0, at);
    }
    std::string_view argument;
    if (const auto colon = text.find(':'); colon != std::string_view::npos) {
        argument = text.substr(colon + 1);
        text = text.substr(0, colon);
        if (!parse_number(argument, point.argument)) return std::nullopt;
    }
    if (text == "crash")
        point.action = Action::kCrash;
    else if (text == "fail")
        point.action = Action::kFail;
    else if (text == "delay")
        point.action = Action::kDelay;
    else if (text == "off")
        point.action = Action::kOff;
    else
        return std::nullopt;
    if (point.action == Action::kFail && argument.empty()) point.argument = EIO;
    return point;
}

std::optional<Point> take_hit(const char* name) {
    const std::lock_guard lock(mutex);
    const auto found = points.find(std::string_view(name));
    if (found == points.end()) return std::nullopt;
    Point& point = found->second;
    ++point.hits;
    if (point.only_hit != 0 && point.hits != point.only_hit) return std::nullopt;
    return point;
}

}  // namespace

int hit(const char* name) noexcept {
    if (!any_armed.load(std::memory_order_relaxed)) return 0;
    const auto point = take_hit(name);
    if (!point) return 0;
    switch (point->action) {
        case Action::kCrash:
            kill(getpid(), SIGKILL);
            pause();
            break;
        case Action::kFail:
            return static_cast<int>(point->argument);
        case Action::kDelay:
            std::this_thread::sleep_for(std::chrono::milliseconds(point->argument));
            break;
        case Action::kOff:
            break;
    }
    return 0;
}

bool rule_off(const char* name) noexcept {
    if (!any_armed.load(std::memory_order_relaxed)) return false;
    const auto point = take_hit(name);
    return point && point->action == Action::kOff;
}

bool arm(std::string_view specification) {
    std::map<std::string, Point, std::less<>> parsed;
    while (!specification.empty()) {
        const auto semicolon = specification.find(';');
        const auto entry = specification.substr(0, semicolon);
        specification =
            semicolon == std::string_view::npos ? "" : specification.substr(semicolon + 1);
        if (entry.empty()) continue;
        const auto equals = entry.find('=');
        if (equals == 0 || equals == std::string_view::npos) return false;
        const auto point = parse_action(entry.substr(equals + 1));
        if (!point) return false;
        parsed[std::string(entry.substr(0, equals))] = *point;
    }
    const std::lock_guard lock(mutex);
    for (auto& [name, point] : parsed) points[name] = point;
    any_armed = !points.empty();
    return true;
}

void disarm_all() noexcept {
    const std::lock_guard lock(mutex);
    points.clear();
    any_armed = false;
}

std::uint64_t hits(const char* name) noexcept {
    const std::lock_guard lock(mutex);
    const auto found = points.find(std::string_view(name));
    return found == points.end() ? 0 : found->second.hits;
}

bool arm_from_environment() {
    const char* specification = std::getenv("UBLKD_FAULTS");
    return specification == nullptr || arm(specification);
}

}  // namespace ublkd::faults

#endif
