#include <fmt/format.h>

#include <charconv>

#include "ublkd/api/fields.h"
#include "ublkd/api/routes.h"

namespace ublkd::api {

Json host_json(const HostView& view) {
    Json json = Json::object();
    json.set("HostId", view.id)
        .set("Name", view.name)
        .set("State", view.state)
        .set("Version", view.version);
    json.set("BootId", view.boot_id)
        .set("Pools", view.pools)
        .set("Replicas", view.replicas)
        .set("Self", view.self);
    if (view.draining_pools != 0)
        json.set("DrainingPools", view.draining_pools)
            .set("LeftReplicas", view.left_replicas)
            .set("LeftBytes", view.left_bytes);
    return json;
}

namespace {

Json version_json(const VersionView& view) {
    Json json = Json::object();
    json.set("Version", view.version)
        .set("ApiVersion", view.api_version)
        .set("Initialized", view.initialized);
    return json.set("Pid", view.pid).set("BootId", view.boot_id);
}

Json status_json(const StatusView& view) {
    Json json = Json::object();
    json.set("Version", view.version).set("State", view.state).set("Initialized", view.initialized);
    json.set("UptimeSeconds", view.uptime_seconds)
        .set("Hosts", view.hosts)
        .set("HostsOk", view.hosts_ok);
    json.set("Pools", view.pools).set("PoolsOk", view.pools_ok).set("Volumes", view.volumes);
    json.set("VolumesSyncing", view.volumes_syncing).set("VolumesDegraded", view.volumes_degraded);
    json.set("UsedBytes", view.used_bytes).set("TotalBytes", view.total_bytes);
    Json problems = Json::array();
    for (const auto& problem : view.problems) problems.push(problem);
    Json notes = Json::array();
    for (const auto& note : view.notes) notes.push(note);
    return json.set("Problems", std::move(problems)).set("Notes", std::move(notes));
}

Json event_json(const EventView& view) {
    Json json = Json::object();
    json.set("Sequence", view.sequence).set("Time", iso_time(view.time_ms)).set("Kind", view.kind);
    return json.set("ResourceId", view.resource_id).set("Message", view.message);
}

Json orphan_json(const OrphanView& view) {
    Json json = Json::object();
    json.set("Number", view.device)
        .set("Device", view.path)
        .set("State", view.state)
        .set("VolumeId", view.volume_id);
    return json.set("Message", view.message);
}

ApiResult<int> read_device(const std::string& text) {
    std::string_view digits = text;
    if (digits.starts_with("ublkb")) digits.remove_prefix(5);
    int number = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size() || number < 0) {
        return refuse(
            "InvalidParameterValue",
            fmt::format("a ublk device is a number or ublkbN; '{}' was given", shown(text)));
    }
    return number;
}

void add_rescue_routes(RouteTable& table, SystemControl* system) {
    table.add(
        {Method::kGet, "/v1/rescue", "DescribeOrphans", [=](const Request&) -> ApiResult<Json> {
             API_TRY_ASSIGN(const auto found, system->orphans());
             return list_json("Orphans", found, orphan_json);
         }});
    table.add({Method::kPost, "/v1/rescue/{device}/recover", "RecoverOrphan",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY(Fields(request.body).done());
                   API_TRY_ASSIGN(const int device, read_device(request.at("device")));
                   API_TRY(system->recover_orphan(device));
                   return done_json();
               }});
    table.add({Method::kDelete, "/v1/rescue/{device}", "RemoveOrphan",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const int device, read_device(request.at("device")));
                   API_TRY(system->remove_orphan(device));
                   return done_json();
               }});
}

}  // namespace

void add_system_routes(RouteTable& table, SystemControl* system) {
    constexpr bool kBeforeInit = true;
    table.add({Method::kGet,
               "/v1/version",
               "DescribeVersion",
               [=](const Request&) -> ApiResult<Json> { return version_json(system->version()); },
               {},
               kBeforeInit});
    table.add({Method::kGet,
               "/v1/status",
               "DescribeStatus",
               [=](const Request&) -> ApiResult<Json> { return status_json(system->status()); },
               {},
               kBeforeInit});
    table.add({Method::kGet,
               "/v1/doctor",
               "DescribeFindings",
               [=](const Request&) -> ApiResult<Json> {
                   return list_json("Findings", system->doctor(), finding_json);
               },
               {},
               kBeforeInit});
    table.add({Method::kPost,
               "/v1/init",
               "Initialize",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto wanted, read_pool_request(request.body, false));
                   API_TRY_ASSIGN(const auto pool, system->init(wanted));
                   Json json = Json::object().set("Initialized", true);
                   if (pool) json.set("Pool", pool_json(*pool));
                   return json;
               },
               {},
               kBeforeInit});
    table.add({Method::kGet, "/v1/hosts", "DescribeHosts", [=](const Request&) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const auto found, system->hosts());
                   return list_json("Hosts", found, host_json);
               }});
    table.add({Method::kGet, "/v1/hosts/{host}", "DescribeHost",
               [=](const Request& request) -> ApiResult<Json> {
                   return answer(system->host(request.at("host")), host_json);
               }});
    table.add({Method::kDelete,
               "/v1/hosts/{host}",
               "RemoveHost",
               [=](const Request& request) -> ApiResult<Json> {
                   API_TRY_ASSIGN(const bool force, query_flag(request, "force"));
                   API_TRY(system->remove_host(request.at("host"), force));
                   return done_json();
               },
               {"force"}});
    table.add(
        {Method::kGet,
         "/v1/events",
         "DescribeEvents",
         [=](const Request& request) -> ApiResult<Json> {
             API_TRY_ASSIGN(const auto after, query_number(request, "after", 0, 0, 1ull << 62));
             API_TRY_ASSIGN(const auto limit, query_number(request, "limit", 1000, 1, 10000));
             API_TRY_ASSIGN(const auto wait_ms, query_number(request, "wait_ms", 0, 0, 30000));
             API_TRY_ASSIGN(const auto found, system->events(after, static_cast<unsigned>(limit),
                                                             static_cast<unsigned>(wait_ms)));
             return list_json("Events", found, event_json);
         },
         {"after", "limit", "wait_ms"}});
    add_rescue_routes(table, system);
}

}  // namespace ublkd::api
