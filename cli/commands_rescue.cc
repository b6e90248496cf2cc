#include <fmt/format.h>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

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
    return context.print_done(answer, device, "recovered");
}

Outcome<int> remove_orphan(Context& context) {
    const std::string device = device_name(context.positional("DEVICE"));
    CLI_TRY(context.confirm(fmt::format("Fail what waits for {} and remove it?", device)));
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("DELETE", "/v1/rescue/" + percent_encoded(device)));
    return context.print_done(answer, device, "removed");
}

}  // namespace

std::vector<Command> rescue_commands() {
    const Positional device{"DEVICE", "N, ublkbN or /dev/ublkbN", Names::kDevice};
    return {
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
         {{"--yes", "", "do not ask"}},
         "ebs-cli rescue remove ublkb0 --yes",
         remove_orphan},
    };
}

}  // namespace ublkd::cli
