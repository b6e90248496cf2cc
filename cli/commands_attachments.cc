#include <fmt/format.h>

#include "cli/attach_hints.h"
#include "cli/cells.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/tags.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;
using namespace std::chrono_literals;

Outcome<Json> attach_body(const Context& context) {
    Json body = Json::object();
    if (context.has("instance")) body.set("InstanceId", context.option("instance"));
    if (context.has("device")) body.set("Device", context.option("device"));
    if (context.has("frontend")) body.set("Frontend", context.option("frontend"));
    for (const auto& [option, key] : {std::pair("queues", "Queues"), std::pair("depth", "Depth")}) {
        if (!context.has(option)) continue;
        CLI_TRY_ASSIGN(const auto number,
                       parse_number(fmt::format("--{}", option), context.option(option)));
        body.set(key, number);
    }
    for (const auto& [option, key] :
         {std::pair("boot", "Boot"), std::pair("delete-on-termination", "DeleteOnTermination"),
          std::pair("read-only", "ReadOnly"), std::pair("dry-run", "DryRun")}) {
        if (context.has(option)) body.set(key, true);
    }
    return body;
}

Outcome<int> attach(Context& context) {
    CLI_TRY_ASSIGN(const auto body, attach_body(context));
    CLI_TRY_ASSIGN(const auto timeout, context.timeout(5min));
    const std::string volume = context.positional("VOLUME");
    CLI_TRY_ASSIGN(const auto answer,
                   call_and_tell(context, "attach " + volume, volume_path(volume) + "/attach", body,
                                 timeout, volume));
    if (context.has("dry-run")) return context.print_plan(answer);
    if (context.quiet()) {
        context.print(answer["Device"].as_string() + "\n");
        return 0;
    }
    if (!context.for_person()) return context.print_item(attachment_view(), answer);
    const std::string link = answer["Link"].as_string();
    context.print(fmt::format("{}  {}{}\n", answer["State"].as_string(),
                              answer["Device"].as_string(),
                              link.empty() ? "" : fmt::format("  (= {})", link)));
    for (const auto& hint : attach_hints(answer, volume, has_unit())) context.note(hint);
    return 0;
}

Outcome<int> detach_one(Context& context, const std::string& volume, const std::string& instance,
                        std::chrono::milliseconds timeout) {
    Json body = Json::object();
    if (!instance.empty()) body.set("InstanceId", instance);
    if (context.has("force")) body.set("Force", true);
    if (context.has("dry-run")) body.set("DryRun", true);
    CLI_TRY_ASSIGN(const auto answer,
                   call_and_tell(context, "detach " + volume, volume_path(volume) + "/detach", body,
                                 timeout, volume));
    if (context.has("dry-run")) return context.print_plan(answer);
    if (context.quiet())
        context.print(answer["VolumeId"].as_string() + "\n");
    else if (!context.for_person())
        return context.print_item(attachment_view(), answer);
    else
        context.print(
            fmt::format("{}  {}\n", answer["VolumeId"].as_string(), answer["State"].as_string()));
    return 0;
}

Outcome<int> detach(Context& context) {
    const std::string volume = context.positional("VOLUME");
    if (context.has("all") == !volume.empty())
        return usage("give a VOLUME or --all, one of the two");
    CLI_TRY_ASSIGN(const auto timeout, context.timeout(5min));
    if (!context.has("all"))
        return detach_one(context, volume, context.option("instance"), timeout);
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/attachments"));
    std::string wanted;
    if (context.has("instance")) {
        CLI_TRY_ASSIGN(const auto instance,
                       context.client().call(
                           "GET", "/v1/instances/" + percent_encoded(context.option("instance"))));
        wanted = instance["InstanceId"].as_string();
    }
    Outcome<int> result = 0;
    for (const Json& attachment : answer["Attachments"].items()) {
        if (!wanted.empty() && attachment["InstanceId"].as_string() != wanted) continue;
        const auto done = detach_one(context, attachment["VolumeId"].as_string(), "", timeout);
        if (done) continue;
        context.note("ebs-cli: " + done.error().message);  // the others go on
        result = done.error().exit_code;
    }
    return result;
}

Outcome<int> list_attachments(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/attachments"));
    return context.print_list(attachment_view(), answer);
}

}  // namespace

std::vector<Command> attachment_commands() {
    const std::vector<Positional> volume{
        {"VOLUME", "id, a unique beginning of it, or name", Names::kVolume}};
    const Option timeout{"--timeout", "TIME",
                         "give up waiting after TIME (default 5m); the daemon goes on"};
    const Command made{
        "attach",
        "Attach a volume: /dev/ublkbN where the kernel has ublk, else NBD",
        "The attachment comes back after a restart of the daemon and of the machine. "
        "/dev/ebs/VOLUME stays its name.",
        volume,
        {{"--instance", "INSTANCE", "to what it is attached (default: this host)",
          Names::kInstance},
         {"--frontend",
          "KIND",
          "auto, ublk or nbd",
          Names::kNothing,
          false,
          false,
          {"auto", "ublk", "nbd"}},
         {"--device", "LABEL",
          "a label such as /dev/sdf, unique in the instance: a link /dev/ebs/INSTANCE/sdf"},
         {"--read-only", "", "nobody may write"},
         {"--boot", "", "mark it as the instance's boot volume"},
         {"--delete-on-termination", "", "delete it when the instance is deleted"},
         {"--queues", "N", "hardware queues of /dev/ublkbN (default 1)"},
         {"--depth", "N",
          "requests in flight per queue (default 128); queues times depth is at most 1024"},
         kDryRun,
         timeout,
         progress_option()},
        "ebs-cli attach pg",
        attach,
        item_of(attachment_view)};
    const Command unmade{
        "detach",
        "Detach a volume, or all",
        "Refused while somebody uses the device or is connected, unless --force.",
        {{"VOLUME", "id, a unique beginning of it, or name", Names::kVolume, false}},
        {{"--all", "", "every volume (of --instance)"},
         {"--instance", "INSTANCE", "only from this one", Names::kInstance},
         {"--force", "", "do not wait for who uses it; their I/O fails"},
         kDryRun,
         timeout,
         progress_option()},
        "ebs-cli detach pg",
        detach,
        item_of(attachment_view)};
    Command long_attach = made;
    long_attach.path = "volume attach";
    long_attach.example = "ebs-cli volume attach pg --frontend nbd";
    Command long_detach = unmade;
    long_detach.path = "volume detach";
    long_detach.example = "ebs-cli volume detach pg";
    return {made,
            unmade,
            long_attach,
            long_detach,
            {"attachment list",
             "List attachments",
             "",
             {},
             {},
             "ebs-cli attachment list -o wide",
             list_attachments,
             list_of(attachment_view)}};
}

}  // namespace ublkd::cli
