#include <fmt/format.h>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/drain.h"
#include "cli/tags.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

std::string instance_path(const std::string& instance) {
    return "/v1/instances/" + percent_encoded(instance);
}

Outcome<int> create_instance(Context& context) {
    Json body = Json::object();
    if (context.has("name")) body.set("Name", context.option("name"));
    CLI_TRY_ASSIGN(Json tags, parse_tags(context.all("tag")));
    if (!tags.items().empty()) body.set("Tags", std::move(tags));
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/instances", body));
    if (!context.for_person()) return context.print_item(instance_view(), answer);
    context.print(fmt::format("{}  created\n", answer["InstanceId"].as_string()));
    return 0;
}

Outcome<int> list_instances(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.fetch_list("/v1/instances", "Instances",
                                                         context.positionals("INSTANCE")));
    return context.print_list(instance_view(), answer);
}

Outcome<int> show_instance(Context& context) {
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("GET", instance_path(context.positional("INSTANCE"))));
    return context.print_item(instance_view(), answer);
}

Outcome<int> remove_instance(Context& context) {
    CLI_TRY_ASSIGN(const auto shown,
                   context.client().call("GET", instance_path(context.positional("INSTANCE"))));
    std::vector<std::string> doomed;
    for (const Json& attachment : shown["Attachments"].items()) {
        if (attachment["DeleteOnTermination"].as_bool())
            doomed.push_back(attachment["VolumeId"].as_string());
    }
    if (!doomed.empty()) {
        CLI_TRY(context.confirm(
            fmt::format("Delete the instance and, with all data, {}?", fmt::join(doomed, ", "))));
    }
    const std::string id = shown["InstanceId"].as_string();
    CLI_TRY_ASSIGN(const auto answer, context.client().call("DELETE", instance_path(id)));
    return context.print_done(answer, id, "deleted");
}

Outcome<int> list_hosts(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/hosts"));
    return context.print_list(host_view(), answer);
}

Outcome<int> show_host(Context& context) {
    CLI_TRY_ASSIGN(
        const auto answer,
        context.client().call("GET", "/v1/hosts/" + percent_encoded(context.positional("HOST"))));
    return context.print_item(host_view(), answer);
}

std::string host_path(const std::string& host) { return "/v1/hosts/" + percent_encoded(host); }

Outcome<int> drain_host(Context& context) {
    return drain(context, {host_path(context.positional("HOST")), "Name", "HostId", host_view});
}

Outcome<int> remove_host(Context& context) {
    const std::string host = context.positional("HOST");
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call(
                       "DELETE", host_path(host) + (context.has("force") ? "?force=true" : "")));
    return context.print_done(answer, host, "removed");
}

}  // namespace

std::vector<Command> instance_commands() {
    const std::vector<Positional> instance{
        {"INSTANCE", "id, a unique beginning of it, or name", Names::kInstance}};
    return {
        {"instance create",
         "Create an instance: something that volumes are attached to, such as a guest",
         "",
         {},
         {{"--name", "NAME", "its tag Name"},
          {"--tag", "KEY=VALUE", "a tag", Names::kNothing, true}},
         "ebs-cli instance create --name web1",
         create_instance,
         item_of(instance_view)},
        {"instance list",
         "List instances",
         "",
         {{"INSTANCE", "these alone (default: all)", Names::kInstance, false, true}},
         {},
         "ebs-cli instance list",
         list_instances,
         list_of(instance_view)},
        {"instance show",
         "Show one instance",
         "",
         instance,
         {},
         "ebs-cli instance show web1",
         show_instance,
         item_of(instance_view)},
        {"instance delete",
         "Delete an instance: its volumes are detached, and deleted where they were attached so",
         "",
         instance,
         {{"--yes", "", "do not ask"}},
         "ebs-cli instance delete web1",
         remove_instance},
        {"host list",
         "List hosts",
         "",
         {},
         {},
         "ebs-cli host list",
         list_hosts,
         list_of(host_view)},
        {"host show",
         "Show one host",
         "",
         {{"HOST", "id, a unique beginning of it, or name", Names::kHost}},
         {},
         "ebs-cli host show h1",
         show_host,
         item_of(host_view)},
        {"host drain",
         "Move the replicas in all of a host's pools to other pools",
         "As 'pool drain' of each.",
         {{"HOST", "id, a unique beginning of it, or name", Names::kHost}},
         drain_options(),
         "ebs-cli host drain h3 --wait",
         drain_host,
         item_of(host_view)},
        {"host remove",
         "Forget a host that has no pools and no attachments any more",
         "",
         {{"HOST", "id, a unique beginning of it, or name", Names::kHost}},
         {{"--force", "",
           "one that does not answer and is gone for good: with its pools, as far as no replica "
           "there "
           "is a volume's member"}},
         "ebs-cli host remove h3",
         remove_host},
    };
}

}  // namespace ublkd::cli
