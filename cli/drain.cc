#include "cli/drain.h"

#include <fmt/format.h>

#include <thread>

#include "cli/cells.h"
#include "cli/progress.h"
#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;
using namespace std::chrono_literals;

constexpr auto kLookAgain = 200ms;

/// Of the pools that are waited for, all together.
struct Left {
    std::vector<Json> pools;
    std::uint64_t replicas = 0, bytes = 0;
    std::string blocked;  // why, and the next commands
};

Outcome<Left> look_at_drains(Context& context, const std::string& key, const std::string& id) {
    CLI_TRY_ASSIGN(const auto answer, context.client().call("GET", "/v1/drains"));
    Left left;
    for (const Json& pool : answer["Drains"].items()) {
        if (pool[key].as_string() != id) continue;
        left.pools.push_back(pool);
        left.replicas += pool["Replicas"].u64();
        left.bytes += pool["LeftBytes"].u64();
        if (pool["State"].as_string() == "blocked")
            left.blocked +=
                fmt::format("{}blocked: {}\n         next: {}", left.blocked.empty() ? "" : "\n",
                            pool["Message"].as_string(), pool["Fix"].as_string());
    }
    return left;
}

std::string left_text(const Left& left) {
    return fmt::format("{} replica{} ({}) left", left.replicas, left.replicas == 1 ? "" : "s",
                       short_size(left.bytes));
}

/// Until nothing lies there any more. What blocks it is said when it begins to, or is another.
Outcome<Left> wait_for_drain(Context& context, const std::string& name, const std::string& key,
                             const std::string& id, std::chrono::milliseconds timeout) {
    const auto begun = std::chrono::steady_clock::now();
    Progress progress(context, "drain " + name);
    std::uint64_t at_first = 0;
    std::string told;
    for (;;) {
        CLI_TRY_ASSIGN(auto left, look_at_drains(context, key, id));
        if (left.pools.empty())
            return std::unexpected(
                Failure{kExitConflict, "", name + " is drained no more: it was cancelled"});
        if (left.replicas == 0) return left;
        if (left.blocked != told && !left.blocked.empty()) context.note(left.blocked);
        told = left.blocked;
        at_first = std::max(at_first, left.bytes);
        if (timeout != 0ms && std::chrono::steady_clock::now() - begun >= timeout)
            return std::unexpected(
                Failure{kExitTimedOut, "",
                        fmt::format("{} is not drained in time, {}; the daemon goes on", name,
                                    left_text(left))});
        progress.tell({left_text(left) + (left.blocked.empty() ? "" : ", blocked"),
                       at_first - left.bytes, at_first});
        std::this_thread::sleep_for(kLookAgain);
    }
}

Outcome<void> check_options(const Context& context) {
    for (const char* other : {"wait", "dry-run"}) {
        if (context.has("cancel") && context.has(other))
            return usage(fmt::format("--cancel moves nothing: it does not go with --{}", other));
    }
    if (context.has("wait") && context.has("dry-run"))
        return usage("--dry-run begins nothing that --wait could wait for");
    for (const char* of_a_wait : {"timeout", "progress"}) {
        if (context.has(of_a_wait) && !context.has("wait"))
            return usage(
                fmt::format("--{} goes with --wait: without it nothing is waited for", of_a_wait));
    }
    return {};
}

void note_next(const Context& context, const Left& left) {
    for (const Json& pool : left.pools) {
        if (!pool["Fix"].is_null()) context.note("next: " + pool["Fix"].as_string());
    }
}

}  // namespace

std::vector<Option> drain_options() {
    return {{"--cancel", "", "drain it no more; what has moved stays where it is"},
            {"--wait", "",
             "until nothing lies there any more; what blocks it is told at once, and waited for"},
            {"--timeout", "TIME", "give up waiting after TIME (5m, 30s); the daemon goes on"},
            progress_option(),
            kDryRun};
}

Outcome<int> drain(Context& context, const Drained& what) {
    CLI_TRY(check_options(context));
    CLI_TRY_ASSIGN(const auto timeout, context.timeout(0ms));  // before anything is begun
    Json body = Json::object();
    if (context.has("cancel")) body.set("Cancel", true);
    if (context.has("dry-run")) body.set("DryRun", true);
    CLI_TRY_ASSIGN(auto answer, context.client().call("POST", what.path + "/drain", body));
    if (context.has("dry-run")) return context.print_plan(answer);
    const std::string id = answer[what.id_key].as_string();
    const std::string name = answer[what.name_key].as_string();
    const bool has_pools = what.id_key == std::string("PoolId") || answer["Pools"].u64() > 0;
    Left left;
    if (context.has("wait") && has_pools) {
        CLI_TRY_ASSIGN(left, wait_for_drain(context, name, what.id_key, id, timeout));
        CLI_TRY_ASSIGN(answer, context.client().call("GET", what.path));
    } else if (!context.has("cancel") && context.for_person()) {
        CLI_TRY_ASSIGN(left, look_at_drains(context, what.id_key, id));
    }
    if (!context.for_person()) return context.print_item(what.view(), answer);
    if (context.has("cancel")) return context.print_done(answer, name, "drained no more");
    if (!has_pools) return context.print_done(answer, name, "has no pool to drain");
    if (left.replicas == 0) {
        note_next(context, left);
        return context.print_done(answer, name, "drained");
    }
    if (!left.blocked.empty()) context.note(left.blocked);
    context.note(
        "note: 'ebs-cli pool show' and 'ebs-cli host show' tell how much is left, 'ebs-cli status' "
        "what blocks it; --wait waits");
    return context.print_done(answer, name, fmt::format("draining, {}", left_text(left)));
}

}  // namespace ublkd::cli
