#include <fmt/format.h>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

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
    return context.print_done(answer, resource, "revoked");
}

}  // namespace

std::vector<Command> permission_commands() {
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
         {{"--yes", "", "do not ask"}},
         "ebs-cli permission revoke vol-0a1b2c3d4e5f60718/replica/1 --yes",
         revoke},
    };
}

}  // namespace ublkd::cli
