#include <fmt/format.h>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/tags.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

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

std::vector<Command> tag_commands() {
    const Positional resource{"RESOURCE",
                              "a volume or an instance: id, a unique beginning of it, or name",
                              Names::kResource};
    return {
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
