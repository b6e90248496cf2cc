#include <fmt/format.h>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/tags.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

// ---- permissions

Outcome<int> list_permissions(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/permissions"));
    return context.print_list(permission_view(), answer);
}

Outcome<int> revoke(Context& context) {
    const std::string resource = context.positional("RESOURCE");
    CLI_TRY(context.confirm(
        fmt::format("Take {} from its holder, which deletes what it has of it?", resource)));
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("DELETE", "/v1/permissions/" + percent_encoded(resource)));
    if (!context.for_person() && !context.quiet()) return context.print_answer(answer);
    context.print(resource + (context.quiet() ? "\n" : "  revoked\n"));
    return 0;
}

// ---- events

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

// ---- rescue

Outcome<int> list_orphans(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/rescue"));
    return context.print_list(orphan_view(), answer);
}

std::string device_name(const std::string& text) {
    return text.starts_with("/dev/") ? text.substr(5) : text;
}

Outcome<int> recover_orphan(Context& context) {
    const std::string device = device_name(context.positional("DEVICE"));
    CLI_TRY_ASSIGN(
        const auto answer,
        context.client().call("POST", fmt::format("/v1/rescue/{}/recover", percent_encoded(device)),
                              Json::object()));
    if (!context.for_person() && !context.quiet()) return context.print_answer(answer);
    context.print(device + (context.quiet() ? "\n" : "  recovered\n"));
    return 0;
}

Outcome<int> remove_orphan(Context& context) {
    const std::string device = device_name(context.positional("DEVICE"));
    CLI_TRY(context.confirm(fmt::format("Fail what waits for {} and remove it?", device)));
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("DELETE", "/v1/rescue/" + percent_encoded(device)));
    if (!context.for_person() && !context.quiet()) return context.print_answer(answer);
    context.print(device + (context.quiet() ? "\n" : "  removed\n"));
    return 0;
}

// ---- tags

Outcome<int> add_tags(Context& context) {
    CLI_TRY_ASSIGN(Json tags, parse_tags(context.positionals("KEY=VALUE")));
    const std::string resource = context.positional("RESOURCE");
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("POST", "/v1/tags/" + percent_encoded(resource),
                                         Json::object().set("Tags", std::move(tags))));
    if (!context.for_person() && !context.quiet()) return context.print_answer(answer);
    return 0;
}

Outcome<int> remove_tags(Context& context) {
    const std::string resource = context.positional("RESOURCE");
    for (const std::string& key : context.positionals("KEY")) {
        CLI_TRY(context.client().call(
            "DELETE",
            fmt::format("/v1/tags/{}/{}", percent_encoded(resource), percent_encoded(key))));
    }
    return 0;
}

Outcome<int> list_tags(Context& context) {
    const std::string resource = context.positional("RESOURCE");
    const std::string query = resource.empty() ? "" : "?resource=" + percent_encoded(resource);
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/tags" + query));
    return context.print_list(tag_view(), answer);
}

}  // namespace

std::vector<Command> small_commands() {
    const Positional resource{"RESOURCE",
                              "a volume or an instance: id, a unique beginning of it, or name",
                              Names::kResource};
    const Positional device{"DEVICE", "N, ublkbN or /dev/ublkbN", Names::kDevice};
    const Option yes{"--yes", "", "do not ask"};
    return {
        {"permission list",
         "List who may host what",
         "The first pool that asked for a place of a volume has it.",
         {},
         {},
         "ebs-cli permission list",
         list_permissions,
         list_of(permission_view)},
        {"permission revoke",
         "Take a place from its holder, which is no member any more",
         "The past holder never gets it again, and deletes what it has of it.",
         {{"RESOURCE", "such as vol-.../replica/0", Names::kPermission}},
         {yes},
         "ebs-cli permission revoke vol-0a1b2c3d4e5f60718/replica/1 --yes",
         revoke},
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
        {"rescue list",
         "List ublk devices that no daemon serves",
         "",
         {},
         {},
         "ebs-cli rescue list",
         list_orphans,
         list_of(orphan_view)},
        {"rescue recover",
         "Try again to take over a device that was left",
         "",
         {device},
         {},
         "ebs-cli rescue recover ublkb0",
         recover_orphan},
        {"rescue remove",
         "Remove a device that was left; what waits for it fails",
         "",
         {device},
         {yes},
         "ebs-cli rescue remove ublkb0 --yes",
         remove_orphan},
        {"tag add",
         "Add or change tags",
         "",
         {resource, {"KEY=VALUE", "a tag", Names::kNothing, true, true}},
         {},
         "ebs-cli tag add pg team=db",
         add_tags},
        {"tag remove",
         "Remove tags",
         "",
         {resource, {"KEY", "a tag's key", Names::kNothing, true, true}},
         {},
         "ebs-cli tag remove pg team",
         remove_tags},
        {"tag list",
         "List tags",
         "",
         {{"RESOURCE", "of this one (default: all)", Names::kResource, false}},
         {},
         "ebs-cli tag list pg",
         list_tags,
         list_of(tag_view)},
    };
}

}  // namespace ublkd::cli
