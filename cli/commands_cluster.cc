#include <fmt/format.h>

#include <iostream>

#include "cli/command.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

constexpr const char* kNext = "next: systemctl restart ublkd";

/// What init and join answer.
Outcome<int> print_cluster(Context& context, const Json& answer, const std::string& done,
                           const std::string& then) {
    if (context.quiet()) {
        context.print(answer["HostName"].as_string() + "\n");
        return 0;
    }
    if (!context.for_person()) return context.print_answer(answer);
    context.print(fmt::format("{}  {}  listens on {}  metadata {}\n", done,
                              answer["HostName"].as_string(), answer["Listen"].as_string(),
                              answer["Metadata"].as_string()));
    context.note(kNext);
    context.note(then);
    return 0;
}

/// A token's second way in keeps it out of the list of processes.
Outcome<std::string> token_given(const Context& context) {
    const std::string given = context.positional("TOKEN");
    if (given != "-") return given;
    std::string line;
    std::getline(std::cin, line);
    if (line.empty()) return usage("there is no token on standard input");
    return line;
}

Outcome<int> init_cluster(Context& context) {
    Json body = Json::object().set("Listen", context.option("listen"));
    if (context.has("metadata-listen"))
        body.set("MetadataListen", context.option("metadata-listen"));
    if (context.has("name")) body.set("Name", context.option("name"));
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/cluster", body));
    return print_cluster(context, answer, "made a cluster",
                         "then: ebs-cli cluster token, and at another host ebs-cli cluster join");
}

Outcome<int> make_token(Context& context) {
    Json body = Json::object();
    if (context.has("expires")) {
        const auto life = parse_duration(context.option("expires"));
        if (!life) return usage("--expires: " + life.error());
        body.set("ExpiresSeconds",
                 static_cast<std::uint64_t>(
                     std::chrono::duration_cast<std::chrono::seconds>(*life).count()));
    }
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/cluster/tokens", body));
    if (!context.for_person() && !context.quiet()) return context.print_answer(answer);
    context.print(answer["Token"].as_string() + "\n");
    if (context.for_person())
        context.note(
            fmt::format("for one host, until {}: ebs-cli cluster join TOKEN --listen "
                        "ADDRESS:PORT",
                        answer["EndTime"].as_string()));
    return 0;
}

Outcome<int> join_cluster(Context& context) {
    CLI_TRY_ASSIGN(const std::string given, token_given(context));
    Json body = Json::object().set("Token", given).set("Listen", context.option("listen"));
    if (context.has("name")) body.set("Name", context.option("name"));
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/cluster/join", body));
    return print_cluster(context, answer, "joined as",
                         "then: ebs-cli pool add DIR --domain " + answer["HostName"].as_string());
}

}  // namespace

std::vector<Command> cluster_commands() {
    const Option listen{.name = "--listen",
                        .value = "ADDRESS:PORT",
                        .help = "where this host's volumes listen for the other hosts",
                        .required = true};
    const Option name{"--name", "HOST", "this host's name (default: host.name in ublkd.toml)"};
    return {
        {"cluster init",
         "Begin a cluster at this host: an authority that signs for hosts, and this host's "
         "certificate",
         "What is made lies in the state folder's cluster/, and counts when ublkd starts again. "
         "ca-key.pem there is the cluster's authority: keep a copy of it in a safe place.",
         {},
         {listen,
          {"--metadata-listen", "ADDRESS:PORT",
           "where the other hosts reach the metadata (default: port 7070 beside --listen)"},
          name},
         "ebs-cli cluster init --listen 192.0.2.1:7071",
         init_cluster},
        {"cluster token",
         "Print a token by which one host joins the cluster, once",
         "At the host where the cluster began. Who has it, and reaches the host's metadata "
         "address, is a host of the cluster: keep it to yourself.",
         {},
         {{"--expires", "TIME",
           "until when it is good: 30s, 5m, 2h; 7 days at most (default: 1h)"}},
         "ebs-cli cluster token --expires 10m",
         make_token},
        {"cluster join",
         "Let this host join a cluster, by a token of 'ebs-cli cluster token'",
         "Before this host's first 'ebs-cli init'. Its key is made here and never leaves it.",
         {{"TOKEN", "what 'ebs-cli cluster token' printed; - reads it from standard input"}},
         {listen, name},
         "ssh one ebs-cli cluster token -q | ebs-cli cluster join - --listen 192.0.2.2:7071",
         join_cluster},
    };
}

}  // namespace ublkd::cli
