#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "cli/cells.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;
using namespace std::chrono_literals;

/// The terminal can go back to the begin of a line.
bool can_draw() {
    const char* const terminal = std::getenv("TERM");
    return isatty(STDERR_FILENO) != 0 && terminal != nullptr &&
           std::string_view(terminal) != "dumb";
}

std::uint64_t percent(const Look& look) {
    return std::min<std::uint64_t>(look.done_bytes, look.total_bytes) * 100 / look.total_bytes;
}

/// ", 210 MiB/s, 4s left", as far as it is known.
std::string speed(const Measured& measured, std::string_view between) {
    std::string text;
    if (measured.bytes_per_second != 0)
        text += fmt::format("{}{}/s", between, long_size(measured.bytes_per_second));
    if (measured.seconds_left)
        text += fmt::format("{}{} left", between, short_duration(*measured.seconds_left));
    return text;
}

}  // namespace

std::string Measured::line() const {
    std::string text = short_duration(static_cast<std::uint64_t>(elapsed.count()));
    if (!look.state.empty()) text += ", " + look.state;
    if (look.total_bytes != 0)
        text += fmt::format(", {}%, {} of {}{}", percent(look), long_size(look.done_bytes),
                            long_size(look.total_bytes), speed(*this, ", "));
    return text;
}

std::string Measured::bar() const {
    if (look.total_bytes == 0) return line();
    constexpr std::size_t kWidth = 30;
    const auto full = static_cast<std::size_t>(percent(look)) * kWidth / 100;
    std::string drawn(full, '=');
    if (full < kWidth) drawn += '>';
    drawn.resize(kWidth, ' ');
    return fmt::format("[{}] {}%{}", drawn, percent(look), speed(*this, "  "));
}

Json Measured::json() const {
    Json made = Json::object().set("ElapsedSeconds", static_cast<std::uint64_t>(elapsed.count()));
    if (!look.state.empty()) made.set("State", look.state);
    if (look.total_bytes != 0)
        made.set("DoneBytes", look.done_bytes).set("TotalBytes", look.total_bytes);
    if (bytes_per_second != 0) made.set("BytesPerSecond", bytes_per_second);
    if (seconds_left) made.set("SecondsLeft", *seconds_left);
    return made;
}

const Option& progress_option() {
    static const Option option{
        .name = "--progress",
        .value = "HOW",
        .help =
            "on stderr while it takes time: auto (a bar on a terminal, else a line every 10 s), "
            "json (a line a second), none",
        .choices = {"auto", "json", "none"}};
    return option;
}

Progress::Progress(const Context& context, std::string what) : what_(std::move(what)) {
    const std::string form = context.option("progress");
    form_ = form == "none"   ? Form::kNone
            : form == "json" ? Form::kJson
            : can_draw()     ? Form::kBar
                             : Form::kLines;
    every_ = form_ == Form::kLines ? 10s : 1s;
    due_ = begun_ + every_;
}

Progress::~Progress() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
}

Measured Progress::measured(const Look& look) {
    const auto now = Clock::now();
    Measured made{.look = look,
                  .elapsed = std::chrono::duration_cast<std::chrono::seconds>(now - begun_)};
    if (look.total_bytes == 0) return made;
    if (!first_ || look.done_bytes < first_->second) first_ = {now, look.done_bytes};
    const double seconds = std::chrono::duration<double>(now - first_->first).count();
    if (seconds < 1) return made;
    made.bytes_per_second =
        static_cast<std::uint64_t>(static_cast<double>(look.done_bytes - first_->second) / seconds);
    if (made.bytes_per_second != 0 && look.done_bytes <= look.total_bytes)
        made.seconds_left = (look.total_bytes - look.done_bytes) / made.bytes_per_second;
    return made;
}

void Progress::tell(const Look& look) {
    const Measured now = measured(look);
    if (Clock::now() < due_) return;
    while (due_ <= Clock::now()) due_ += every_;
    if (form_ == Form::kJson) {
        fmt::print(stderr, "{}\n", now.json().dump());
    } else if (form_ == Form::kLines) {
        fmt::print(stderr, "{}: {}\n", what_, now.line());
    } else {
        fmt::print(stderr, "\r\033[K{} {}", what_, now.bar());
        drawn_ = true;
    }
    (void)std::fflush(stderr);
}

Look look_at(const Json& volume) {
    Look look;
    look.state = fmt::format("{} ({})", volume["State"].as_string(), health_text(volume));
    for (const Json& attachment : volume["Attachments"].items()) {
        const std::string state = attachment["State"].as_string();
        const std::string why = attachment["StateMessage"].as_string();
        if (state != "attached")
            look.state = why.empty() ? state : fmt::format("{} ({})", state, why);
    }
    look.done_bytes = volume["Health"]["SyncDoneBytes"].u64();
    look.total_bytes = volume["Health"]["SyncTotalBytes"].u64();
    return look;
}

Look look_at_verify(const Json& volume) {
    const Json& done = volume["Health"]["VerifiedBytes"];
    return {"", done.u64(), done.is_null() ? 0 : volume["SizeBytes"].u64()};
}

Outcome<Json> call_and_tell(Context& context, const std::string& what, const std::string& path,
                            const Json& body, std::chrono::milliseconds timeout,
                            const std::string& volume, Look (*look)(const Json&)) {
    Progress progress(context, what);
    if (!progress.is_wanted()) return context.client().call("POST", path, body, timeout);
    Client looker = context.client();
    return context.client().call("POST", path, body, timeout, [&] {
        Look seen;
        if (!volume.empty()) {
            const auto answer = looker.call("GET", volume_path(volume), {}, 2s);
            if (answer) seen = look(*answer);
        }
        progress.tell(seen);
    });
}

}  // namespace ublkd::cli
