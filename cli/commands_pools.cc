#include <fmt/format.h>

#include <filesystem>

#include "cli/cells.h"
#include "cli/command.h"
#include "cli/drain.h"
#include "cli/pool_request.h"
#include "cli/values.h"

namespace ublkd::cli {

using api::Json;

Outcome<Json> pool_request(const Context& context, const std::string& folder) {
    Json body = Json::object();
    if (!folder.empty()) {
        std::error_code error;
        const auto path = std::filesystem::absolute(folder, error);
        if (error) return usage(fmt::format("'{}' is not a path: {}", folder, error.message()));
        body.set("Path", path.lexically_normal().string());
    }
    if (context.has("domain")) body.set("Domain", context.option("domain"));
    if (context.has("size")) {
        const auto size = parse_size(context.option("size"));
        if (!size) return usage("--size: " + size.error());
        body.set("SizeBytes", *size);
    }
    if (context.has("buffered")) body.set("Buffered", true);
    if (context.has("dry-run")) body.set("DryRun", true);
    return body;
}

std::vector<Option> pool_options() {
    return {
        {"--domain", "NAME",
         "failure domain; replicas of a volume never share one (default: the disk)"},
        {"--size", "SIZE", "what its replicas may allocate (default: what the file system has)"},
        {"--buffered", "", "for a file system without O_DIRECT, for trying out"},
        kDryRun};
}

std::string pool_line(const Json& pool) {
    return fmt::format("{}  {}  domain {}  {} free\n", pool["PoolId"].as_string(),
                       pool["Path"].as_string(), pool["Domain"].as_string(),
                       long_size(pool["FreeBytes"].u64()));
}

void note_pool(const Context& context, const Json& pool) {
    if (const auto others = pool["SharesSpaceWith"].items().size(); others > 0)
        context.note(
            fmt::format("note: {} is on the file system of {} other pool{}: what is free "
                        "there is free once",
                        pool["Path"].as_string(), others, others == 1 ? "" : "s"));
    if (pool["Warning"].is_null()) return;
    context.note(
        fmt::format("note: {} is {}", pool["Path"].as_string(), pool["Warning"].as_string()));
}

namespace {

std::string pool_path(const std::string& pool) { return "/v1/pools/" + percent_encoded(pool); }

/// A pool may be named by its folder; the daemon knows it by the whole path.
std::string named(const std::string& text) {
    std::error_code error;
    if (text.find('/') == std::string::npos) return text;
    const auto path =
        std::filesystem::weakly_canonical(std::filesystem::absolute(text, error), error);
    std::string made = error ? text : path.string();
    while (made.size() > 1 && made.ends_with('/')) made.pop_back();
    return made;
}

Outcome<int> add(Context& context) {
    CLI_TRY_ASSIGN(const auto body, pool_request(context, context.positional("DIR")));
    CLI_TRY_ASSIGN(const auto answer, context.client().call("POST", "/v1/pools", body));
    if (context.has("dry-run")) return context.print_plan(answer);
    if (!context.for_person()) return context.print_item(pool_view(), answer);
    context.print(pool_line(answer));
    note_pool(context, answer);
    return 0;
}

Outcome<int> list_pools(Context& context) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/pools"));
    return context.print_list(pool_view(), answer);
}

Outcome<int> show_pool(Context& context) {
    CLI_TRY_ASSIGN(const auto answer,
                   context.client().call("GET", pool_path(named(context.positional("POOL")))));
    return context.print_item(pool_view(), answer);
}

Outcome<int> remove_pool(Context& context) {
    CLI_TRY_ASSIGN(const auto shown,
                   context.client().call("GET", pool_path(named(context.positional("POOL")))));
    const std::string id = shown["PoolId"].as_string();
    const bool dry_run = context.has("dry-run");
    CLI_TRY_ASSIGN(
        const auto answer,
        context.client().call("DELETE", pool_path(id) + (dry_run ? "?dry_run=true" : "")));
    if (dry_run) return context.print_plan(answer);
    return context.print_done(answer, id, "removed");
}

Outcome<int> drain_pool(Context& context) {
    return drain(context,
                 {pool_path(named(context.positional("POOL"))), "Path", "PoolId", pool_view});
}

}  // namespace

std::vector<Command> pool_commands() {
    const std::vector<Positional> pool{
        {"POOL", "id, a unique beginning of it, or folder", Names::kPool}};
    return {
        {"pool add",
         "Add a folder in which replicas live",
         "A new or empty folder on the disk that is to be used. Degraded volumes get replicas "
         "there by themselves. The folder of a pool that has failed or is missing: it is put back, "
         "and its lost replicas return.",
         {{"DIR", "the folder", Names::kFile}},
         pool_options(),
         "ebs-cli pool add /srv/disk2/ebs --domain disk2",
         add,
         item_of(pool_view)},
        {"pool list",
         "List the pools of all hosts, this one's first",
         "",
         {},
         {},
         "ebs-cli pool list",
         list_pools,
         list_of(pool_view)},
        {"pool show",
         "Show one pool",
         "",
         pool,
         {},
         "ebs-cli pool show /srv/disk2/ebs",
         show_pool,
         item_of(pool_view)},
        {"pool drain", "Move a pool's replicas to other pools",
         "Of any host. Its volumes go on serving: for each replica another one is made in a free "
         "failure domain, and the one in this pool leaves when that is in sync. The pool gets no "
         "new ones. A volume of three replicas has two meanwhile. 'pool show' and 'host show' tell "
         "how much is left, 'status', 'doctor' and 'why' what blocks it.",
         pool, drain_options(), "ebs-cli pool drain /srv/disk2/ebs --wait", drain_pool,
         item_of(pool_view)},
        {"pool remove",
         "Remove a pool without replicas, with its folder",
         "Lost replicas do not hold it: they are given up.",
         pool,
         {kDryRun},
         "ebs-cli pool remove /srv/disk2/ebs",
         remove_pool},
    };
}

}  // namespace ublkd::cli
