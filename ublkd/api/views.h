// What routes see of the daemon: plain requests and answers, one struct per noun. The daemon
// (ublkd/daemon) fills them, the routes (routes_<noun>.cc) turn them into JSON and back. Field
// names follow the API's: AWS's where AWS has one. Times are milliseconds since 1970 (UTC). No
// thread; no behaviour but the order of lists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ublkd::api {

using Tags = std::map<std::string, std::string>;

struct AttachmentView {
    std::string id, volume_id, instance_id, host_id, host_name;
    std::string state;     // attaching attached busy detaching; detached, in the answer
    std::string device;    // /dev/ublkbN, or the NBD URI
    std::string link;      // /dev/ebs/VOL; empty for NBD
    std::string label;     // --device, "" where none was given
    std::string frontend;  // ublk or nbd
    std::uint64_t attach_time_ms = 0;
    bool boot = false, delete_on_termination = false, read_only = false;
    std::string message;  // why it is busy, or could not come back
};

struct ReplicaView {
    std::string id, pool_id, host_id, domain;
    std::string role;         // primary secondary joining returning lost
    std::string cause;        // why it was lost
    std::string waits_for{};  // lost: until when it does not return; "": it is gone for good
    std::uint64_t differing_bytes = 0, copied_bytes = 0;  // returning
    bool leaving = false;                                 // its pool is drained
    std::string leaving_waits_for{};                      // why it cannot now; "": it moves

    bool is_copied_to() const { return role == "joining" || role == "returning"; }
};

struct HealthView {
    std::string state;  // ok degraded syncing blocked
    unsigned in_sync = 0, wanted = 0;
    std::uint64_t sync_done_bytes = 0, sync_total_bytes = 0;
    std::string blocked_by, reason;                 // a rule such as "R5", and a sentence
    std::optional<std::uint64_t> verified_bytes{};  // while a verify runs
};

struct VolumeView {
    std::string id, name;
    Tags tags;
    std::string state;  // creating available in-use deleting
    std::uint64_t size_bytes = 0, used_bytes = 0, create_time_ms = 0;
    std::uint32_t block_bytes = 512;
    std::string durability;           // flush write
    std::string durability_in_force;  // where another one is, until the next attach
    std::string on_full;              // wait fail
    bool multi_attach = false;
    std::uint64_t number = 0, loss_count = 0;
    bool data_may_be_lost = false;
    HealthView health;
    std::vector<ReplicaView> replicas;
    std::vector<AttachmentView> attachments;
};

struct CreateVolumeRequest {
    std::uint64_t size_bytes = 0;
    std::string name;
    Tags tags;
    std::optional<unsigned> replicas;
    std::uint32_t block_bytes = 512;
    std::string durability = "flush", on_full = "wait";
    bool multi_attach = false;
    std::string client_token;
    bool dry_run = false;
};

struct ModifyVolumeRequest {
    std::optional<std::string> durability, on_full, name;
    std::optional<bool> delete_on_termination;  // of its attachments
};

/// Of one volume.
inline constexpr std::size_t kMaxAttachments = 16;

/// Queues times depth of a ublk device at most (docs/ublk.md).
inline constexpr unsigned kMaxTags = 1024;

struct AttachRequest {
    std::string volume;
    std::string instance;           // "": the host's own
    std::string frontend = "auto";  // auto ublk nbd
    std::string label;              // --device
    unsigned queues = 1, depth = 128;
    bool boot = false, delete_on_termination = false, read_only = false, dry_run = false;
};

struct VerifyView {
    std::string volume_id;
    std::uint64_t members = 0, compared_bytes = 0, differing_bytes = 0, repaired_bytes = 0;
    std::optional<std::uint64_t> first_difference_bytes;
};

/// What --dry-run answers: a line per step that would be done.
struct PlanView {
    std::vector<std::string> steps;
};

/// What is in a backup of the metadata.
struct BackupView {
    std::string host;  // at which it was made
    std::uint64_t create_time_ms = 0;
    unsigned hosts = 0, pools = 0, volumes = 0;
    std::string text;  // the file's; "" where it is there already
};

struct RestoreRequest {
    std::string path;  // of the file, which the daemon reads
    bool force = false;
    bool dry_run = false;
};

struct RebuildRequest {
    std::vector<std::string> pools;  // folders
    bool dry_run = false;
};
/// What was made of it.
struct RebuildView {
    std::string host_id;
    unsigned pools = 0, volumes = 0;
};

struct InstanceView {
    std::string id, name, host_id;
    Tags tags;
    bool is_host = false;
    std::uint64_t create_time_ms = 0;
    std::vector<AttachmentView> attachments;
};

struct PoolView {
    std::string id, host_id, path, domain;
    std::string state;  // ok failed missing; away: its host does not answer
    std::string message;
    std::string warning;            // of how it is mounted
    std::uint64_t limit_bytes = 0;  // --size; 0: none
    std::uint64_t used_bytes = 0, free_bytes = 0, total_bytes = 0;
    unsigned replicas = 0;
    bool buffered = false;
    std::uint64_t create_time_ms = 0;
    bool draining = false;
    unsigned lost_replicas = 0;  // of them: no members now, and back when the pool is
    std::vector<std::string> shares_space_with;  // pools on the same file system
    std::string host_name{};
    std::uint64_t left_bytes = 0;  // draining: the sizes of the volumes that have replicas there
    bool measured = true;          // its space is known: it is this host's
};

/// How far a pool is that is drained.
struct DrainView {
    std::string pool_id, path, host_id, host_name;
    std::string state;  // moving blocked drained
    unsigned replicas = 0;
    std::uint64_t left_bytes = 0;
    std::string message, fix;
};

struct AddPoolRequest {
    std::string path;
    std::string domain;             // "": by the disk, in a cluster of one host
    std::uint64_t limit_bytes = 0;  // 0: none
    bool buffered = false;
    bool dry_run = false;
};

struct HostView {
    std::string id, name, state, version, boot_id;
    unsigned pools = 0, replicas = 0;
    bool self = false;
    unsigned draining_pools = 0, left_replicas = 0;  // in those pools
    std::uint64_t left_bytes = 0;
};

struct InitClusterRequest {
    std::string listen;           // ADDRESS:PORT of volumes, for other hosts
    std::string metadata_listen;  // of the metadata; "": port 7070 there
    std::string name;             // the host's; "": host.name
};
struct JoinClusterRequest {
    std::string token, listen, name;
};
/// Of this host, as it will be after a restart.
struct ClusterView {
    std::string host_name, listen;
    std::string metadata;   // where it is served to other hosts
    std::string authority;  // fingerprint of its certificate
};
struct JoinTokenView {
    std::string token;
    std::string address;  // to which it leads
    std::uint64_t ends_ms = 0;
};

struct PermissionView {
    std::string resource_id;  // vol-.../replica/0
    std::string host_id, pool_id, incarnation;
    std::string state;  // granted revoked deleted
    std::uint64_t generation = 0;
    std::uint64_t time_ms = 0;
};

/// A question to the permission service: granted to `host_id` and `incarnation`, or denied with who
/// has it.
struct PermissionRequest {
    std::string resource_id, host_id, incarnation;
};
struct PermissionAnswer {
    bool granted = false;
    std::string reason;  // granted held-by-another revoked-from-asker deleted
    std::string owner_host_id, owner_incarnation;  // who has it; empty where nobody has
    std::uint64_t generation = 0;
};

struct MemberView {
    std::string replica_id, host_id, pool_id;
};
struct MembershipView {
    std::string volume_id, primary;
    std::uint64_t number = 0, loss_count = 0;
    bool data_may_be_lost = false;
    std::vector<MemberView> members;
    std::vector<std::string> attachments;
};
struct ProposalRequest {
    std::string volume_id, proposer;
    std::uint64_t base_number = 0;
    MembershipView next;
};
struct ProposalAnswer {
    std::string verdict;  // authorized already-yours declined barred
    MembershipView current;
};

struct EventView {
    std::uint64_t sequence = 0, time_ms = 0;
    std::string kind;  // volume.created, member.lost, ...
    std::string resource_id, message;
};

struct TagView {
    std::string resource_id, key, value;
};

struct OrphanView {
    int device = -1;  // N of /dev/ublkbN
    std::string path, state, volume_id, message;
};

struct FindingView {
    std::string check;  // kernel, ublk, ...
    std::string state;  // ok warning problem
    std::string message, fix;
};

struct StatusView {
    bool initialized = false;
    std::string version, state;  // ok degraded uninitialized
    std::uint64_t uptime_seconds = 0;
    unsigned hosts = 0, hosts_ok = 0, pools = 0, pools_ok = 0;
    unsigned volumes = 0, volumes_syncing = 0, volumes_degraded = 0;
    std::uint64_t used_bytes = 0, total_bytes = 0;
    std::vector<std::string> problems;  // one line each
    std::vector<std::string> notes{};   // what is under way, and is no problem
};

struct VersionView {
    std::string version, api_version;
    bool initialized = false;
    std::int64_t pid = 0;
    std::string boot_id;
};

/// As lists are shown: the oldest first.
template <class View>
void sort_by_age(std::vector<View>& views) {
    std::ranges::sort(views, {},
                      [](const View& view) { return std::pair(view.create_time_ms, view.id); });
}

}  // namespace ublkd::api
