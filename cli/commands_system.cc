#include <fmt/format.h>

#include <thread>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/help.h"
#include "cli/pool_request.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;
using namespace std::chrono_literals;

Outcome<int> init(Context& context) {
    for (const char* of_a_pool : {"domain", "size", "buffered"}) {
        if (context.has(of_a_pool) && !context.has("dir"))
            return usage(fmt::format("--{} is the first pool's: give its --dir too", of_a_pool));
    }
    CLI_TRY_ASSIGN(const auto body, pool_request(context, context.option("dir")));
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/init", body));
    if (context.quiet()) {
        context.print(answer["Pool"]["PoolId"].as_string() + "\n");
        return 0;
    }
    if (!context.for_person()) return context.print_answer(answer);
    if (context.has("dry-run")) {
        context.print("would initialize this host\n");
        return 0;
    }
    context.print("initialized\n");
    if (answer["Pool"].is_null()) {
        context.note("next: ebs-cli pool add DIR --domain NAME");
        return 0;
    }
    context.print(pool_line(answer["Pool"]));
    note_pool(context, answer["Pool"]);
    return 0;
}

std::string ok_of(std::uint64_t ok, std::uint64_t all) { return fmt::format("{}/{}", ok, all); }

std::string status_text(const Json& status) {
    const std::string head = fmt::format("ublkd {} up {}", status["Version"].as_string(),
                                         short_duration(status["UptimeSeconds"].u64()));
    if (!status["Initialized"].as_bool())
        return head + "  not initialized: ebs-cli init --dir DIR\n";
    std::string volumes = std::to_string(status["Volumes"].u64());
    std::vector<std::string> notes;
    if (status["VolumesSyncing"].u64() > 0)
        notes.push_back(fmt::format("{} syncing", status["VolumesSyncing"].u64()));
    if (status["VolumesDegraded"].u64() > 0)
        notes.push_back(fmt::format("{} degraded", status["VolumesDegraded"].u64()));
    if (!notes.empty()) volumes += fmt::format(" ({})", fmt::join(notes, ", "));
    const auto total = status["TotalBytes"].u64();
    const auto pools = status["Pools"].u64();
    const auto pools_ok = status["PoolsOk"].u64();
    const bool alone = status["Hosts"].u64() <= 1;
    std::string space;
    if (total != 0 || alone)  // of other hosts it is not known
        space = fmt::format("  space {}% of {}{}",
                            total == 0 ? 0 : status["UsedBytes"].u64() * 100 / total,
                            long_size(total), alone ? "" : " here");
    std::string text =
        fmt::format("{}  hosts {}  pools {}{}  volumes {}{}\n", head,
                    ok_of(status["HostsOk"].u64(), status["Hosts"].u64()), ok_of(pools_ok, pools),
                    pools == pools_ok ? " ok" : "", volumes, space);
    for (const Json& problem : status["Problems"].items())
        text += "! " + problem.as_string() + "\n";
    for (const Json& note : status["Notes"].items()) text += "- " + note.as_string() + "\n";
    return text;
}

Outcome<int> status(Context& context) {
    for (;;) {
        CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/status"));
        if (context.for_person()) {
            context.print((context.has("watch") ? "\033[H\033[2J" : "") + status_text(answer));
        } else {
            CLI_TRY(context.print_answer(answer));
        }
        if (!context.has("watch"))
            return answer["State"].as_string() == "degraded" ? kExitDegraded : 0;
        std::fflush(stdout);
        std::this_thread::sleep_for(2s);
    }
}

/// Findings, each with its fix. Exit code 8 where one is a problem.
Outcome<int> print_findings(Context& context, const std::string& path) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", path));
    bool problem = false;
    for (const Json& finding : answer["Findings"].items())
        problem = problem || finding["State"].as_string() == "problem";
    if (context.for_person() && context.output().filters.empty() && context.output().sort.empty()) {
        for (const Json& finding : answer["Findings"].items()) {
            const std::string state = finding["State"].as_string();
            context.print(fmt::format("{} {}: {}\n",
                                      state == "ok"        ? "ok     "
                                      : state == "warning" ? "warning"
                                                           : "PROBLEM",
                                      finding["Check"].as_string(),
                                      finding["Message"].as_string()));
            if (!finding["Fix"].is_null())
                context.print("        fix: " + finding["Fix"].as_string() + "\n");
        }
    } else {
        CLI_TRY(context.print_list(finding_view(), answer));
    }
    return problem ? kExitDegraded : 0;
}

Outcome<int> doctor(Context& context) { return print_findings(context, "/v1/doctor"); }

Outcome<int> why(Context& context) {
    return print_findings(context, volume_path(context.positional("VOLUME")) + "/why");
}

Outcome<int> version(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/version"));
    if (!context.for_person())
        return context.print_answer(
            Json::object().set("Client", UBLKD_VERSION).set("Daemon", answer));
    context.print(fmt::format("ebs-cli {}\nublkd {} (API {}, {})\n", UBLKD_VERSION,
                              answer["Version"].as_string(), answer["ApiVersion"].as_string(),
                              answer["Initialized"].as_bool() ? "initialized" : "not initialized"));
    return 0;
}

Outcome<int> completion(Context& context) {
    const auto script = completion_script(context.positional("SHELL"));
    if (!script) return usage(script.error());
    context.print(*script);
    return 0;
}

void print_names(Context& context, const std::string& path, const char* list, const char* id,
                 const char* name) {
    const auto answer = context.client().call("GET", path, {}, 2s);
    if (!answer) return;  // no daemon: nothing to offer
    for (const Json& item : (*answer)[list].items()) {
        context.print(item[id].as_string() + "\n");
        if (!item[name].as_string().empty()) context.print(item[name].as_string() + "\n");
    }
}

Outcome<int> complete(Context& context) {
    for (const std::string& word : completions(context.positionals("WORD"))) {
        if (word == "<volume>" || word == "<resource>")
            print_names(context, "/v1/volumes", "Volumes", "VolumeId", "Name");
        if (word == "<instance>" || word == "<resource>")
            print_names(context, "/v1/instances", "Instances", "InstanceId", "Name");
        if (word == "<host>") print_names(context, "/v1/hosts", "Hosts", "HostId", "Name");
        if (word == "<pool>") print_names(context, "/v1/pools", "Pools", "PoolId", "Path");
        if (word == "<permission>")
            print_names(context, "/v1/permissions", "Permissions", "ResourceId", "");
        if (word == "<device>") print_names(context, "/v1/rescue", "Orphans", "Device", "");
        if (!word.starts_with('<')) context.print(word + "\n");
    }
    return 0;
}

Outcome<int> print_man_page(Context& context) {
    context.print(man_page());
    return 0;
}

}  // namespace

std::vector<Command> system_commands() {
    std::vector<Option> init_options = pool_options();
    init_options.insert(init_options.begin(),
                        {"--dir", "DIR", "make the first pool in this folder", Names::kFile});
    return {
        {"status",
         "One screen: daemon, hosts, pools, degraded volumes, resyncs",
         "Exit code 8 where something is degraded.",
         {},
         {{"--watch", "", "again every 2 s, until it is interrupted"}},
         "ebs-cli status",
         status},
        {"doctor",
         "Check kernel, ublk, io_uring, limits, folders and pools; each finding with its fix",
         "Exit code 8 where there is a problem.",
         {},
         {},
         "ebs-cli doctor",
         doctor,
         list_of(finding_view)},
        {"why",
         "Say which rule keeps a volume's I/O, replicas or attachment waiting, and the next safe "
         "command",
         "Exit code 8 where there is a problem.",
         {{"VOLUME", "id, a unique beginning of it, or name", Names::kVolume}},
         {},
         "ebs-cli why pg",
         why,
         list_of(finding_view)},
        {"init",
         "First start: write the configuration, make the first pool",
         "",
         {},
         init_options,
         "ebs-cli init --dir /srv/ebs --domain disk1",
         init},
        {"version",
         "Versions of ebs-cli and of the daemon",
         "",
         {},
         {},
         "ebs-cli version -o json",
         version},
        {"completion",
         "Print a completion script for bash, zsh or fish",
         "",
         {{"SHELL", "bash, zsh or fish"}},
         {},
         "source <(ebs-cli completion bash)",
         completion},
        {"__complete",
         "What may follow",
         "",
         {{"WORD", "the words of the command line", Names::kNothing, false, true}},
         {},
         "",
         complete,
         {},
         Listed::kNowhere},
        {"__man", "The man page", "", {}, {}, "", print_man_page, {}, Listed::kNowhere},
    };
}

}  // namespace ublkd::cli
