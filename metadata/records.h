// The records of the metadata: hosts, instances, pools, volumes, replicas, memberships,
// permissions, attachments, tags, client tokens, events. What a record says is what the control
// plane decided; what is measured (health, progress, use) is never stored here. Plain values;
// `revision` is the compare-and-set mark of Transaction::put() (store.h): 0 for a new record. Times
// are milliseconds since 1970 UTC. docs/metadata.md describes tables, states and constraints.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "metadata/value.h"
#include "ublkd/base/ids.h"
#include "ublkd/replication/membership.h"

namespace ublkd::metadata {

/// One, made by the first host that listens for others.
struct ClusterRecord {
    static constexpr const char* kTable = "clusters";
    static constexpr std::size_t kKeyColumns = 1;
    ClusterId id = {};
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("created_ms", self.created_ms);
    }
};

struct HostRecord {
    static constexpr const char* kTable = "hosts";
    static constexpr std::size_t kKeyColumns = 1;
    HostId id = {};
    std::string name = {};  // unique
    std::uint64_t created_ms = 0;
    std::string address = {};  // where its volumes listen for other hosts; empty: they do not
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("name", self.name);
        visit("created_ms", self.created_ms);
        visit("address", self.address);
    }
};

/// By which a host joins the cluster, once.
struct JoinTokenRecord {
    static constexpr const char* kTable = "join_tokens";
    static constexpr std::size_t kKeyColumns = 1;
    JoinTokenId id = {};
    std::string secret_hash = {};  // SHA-256, in hex
    std::uint64_t ends_ms = 0;
    HostId used_by = {};  // none: it is good until it ends
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("secret_hash", self.secret_hash);
        visit("ends_ms", self.ends_ms);
        visit("used_by", self.used_by);
        visit("created_ms", self.created_ms);
    }
};

struct InstanceRecord {
    static constexpr const char* kTable = "instances";
    static constexpr std::size_t kKeyColumns = 1;
    InstanceId id = {};
    HostId host = {};
    bool is_host = false;  // the host itself, made by `init`; one per host; never deleted
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("host", self.host);
        visit("is_host", self.is_host);
        visit("created_ms", self.created_ms);
    }
};

/// adding and removing are intents, recorded before the disk is touched.
enum class PoolState { kAdding, kAvailable, kRemoving, kFailed };
constexpr std::array<std::string_view, 4> enum_names(PoolState) {
    return {"adding", "available", "removing", "failed"};
}

struct PoolRecord {
    static constexpr const char* kTable = "pools";
    static constexpr std::size_t kKeyColumns = 1;
    PoolId id = {};
    HostId host = {};
    std::string path = {};    // absolute; unique on its host
    std::string domain = {};  // failure domain
    std::optional<std::uint64_t> size_bytes =
        {};  // the cap of `--size`; none: what the file system has
    bool buffered = false;
    PoolState state = PoolState::kAvailable;
    std::uint64_t created_ms = 0;
    bool draining = false;  // its replicas are to move to other pools; it gets no new ones
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("host", self.host);
        visit("path", self.path);
        visit("domain", self.domain);
        visit("size_bytes", self.size_bytes);
        visit("buffered", self.buffered);
        visit("state", self.state);
        visit("created_ms", self.created_ms);
        visit("draining", self.draining);
    }
};

enum class VolumeState { kCreating, kAvailable, kInUse, kDeleting };
constexpr std::array<std::string_view, 4> enum_names(VolumeState) {
    return {"creating", "available", "in-use", "deleting"};
}
enum class Durability { kFlush, kWrite };
constexpr std::array<std::string_view, 2> enum_names(Durability) { return {"flush", "write"}; }
enum class OnFull { kWait, kFail };
constexpr std::array<std::string_view, 2> enum_names(OnFull) { return {"wait", "fail"}; }

/// Its name is the tag "Name".
struct VolumeRecord {
    static constexpr const char* kTable = "volumes";
    static constexpr std::size_t kKeyColumns = 1;
    VolumeId id = {};
    VolumeState state = VolumeState::kCreating;
    std::uint64_t size_bytes = 0;
    std::uint32_t block_bytes = 512;  // logical block: 512 or 4096
    std::uint32_t replica_count = 1;  // wanted, 1 to 3; which there are is the membership's to say
    Durability durability = Durability::kFlush;
    OnFull on_full = OnFull::kWait;
    std::uint64_t created_ms = 0;
    InstanceId delete_with = {};  // it was detached by that instance's deletion, and is its part
    HostId home = {};             // carries out its creation and deletion
    bool multi_attach = false;    // to several instances at a time
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("state", self.state);
        visit("size_bytes", self.size_bytes);
        visit("block_bytes", self.block_bytes);
        visit("replica_count", self.replica_count);
        visit("durability", self.durability);
        visit("on_full", self.on_full);
        visit("created_ms", self.created_ms);
        visit("delete_with", self.delete_with);
        visit("home", self.home);
        visit("multi_attach", self.multi_attach);
    }
};

/// Whether a replica is a member (in sync) is the membership's to say; these are the states of its
/// files.
enum class ReplicaState {
    kPreparing,
    kReady,
    kLost,       // was a member, and may come back with its pool: it keeps its files and its place
    kReturning,  // lost, and copied to now
    kRemoving
};
constexpr std::array<std::string_view, 5> enum_names(ReplicaState) {
    return {"preparing", "ready", "lost", "returning", "removing"};
}

struct ReplicaRecord {
    static constexpr const char* kTable = "replicas";
    static constexpr std::size_t kKeyColumns = 1;
    ReplicaId id = {};  // the incarnation
    VolumeId volume = {};
    PoolId pool = {};
    ReplicaState state = ReplicaState::kPreparing;
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("volume", self.volume);
        visit("pool", self.pool);
        visit("state", self.state);
        visit("created_ms", self.created_ms);
    }
};

/// What is refused by a frozen one.
inline constexpr const char* kFrozen =
    "the metadata were restored: what the volume's hosts know of it comes first (R16)";

/// Written by Authority alone (authority.h). Outlives its volume, so that no number is ever
/// authorized twice.
struct MembershipRecord {
    static constexpr const char* kTable = "memberships";
    static constexpr std::size_t kKeyColumns = 1;
    VolumeId volume = {};
    std::uint64_t greatest_number = 0;  // ever authorized
    bool retired = false;               // the volume was deleted: nothing is authorized any more
    std::optional<replication::Membership> membership =
        {};               // none where the volume was retired before its first
    bool frozen = false;  // R16: restored; nothing is decided by it (restored.h)
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("volume", self.volume);
        visit("greatest_number", self.greatest_number);
        visit("retired", self.retired);
        visit("membership", self.membership);
        visit("frozen", self.frozen);
    }
};

/// R16: what a host knows of a volume whose membership is frozen (restored.h has its form).
struct HostReportRecord {
    static constexpr const char* kTable = "host_reports";
    static constexpr std::size_t kKeyColumns = 2;
    VolumeId volume = {};
    HostId host = {};
    Bytes report = {};
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("volume", self.volume);
        visit("host", self.host);
        visit("report", self.report);
    }
};

/// granted: to `host` with `incarnation`. revoked: to nobody; the next one to ask that is no past
/// holder gets it. deleted: denied for ever.
enum class PermissionState { kGranted, kRevoked, kDeleted };
constexpr std::array<std::string_view, 3> enum_names(PermissionState) {
    return {"granted", "revoked", "deleted"};
}

/// Written by PermissionService alone (permission.h).
struct PermissionRecord {
    static constexpr const char* kTable = "permissions";
    static constexpr std::size_t kKeyColumns = 1;
    std::string resource = {};
    PermissionState state = PermissionState::kGranted;
    std::uint64_t generation = 1;  // raised by each revoke
    HostId host = {};              // the holder; none unless granted
    ReplicaId incarnation = {};
    std::uint64_t changed_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("resource", self.resource);
        visit("state", self.state);
        visit("generation", self.generation);
        visit("host", self.host);
        visit("incarnation", self.incarnation);
        visit("changed_ms", self.changed_ms);
    }
};

/// A holder that lost its permission by a revoke or by the resource's deletion. It is never granted
/// that resource again, and is asked to delete what it has of it until it confirms.
struct PastHolderRecord {
    static constexpr const char* kTable = "past_holders";
    static constexpr std::size_t kKeyColumns = 3;
    std::string resource = {};
    HostId host = {};
    ReplicaId incarnation = {};
    std::uint64_t generation = 0;  // under which it held
    bool delete_confirmed = false;
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("resource", self.resource);
        visit("host", self.host);
        visit("incarnation", self.incarnation);
        visit("generation", self.generation);
        visit("delete_confirmed", self.delete_confirmed);
        visit("created_ms", self.created_ms);
    }
};

enum class AttachmentState { kAttaching, kAttached, kBusy, kDetaching };
constexpr std::array<std::string_view, 4> enum_names(AttachmentState) {
    return {"attaching", "attached", "busy", "detaching"};
}
enum class Frontend { kUblk, kNbd };
constexpr std::array<std::string_view, 2> enum_names(Frontend) { return {"ublk", "nbd"}; }

struct AttachmentRecord {
    static constexpr const char* kTable = "attachments";
    static constexpr std::size_t kKeyColumns = 1;
    AttachmentId id = {};
    VolumeId volume = {};
    InstanceId instance = {};
    AttachmentState state = AttachmentState::kAttaching;
    bool detach_forced = false;  // of a detach that is under way: whoever uses the device
    bool terminating = false;    // of the same: by the deletion of the instance
    Frontend frontend = Frontend::kUblk;
    std::optional<std::string> device = {};         // the label (/dev/sdf); unique in its instance
    std::optional<std::uint32_t> ublk_number = {};  // the N of /dev/ublkbN
    std::uint32_t queues = 1;
    std::uint32_t depth = 128;
    bool read_only = false;
    bool boot = false;
    bool delete_on_termination = false;
    Durability durability = Durability::kFlush;  // in force while it is attached
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("id", self.id);
        visit("volume", self.volume);
        visit("instance", self.instance);
        visit("state", self.state);
        visit("frontend", self.frontend);
        visit("device", self.device);
        visit("ublk_number", self.ublk_number);
        visit("queues", self.queues);
        visit("depth", self.depth);
        visit("read_only", self.read_only);
        visit("boot", self.boot);
        visit("delete_on_termination", self.delete_on_termination);
        visit("created_ms", self.created_ms);
        visit("detach_forced", self.detach_forced);
        visit("terminating", self.terminating);
        visit("durability", self.durability);
    }
};

struct TagRecord {
    static constexpr const char* kTable = "tags";
    static constexpr std::size_t kKeyColumns = 2;
    std::string resource = {};  // any id, as text
    std::string key = {};
    std::string value = {};
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("resource", self.resource);
        visit("key", self.key);
        visit("value", self.value);
    }
};

/// What a request with this token made, so that its repetition gets the same answer instead of a
/// second one.
struct ClientTokenRecord {
    static constexpr const char* kTable = "client_tokens";
    static constexpr std::size_t kKeyColumns = 2;
    std::string action = {};  // "CreateVolume"
    std::string token = {};
    std::string fingerprint = {};  // of the parameters: the same token with others is refused
    std::string resource = {};     // the id that was made
    std::uint64_t created_ms = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("action", self.action);
        visit("token", self.token);
        visit("fingerprint", self.fingerprint);
        visit("resource", self.resource);
        visit("created_ms", self.created_ms);
    }
};

/// Appended by append_event() (store.h), which keeps the last kEventsKept.
struct EventRecord {
    static constexpr const char* kTable = "events";
    static constexpr std::size_t kKeyColumns = 1;
    static constexpr bool kAppended = true;
    std::uint64_t sequence = 0;  // from 1, in the order of the commits
    std::uint64_t time_ms = 0;
    std::string resource = {};  // an id, or empty
    std::string kind = {};      // "volume.created"
    std::string text = {};      // for a person
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("sequence", self.sequence);
        visit("time_ms", self.time_ms);
        visit("resource", self.resource);
        visit("kind", self.kind);
        visit("text", self.text);
    }
};

struct CounterRecord {
    static constexpr const char* kTable = "counters";
    static constexpr std::size_t kKeyColumns = 1;
    static constexpr bool kPlain = true;
    std::string name = {};
    std::uint64_t value = 0;
    std::uint64_t revision = 0;

    template <class Self, class Visit>
    static void fields(Self& self, Visit&& visit) {
        visit("name", self.name);
        visit("value", self.value);
    }
};

}  // namespace ublkd::metadata
