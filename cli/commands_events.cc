#include <fmt/format.h>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/tags.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

Outcome<int> list_events(Context& context) {
    std::uint64_t after = 0;
    std::uint64_t limit = 1000;
    if (context.has("after")) {
        CLI_TRY_ASSIGN(after, parse_number("--after", context.option("after")));
    }
    if (context.has("limit")) {
        CLI_TRY_ASSIGN(limit, parse_number("--limit", context.option("limit")));
    }
    bool first = true;
    OutputOptions output = context.output();
    for (;;) {
        const bool wait = context.has("follow") && !first;
        const std::string path =
            fmt::format("/v1/events?after={}&limit={}&wait_ms={}", after, limit, wait ? 25000 : 0);
        CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", path));
        auto text = list_text(event_view(), answer, output);
        if (!text) return usage(text.error());
        if (output.format == Format::kId) {  // an event's id is a number
            text->clear();
            for (const Json& event : answer["Events"].items())
                *text += event["Sequence"].dump() + "\n";
        }
        if (!first && context.is_table()) text->erase(0, text->find('\n') + 1);  // the header once
        context.print(*text);
        if (!context.has("follow")) return 0;
        std::fflush(stdout);
        if (const auto& events = answer["Events"].items(); !events.empty())
            after = events.back()["Sequence"].u64();
        first = false;
    }
}

}  // namespace

std::vector<Command> event_commands() {
    return {
        {"event list",
         "List what has happened",
         "",
         {},
         {{"--follow", "", "and what happens from now on"},
          {"--after", "SEQUENCE", "only later ones"},
          {"--limit", "N", "at most so many (default 1000)"}},
         "ebs-cli event list --follow",
         list_events,
         list_of(event_view)},
    };
}

}  // namespace ublkd::cli
