#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/tags.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;
using namespace std::chrono_literals;

/// "vol-…  available  10 GiB  replicas 2 (a, b)"
std::string created_line(const Json& volume) {
    std::vector<std::string> domains;
    for (const Json& replica : volume["Replicas"].items())
        domains.push_back(replica["Domain"].as_string());
    return fmt::format("{}  {}  {}  replicas {} ({})\n", volume["VolumeId"].as_string(),
                       volume["State"].as_string(), long_size(volume["SizeBytes"].u64()),
                       volume["Health"]["Wanted"].u64(), fmt::join(domains, ", "));
}

/// Pools that are drained count for nothing; where that is why, it is said.
void note_one_replica(Context& context) {
    const auto drains = context.client().call("GET", "/v1/drains", {}, 5s);
    if (!drains || (*drains)["Drains"].items().empty()) {
        context.note(
            "note: one replica, since all pools are in one failure domain; 'ebs-cli pool add "
            "DIR --domain NAME' on another disk gives new volumes two");
        return;
    }
    const Json& drain = (*drains)["Drains"].items().front();
    context.note(fmt::format(
        "note: one replica, since pools that are draining take none ({} of host {}), and all "
        "others are in one failure domain; 'ebs-cli pool add DIR --domain NAME', or 'ebs-cli pool "
        "drain {} --cancel', gives new volumes two",
        drain["Path"].as_string(), drain["HostName"].as_string(), drain["PoolId"].as_string()));
}

Outcome<int> create_volume(Context& context) {
    Json body = Json::object();
    const auto size = parse_size(context.option("size"));
    if (!size) return usage("--size: " + size.error());
    body.set("SizeBytes", *size);
    if (context.has("name")) body.set("Name", context.option("name"));
    if (context.has("replicas")) {
        CLI_TRY_ASSIGN(const auto replicas, parse_number("--replicas", context.option("replicas")));
        body.set("Replicas", replicas);
    }
    if (context.has("block-size")) {
        CLI_TRY_ASSIGN(const auto block,
                       parse_number("--block-size", context.option("block-size")));
        body.set("BlockSize", block);
    }
    if (context.has("durability")) body.set("Durability", context.option("durability"));
    if (context.has("on-full")) body.set("OnFull", context.option("on-full"));
    if (context.has("multi-attach")) body.set("MultiAttachEnabled", true);
    if (context.has("client-token")) body.set("ClientToken", context.option("client-token"));
    if (context.has("dry-run")) body.set("DryRun", true);
    CLI_TRY_ASSIGN(Json tags, parse_tags(context.all("tag")));
    if (!tags.items().empty()) body.set("Tags", std::move(tags));
    std::uint64_t count = 1;
    if (context.has("count")) {
        CLI_TRY_ASSIGN(count, parse_number("--count", context.option("count")));
        if (count < 1 || count > 1000)
            return usage(fmt::format("--count is 1 to 1000; '{}' was given", count));
        if (count > 1 && (context.has("name") || context.has("client-token")))
            return usage(
                "--count makes volumes that differ in their ids alone: give no --name and no "
                "--client-token");
    }
    CLI_TRY_ASSIGN(const auto timeout, context.timeout(0ms));
    for (std::uint64_t i = 0; i < count; ++i) {
        CLI_TRY_ASSIGN(const auto answer,
                       call_and_tell(context, "volume create", "/v1/volumes", body, timeout));
        if (context.has("dry-run")) return context.print_plan(answer);
        if (!context.for_person()) {
            CLI_TRY(context.print_item(volume_view(), answer));
            continue;
        }
        context.print(created_line(answer));
        if (i == 0 && !context.has("replicas") && answer["Health"]["Wanted"].u64() < 2) {
            note_one_replica(context);
        }
    }
    return 0;
}

Outcome<int> list_volumes(Context& context) {
    CLI_TRY_ASSIGN(const auto answer,
                   context.fetch_list("/v1/volumes", "Volumes", context.positionals("VOLUME")));
    return context.print_list(volume_view(), answer);
}

/// Until the volume's state or health is `wanted`.
Outcome<Json> wait_for(Context& context, const std::string& volume, const std::string& wanted) {
    const std::vector<std::string> known{"creating", "available", "in-use", "deleted",
                                         "ok",       "degraded",  "syncing"};
    if (std::ranges::find(known, wanted) == known.end())
        return usage(
            fmt::format("--wait takes one of {}; '{}' was given", fmt::join(known, ", "), wanted));
    CLI_TRY_ASSIGN(const auto timeout, context.timeout(5min));
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    Progress progress(context, fmt::format("{} to be {}", volume, wanted));
    for (;;) {
        auto answer = context.client().call("GET", volume_path(volume));
        if (!answer && answer.error().exit_code == kExitNotFound && wanted == "deleted")
            return Json::object().set("VolumeId", volume).set("State", "deleted");
        if (!answer) return answer;
        if ((*answer)["State"].as_string() == wanted ||
            (*answer)["Health"]["State"].as_string() == wanted)
            return answer;
        if (std::chrono::steady_clock::now() >= deadline) {
            return std::unexpected(
                Failure{kExitTimedOut, "",
                        fmt::format("{} is {} ({}) and not {} in time; the daemon goes on", volume,
                                    (*answer)["State"].as_string(), health_text(*answer), wanted)});
        }
        progress.tell(look_at(*answer));
        std::this_thread::sleep_for(100ms);
    }
}

/// Why a replica was lost, and how it comes back.
std::string story_of(const Json& replica) {
    std::string made;
    if (!replica["Cause"].is_null()) made += "  " + replica["Cause"].as_string();
    if (!replica["WaitsFor"].is_null())
        made += "  returns; waits: " + replica["WaitsFor"].as_string();
    if (replica["Leaving"].as_bool())
        made += "  leaves, since its pool is draining" +
                (replica["LeavingWaitsFor"].is_null()
                     ? ""
                     : "; waits: " + replica["LeavingWaitsFor"].as_string());
    if (!replica["DifferingBytes"].is_null())
        made += fmt::format("  {} of {} copied", short_size(replica["CopiedBytes"].u64()),
                            short_size(replica["DifferingBytes"].u64()));
    return made;
}

Outcome<int> show_volume(Context& context) {
    const std::string volume = context.positional("VOLUME");
    for (const char* of_a_wait : {"timeout", "progress"}) {
        if (context.has(of_a_wait) && !context.has("wait"))
            return usage(
                fmt::format("--{} goes with --wait: without it nothing is waited for", of_a_wait));
    }
    if (context.has("wait")) {
        CLI_TRY_ASSIGN(const auto answer, wait_for(context, volume, context.option("wait")));
        return context.print_item(volume_view(), answer);
    }
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", volume_path(volume)));
    if (context.output().format != Format::kTable || !context.for_person())
        return context.print_item(volume_view(), answer);
    OutputOptions wide = context.output();
    wide.format = Format::kWide;  // a screen for one volume has room for everything
    const auto text = item_text(volume_view(), answer, wide);
    if (!text) return usage(text.error());
    context.print(*text);
    for (const Json& replica : answer["Replicas"].items()) {
        context.print(fmt::format("replica {}  {}  domain {}  {}{}\n",
                                  replica["ReplicaId"].as_string(), replica["Role"].as_string(),
                                  replica["Domain"].as_string(), replica["PoolId"].as_string(),
                                  story_of(replica)));
    }
    for (const Json& attachment : answer["Attachments"].items()) {
        context.print(fmt::format(
            "attachment {}  {}  {}  {}{}\n", attachment["InstanceId"].as_string(),
            attachment["State"].as_string(), attachment["Frontend"].as_string(),
            attachment["Device"].as_string(),
            attachment["StateMessage"].is_null() ? ""
                                                 : "  " + attachment["StateMessage"].as_string()));
    }
    if (answer["DataMayBeLost"].as_bool())
        context.print("! data may have been lost: a replica was forced into service\n");
    if (!answer["Health"]["Reason"].is_null())
        context.print("! " + answer["Health"]["Reason"].as_string() + "\n");
    return 0;
}

Outcome<int> modify(Context& context) {
    Json body = Json::object();
    if (context.has("durability")) body.set("Durability", context.option("durability"));
    if (context.has("on-full")) body.set("OnFull", context.option("on-full"));
    if (context.has("name")) body.set("Name", context.option("name"));
    if (context.has("delete-on-termination")) {
        const std::string given = context.option("delete-on-termination");
        if (given != "yes" && given != "no")
            return usage(
                fmt::format("--delete-on-termination is yes or no; '{}' was given", given));
        body.set("DeleteOnTermination", given == "yes");
    }
    if (body.members().empty())
        return usage(
            "nothing to change: give --name, --durability, --on-full or --delete-on-termination");
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("PATCH", volume_path(context.positional("VOLUME")), body));
    if (!context.for_person()) return context.print_item(volume_view(), answer);
    context.print(fmt::format("{}  durability {}  on-full {}\n", answer["VolumeId"].as_string(),
                              answer["Durability"].as_string(), answer["OnFull"].as_string()));
    if (const std::string in_force = answer["DurabilityInForce"].as_string(); !in_force.empty())
        context.note(
            fmt::format("note: durability {} is in force until the next attach", in_force));
    return 0;
}

Outcome<int> rename(Context& context) {
    const Json body = Json::object().set("Name", context.positional("NAME"));
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("PATCH", volume_path(context.positional("VOLUME")), body));
    if (!context.for_person()) return context.print_item(volume_view(), answer);
    context.print(
        fmt::format("{}  {}\n", answer["VolumeId"].as_string(), answer["Name"].as_string()));
    return 0;
}

/// The ids of the volumes, each once, after the daemon has said that each can be deleted.
Outcome<std::vector<std::string>> deletable(Context& context,
                                            const std::vector<std::string>& volumes) {
    std::vector<std::string> ids;
    for (const std::string& volume : volumes) {
        CLI_TRY_ASSIGN(const auto shown, context.client().call("GET", volume_path(volume)));
        const std::string id = shown["VolumeId"].as_string();
        if (std::ranges::find(ids, id) != ids.end()) continue;
        CLI_TRY(context.client().call("DELETE", volume_path(volume) + "?dry_run=true"));
        ids.push_back(id);
    }
    return ids;
}

Outcome<int> remove_volume(Context& context) {
    const auto volumes = context.positionals("VOLUME");
    const bool dry_run = context.has("dry-run");
    if (!dry_run) {
        CLI_TRY(context.confirm(fmt::format("Delete {} with all data?", fmt::join(volumes, ", "))));
    }
    CLI_TRY_ASSIGN(const auto ids, deletable(context, volumes));
    for (const std::string& id : ids) {
        Json answer = Json::object().set("Return", true);
        if (!dry_run) {
            CLI_TRY_ASSIGN(answer, context.client().call("DELETE", volume_path(id)));
        }
        (void)context.print_done(answer, id, dry_run ? "would be deleted" : "deleted");
    }
    return 0;
}

Outcome<int> verify(Context& context) {
    Json body = Json::object();
    if (context.has("repair")) body.set("Repair", true);
    CLI_TRY_ASSIGN(const auto timeout, context.timeout(0ms));
    const std::string volume = context.positional("VOLUME");
    CLI_TRY_ASSIGN(const auto answer, call_and_tell(context, "volume verify " + volume,
                                                    volume_path(volume) + "/verify", body, timeout,
                                                    volume, look_at_verify));
    const bool equal = answer["Equal"].as_bool();
    const bool repaired = answer["RepairedBytes"].u64() > 0;
    if (!context.for_person()) {
        CLI_TRY(context.print_answer(answer));
    } else if (equal) {
        context.print(fmt::format("{}  {} member{} equal, {} compared\n",
                                  answer["VolumeId"].as_string(), answer["Members"].u64(),
                                  answer["Members"].u64() == 1 ? "" : "s",
                                  long_size(answer["ComparedBytes"].u64())));
    } else {
        context.print(
            fmt::format("{}  members {} in {}, first at byte {}{}\n",
                        answer["VolumeId"].as_string(), repaired ? "differed" : "DIFFER",
                        long_size(answer["DifferingBytes"].u64()), answer["FirstDifference"].u64(),
                        repaired ? ": the primary's content was written over the others'" : ""));
    }
    return equal || repaired ? 0 : kExitFailed;
}

const Option kTimeout{"--timeout", "TIME",
                      "give up waiting after TIME (5m, 30s); the daemon goes on"};
const Option kYes{"--yes", "", "do not ask"};
const Positional kVolume{"VOLUME", "id, a unique beginning of it, or name", Names::kVolume};

}  // namespace

std::vector<Command> volume_commands() {
    const Option durability{
        "--durability",
        "MODE",
        "flush (default of a new volume): a write is durable after a flush, as with a disk; write: "
        "before it is acknowledged",
        Names::kNothing,
        false,
        false,
        {"flush", "write"}};
    const Option on_full{
        "--on-full",
        "MODE",
        "when a pool is full: wait for space (default of a new volume), or fail the write",
        Names::kNothing,
        false,
        false,
        {"wait", "fail"}};
    return {
        {"volume create",
         "Create a volume",
         "Its replicas are in pools of different failure domains: two where there are two, else "
         "one. It is named by --name in every other command.",
         {},
         {{"--size", "SIZE", "10G is 10 GiB; whole MiB", Names::kNothing, false, true},
          {"--name", "NAME", "its tag Name"},
          {"--replicas", "N", "1 to 3; not more than failure domains"},
          {"--block-size", "BYTES", "logical block: 512 (default) or 4096"},
          durability,
          on_full,
          {"--multi-attach", "", "to up to 16 instances at a time, each on another host"},
          {"--tag", "KEY=VALUE", "a tag", Names::kNothing, true},
          {"--count", "N", "so many alike"},
          {"--client-token", "TOKEN", "the same request with the same token makes one volume"},
          kDryRun,
          kTimeout,
          progress_option()},
         "ebs-cli volume create --size 10G --name pg",
         create_volume,
         item_of(volume_view)},
        {"volume list",
         "List volumes",
         "",
         {{"VOLUME", "these alone (default: all)", Names::kVolume, false, true}},
         {},
         "ebs-cli volume list --filter state=in-use",
         list_volumes,
         list_of(volume_view)},
        {"volume show",
         "Show one volume with its replicas and attachments",
         "",
         {kVolume},
         {{"--wait", "STATE",
           "until its state or health is STATE: creating, available, in-use, deleted, ok, "
           "degraded, syncing"},
          kTimeout,
          progress_option()},
         "ebs-cli volume show pg --wait ok",
         show_volume,
         item_of(volume_view)},
        {"volume modify",
         "Change a volume",
         "",
         {kVolume},
         {{"--name", "NAME", "its tag Name"},
          durability,
          on_full,
          {"--delete-on-termination", "YES|NO",
           "delete it when the instance it is attached to is deleted: yes or no"}},
         "ebs-cli volume modify pg --on-full fail",
         modify,
         item_of(volume_view)},
        {"volume rename",
         "Give a volume another name",
         "",
         {kVolume, {"NAME", "the new name"}},
         {},
         "ebs-cli volume rename pg postgres",
         rename,
         item_of(volume_view)},
        {"volume delete",
         "Delete volumes with all their data",
         "",
         {{"VOLUME", "id, a unique beginning of it, or name", Names::kVolume, true, true}},
         {kYes, kDryRun},
         "ebs-cli volume delete pg --yes",
         remove_volume},
        {"volume verify",
         "Compare the members of a volume byte for byte",
         "Exit code 1 where they differ and are not repaired. The volume stays in use meanwhile.",
         {kVolume},
         {{"--repair", "", "write the primary's content, which guests read, over what differs"},
          kTimeout,
          progress_option()},
         "ebs-cli volume verify pg",
         verify},
    };
}

}  // namespace ublkd::cli
