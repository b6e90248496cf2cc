#include "cli/cells.h"

#include <fmt/format.h>

#include <set>

#include "cli/values.h"

namespace ublkd::cli {
namespace {

using api::Json;

template <const char* kKey>
std::string text(const Json& item) {
    return item[kKey].as_string();
}
template <const char* kKey>
std::string size(const Json& item) {
    return short_size(item[kKey].u64());
}
template <const char* kKey>
std::string number(const Json& item) {
    return item[kKey].is_null() ? "" : std::to_string(item[kKey].u64());
}
template <const char* kKey>
std::string flag(const Json& item) {
    return item[kKey].as_bool() ? "yes" : "no";
}

// What a template argument can name.
#define KEY(name) constexpr char k##name[] = #name
KEY(Name);
KEY(VolumeId);
KEY(SizeBytes);
KEY(State);
KEY(UsedBytes);
KEY(BlockSize);
KEY(CreateTime);
KEY(OnFull);
KEY(MultiAttachEnabled);
KEY(Number);
KEY(LossCount);
KEY(AttachmentId);
KEY(InstanceId);
KEY(Device);
KEY(Label);
KEY(Frontend);
KEY(AttachTime);
KEY(PoolId);
KEY(Path);
KEY(Domain);
KEY(FreeBytes);
KEY(TotalBytes);
KEY(Replicas);
KEY(StateMessage);
KEY(Buffered);
KEY(HostId);
KEY(HostName);
KEY(Version);
KEY(Pools);
KEY(BootId);
KEY(LaunchTime);
KEY(IsHost);
KEY(ResourceId);
KEY(Incarnation);
KEY(Generation);
KEY(Time);
KEY(Sequence);
KEY(Kind);
KEY(Message);
KEY(Key);
KEY(Value);
KEY(Check);
KEY(Fix);
KEY(ReadOnly);
KEY(Boot);
KEY(DeleteOnTermination);
#undef KEY

std::string attached_text(const Json& volume) {
    std::string made;
    for (const Json& attachment : volume["Attachments"].items()) {
        const std::string where =
            attachment["Frontend"].as_string() == "nbd" ? "nbd" : attachment["Device"].as_string();
        made += (made.empty() ? "" : ",") + attachment["HostName"].as_string() + ":" + where;
        if (attachment["State"].as_string() != "attached")
            made += " (" + attachment["State"].as_string() + ")";
    }
    return made.empty() ? "-" : made;
}

std::string domains_text(const Json& volume) {
    std::string made;
    for (const Json& replica : volume["Replicas"].items()) {
        made += (made.empty() ? "" : ",") + replica["Domain"].as_string();
        const std::string role = replica["Role"].as_string();
        if (role == "joining" || role == "returning" || role == "lost") made += "(" + role + ")";
    }
    return made;
}

std::string tags_text(const Json& item) {
    std::string made;
    for (const Json& tag : item["Tags"].items()) {
        if (tag["Key"].as_string() == "Name") continue;
        made += (made.empty() ? "" : ",") + tag["Key"].as_string() + "=" + tag["Value"].as_string();
    }
    return made;
}

/// Of another host's pool it is not known.
template <const char* kKey>
std::string known_size(const Json& item) {
    return item[kKey].is_null() ? "-" : short_size(item[kKey].u64());
}

/// "ok, draining (2 replicas, 32M left)".
std::string state_text(const Json& item, std::uint64_t left) {
    std::string state = item["State"].as_string();
    if (item["LeftBytes"].is_null()) return state;
    if (left == 0) return state + ", drained";
    return fmt::format("{}, draining ({} replica{}, {} left)", state, left, left == 1 ? "" : "s",
                       short_size(item["LeftBytes"].u64()));
}

std::string pool_state_text(const Json& pool) { return state_text(pool, pool["Replicas"].u64()); }

std::string host_state_text(const Json& host) {
    return state_text(host, host["LeftReplicas"].u64());
}

std::string limit_text(const Json& pool) {
    return pool["LimitBytes"].is_null() ? "-" : short_size(pool["LimitBytes"].u64());
}

std::string shares_text(const Json& pool) {
    std::vector<std::string> ids;
    for (const Json& other : pool["SharesSpaceWith"].items()) ids.push_back(other.as_string());
    return ids.empty() ? "-" : fmt::format("{}", fmt::join(ids, ","));
}

std::string volumes_text(const Json& instance) {
    std::set<std::string> ids;
    for (const Json& attachment : instance["Attachments"].items())
        ids.insert(attachment["VolumeId"].as_string());
    return ids.empty() ? "-" : fmt::format("{}", fmt::join(ids, ","));
}

std::string self_text(const Json& host) { return host["Self"].as_bool() ? "this one" : ""; }

std::string durability_text(const Json& volume) {
    const std::string in_force = volume["DurabilityInForce"].as_string();
    const std::string set = volume["Durability"].as_string();
    return in_force.empty() ? set : fmt::format("{} ({} from the next attach)", in_force, set);
}

}  // namespace

std::string health_text(const Json& volume) {
    const Json& health = volume["Health"];
    const std::string state = health["State"].as_string();
    const std::string members =
        fmt::format("{}/{}", health["InSync"].u64(), health["Wanted"].u64());
    if (state == "syncing") {
        const auto total = health["SyncTotalBytes"].u64();
        return fmt::format("sync {}% {}",
                           total == 0 ? 0 : health["SyncDoneBytes"].u64() * 100 / total, members);
    }
    if (state == "blocked")
        return fmt::format("blocked {} {}", health["BlockedBy"].as_string(), members);
    return state + " " + members;
}

const View& volume_view() {
    static const View view{"Volumes",
                           "VolumeId",
                           {{"NAME", text<kName>},
                            {"ID", text<kVolumeId>},
                            {"SIZE", size<kSizeBytes>},
                            {"STATE", text<kState>},
                            {"HEALTH", health_text},
                            {"ATTACHED", attached_text},
                            {"USED", size<kUsedBytes>},
                            {"DOMAINS", domains_text, true},
                            {"BLOCK", number<kBlockSize>, true},
                            {"DURABILITY", durability_text, true},
                            {"ON-FULL", text<kOnFull>, true},
                            {"MULTI-ATTACH", flag<kMultiAttachEnabled>, true},
                            {"NUMBER", number<kNumber>, true},
                            {"LOSSES", number<kLossCount>, true},
                            {"CREATED", text<kCreateTime>, true},
                            {"TAGS", tags_text, true}}};
    return view;
}

const View& attachment_view() {
    static const View view{"Attachments",
                           "AttachmentId",
                           {{"VOLUME", text<kVolumeId>},
                            {"INSTANCE", text<kInstanceId>},
                            {"STATE", text<kState>},
                            {"DEVICE", text<kDevice>},
                            {"FRONTEND", text<kFrontend>},
                            {"LABEL", text<kLabel>, true},
                            {"READ-ONLY", flag<kReadOnly>, true},
                            {"BOOT", flag<kBoot>, true},
                            {"DELETE-ON-TERMINATION", flag<kDeleteOnTermination>, true},
                            {"ATTACHED", text<kAttachTime>, true},
                            {"ID", text<kAttachmentId>, true}}};
    return view;
}

const View& pool_view() {
    static const View view{"Pools",
                           "PoolId",
                           {{"ID", text<kPoolId>},
                            {"PATH", text<kPath>},
                            {"DOMAIN", text<kDomain>},
                            {"HOST", text<kHostName>},
                            {"STATE", pool_state_text},
                            {"REPLICAS", number<kReplicas>},
                            {"USED", known_size<kUsedBytes>},
                            {"FREE", known_size<kFreeBytes>},
                            {"LIMIT", limit_text},
                            {"TOTAL", known_size<kTotalBytes>, true},
                            {"SHARES-WITH", shares_text, true},
                            {"BUFFERED", flag<kBuffered>, true},
                            {"HOST-ID", text<kHostId>, true},
                            {"CREATED", text<kCreateTime>, true},
                            {"MESSAGE", text<kStateMessage>, true}}};
    return view;
}

const View& host_view() {
    static const View view{"Hosts",
                           "HostId",
                           {{"NAME", text<kName>},
                            {"ID", text<kHostId>},
                            {"STATE", host_state_text},
                            {"VERSION", text<kVersion>},
                            {"POOLS", number<kPools>},
                            {"REPLICAS", number<kReplicas>},
                            {"SELF", self_text},
                            {"BOOT", text<kBootId>, true}}};
    return view;
}

const View& instance_view() {
    static const View view{"Instances",
                           "InstanceId",
                           {{"NAME", text<kName>},
                            {"ID", text<kInstanceId>},
                            {"HOST", flag<kIsHost>},
                            {"VOLUMES", volumes_text},
                            {"CREATED", text<kLaunchTime>, true},
                            {"TAGS", tags_text, true}}};
    return view;
}

const View& permission_view() {
    static const View view{"Permissions",
                           "ResourceId",
                           {{"RESOURCE", text<kResourceId>},
                            {"STATE", text<kState>},
                            {"HOLDER", text<kIncarnation>},
                            {"POOL", text<kPoolId>},
                            {"HOST", text<kHostId>, true},
                            {"GENERATION", number<kGeneration>, true},
                            {"CHANGED", text<kTime>, true}}};
    return view;
}

const View& event_view() {
    static const View view{"Events",
                           "Sequence",
                           {{"TIME", text<kTime>},
                            {"KIND", text<kKind>},
                            {"RESOURCE", text<kResourceId>},
                            {"MESSAGE", text<kMessage>},
                            {"SEQUENCE", number<kSequence>, true}}};
    return view;
}

const View& tag_view() {
    static const View view{
        "Tags",
        "ResourceId",
        {{"RESOURCE", text<kResourceId>}, {"KEY", text<kKey>}, {"VALUE", text<kValue>}}};
    return view;
}

const View& orphan_view() {
    static const View view{"Orphans",
                           "Device",
                           {{"DEVICE", text<kDevice>},
                            {"STATE", text<kState>},
                            {"VOLUME", text<kVolumeId>},
                            {"MESSAGE", text<kMessage>}}};
    return view;
}

const View& finding_view() {
    static const View view{"Findings",
                           "Check",
                           {{"CHECK", text<kCheck>},
                            {"STATE", text<kState>},
                            {"MESSAGE", text<kMessage>},
                            {"FIX", text<kFix>}}};
    return view;
}

}  // namespace ublkd::cli
