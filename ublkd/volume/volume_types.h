// What a volume is started with and what it tells about itself: plain values, for volume.h and its
// users (api, tests).
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ublkd/base/ids.h"
#include "ublkd/base/result.h"
#include "ublkd/base/units.h"
#include "ublkd/io/socket.h"
#include "ublkd/io/worker.h"
#include "ublkd/replication/membership.h"
#include "ublkd/store/allocation_budget.h"

namespace ublkd::volume {

enum class Durability : std::uint8_t {
    kFlush,  // a write is durable once a flush that follows it has ended (the cache contract of a
             // disk)
    kWrite,  // each write is durable on all members before it is acknowledged
};

enum class OnFull : std::uint8_t {
    kWait,  // a write that finds a pool full waits for space, and is tried again with backoff
    kFail,  // it fails with kNoSpace, after all members hold the same content again
};

/// Whether requests from before a stop may be sent again after the next start (R8): by a front end
/// that a process left behind when it died, and that did not come to its end since.
enum class Retries : std::uint8_t { kMayCome, kNone };

/// Where a replica lives: the folder that store::ReplicaStore opens (Pool::replica_folder), and its
/// pool's budget.
struct ReplicaPlace {
    replication::Member member;
    std::string folder;
    std::shared_ptr<store::AllocationBudget> budget{};  // none: what it allocates is not limited
    std::shared_ptr<io::Worker> worker{};  // for calls that may block on the pool's disk
    bool direct = true;                    // O_DIRECT; false in a pool made with --buffered
};

/// Connects to another host's volumes, as far as the hellos. `into` is there from the beginning of
/// it, so that its shutdown() makes it end, and outlives it.
using ConnectHost = std::function<io::Task<Result<void>>(io::Socket* into, io::Reactor* reactor,
                                                         HostId host, io::Clock::time_point)>;

/// What a volume needs whose members or clients live on several hosts.
struct ClusterConfig {
    ClusterId id;
    HostId self;
    AttachmentId attachment{};  // of the client here; none: it is not attached here
    ConnectHost connect;
    std::uint32_t health_ms = 1000;   // R6: that a member has for saying that it is well
    std::uint32_t deadline_ms = 500;  // R6: after which a client asks
};

struct VolumeConfig {
    VolumeId id;
    std::uint64_t size_bytes = 0;
    std::uint32_t logical_block_bytes = kSectorBytes;
    Durability durability = Durability::kFlush;
    OnFull on_full = OnFull::kWait;
    std::optional<ClusterConfig> cluster{};
    std::vector<ReplicaPlace> replicas;  // the local replicas: those of the record, in any order
    std::string run_dir;  // lives as long as the boot: the files of R8. Empty: kept in memory alone
    std::array<std::byte, 16> boot_id{};  // of this boot (R9): /proc/sys/kernel/random/boot_id
    std::chrono::milliseconds start_limit{
        10000};                               // start() gives up where no member serves by then
    std::uint64_t copy_bytes_per_second = 0;  // of a full copy (R12); 0: as fast as it goes
};

enum class VolumeState : std::uint8_t {
    kOk,        // every replica that was wanted is a member, nothing is being copied
    kDegraded,  // fewer members than replicas known to the volume
    kSyncing,   // regions or a joining replica are being copied
    kBlocked,   // some I/O waits: blocked_by and blocked_why say for what
};
const char* to_string(VolumeState state) noexcept;  // "ok", "degraded", "syncing", "blocked"

struct MemberStatus {
    replication::Member member;
    bool is_primary = false;
    bool is_member = false;        // of the record: in sync, and needed to acknowledge
    bool is_joining = false;       // gets new writes, is being copied to
    std::optional<Error> failure;  // why it left
};

/// A disk that has not answered a request for so long is told of as hanging.
inline constexpr std::uint64_t kHungSeconds = 5;

struct VolumeStatus {
    std::uint64_t number = 0;
    std::uint64_t loss_count = 0;
    bool data_may_be_lost = false;
    ReplicaId primary;
    std::vector<MemberStatus> replicas;
    VolumeState state = VolumeState::kOk;
    std::string blocked_by;             // the rule, such as "R5"; empty unless kBlocked
    std::string blocked_why;            // a sentence for a person
    std::uint64_t sync_done_bytes = 0;  // while kSyncing
    std::uint64_t sync_total_bytes = 0;
    std::optional<std::uint64_t> verified_bytes;  // how far a verify is, while one runs
    std::uint64_t open_requests = 0;
};

/// What verify() does with a difference: reports it, or writes the primary's content over the other
/// members' (R14: never without an operator's word, since the volume cannot know which is right).
enum class OnDifference : std::uint8_t { kReport, kRepair };

struct VerifyReport {
    std::uint64_t members = 0;
    std::uint64_t compared_bytes = 0;
    std::uint64_t differing_bytes = 0;  // as found, in units of 4 KiB, summed over the members
    std::uint64_t repaired_bytes = 0;   // written over, durably
    std::optional<std::uint64_t> first_difference_bytes;
    bool equal() const { return differing_bytes == 0; }
};

}  // namespace ublkd::volume
