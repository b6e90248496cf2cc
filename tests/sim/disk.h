// One replica's disk: its sectors as they are and as a power cut may leave them, and its
// superblock, activity map and table of ids. What the store (ublkd/store) promises to the core, and
// no more: unflushed sectors are lost one by one, a write that was under way is torn at sectors.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "tests/sim/random.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/units.h"
#include "ublkd/replication/applied_ids.h"
#include "ublkd/replication/effects.h"

namespace ublkd::sim {

inline constexpr std::size_t kSectors = 64;  // 8 pages, 4 regions of 2 pages
inline constexpr std::uint64_t kVolumeBytes = kSectors * kSectorBytes;
inline constexpr std::uint32_t kRegion = 8192;
inline constexpr std::uint32_t kUnit = 4096;  // of the dirty maps

/// What a replica keeps beside its sectors; durable at once.
struct Stored {
    std::optional<replication::Membership> record;
    std::optional<replication::Proposal> pending;
    std::optional<replication::Membership> left_by;  // R16
    std::uint64_t boot = 0;                          // 0: none
    std::uint64_t in_sync_from = 0;  // the number with which that boot began to be in sync
    bool clean = false;
    std::set<std::uint32_t> activity;
    std::uint64_t durable_through = 0;
    std::uint64_t cleared_through = 0;
    replication::LostMembers lost{};
    std::map<ReplicaId, std::set<std::uint32_t>> dirty;  // units, of each lost member
};

struct Disk : Stored {
    replication::Member member;
    std::size_t process = 0;  // whose it is

    std::vector<std::byte> now = std::vector<std::byte>(kVolumeBytes);
    std::vector<std::byte> durable = std::vector<std::byte>(kVolumeBytes);
    std::vector<std::uint64_t> version = std::vector<std::uint64_t>(kSectors);
    std::vector<std::uint64_t> durable_version = std::vector<std::uint64_t>(kSectors);
    std::uint64_t versions = 0;

    std::unique_ptr<replication::AppliedIds::Table> ids =
        std::make_unique<replication::AppliedIds::Table>();
    bool ids_of_member =
        false;  // R8: the table has been that of an in-sync member since it is there

    std::map<std::uint64_t, std::vector<std::byte>> cuts;  // R18: what was preserved
    bool failed = false;
    bool full = false;
    bool lies = false;               // it keeps something else than a whole page: of copies alone
    std::set<std::uint64_t> unread;  // where ranges began that it could not read
    bool gives_up = false;           // it was found lost as a member: a number without it may come

    /// A change reaches the disk; `torn`: any part of it.
    void apply(const replication::DiskRequest& request, Random* torn);
    /// R11: it may differ on all that are lost.
    void mark_dirty(const Range& range);
    void make_durable(std::size_t first, std::size_t end);
    /// What a flush that began with these `versions` makes durable.
    struct Snapshot {
        std::vector<std::byte> content;
        std::vector<std::uint64_t> versions;
    };
    Snapshot snapshot() const { return {now, version}; }
    void flushed(const Snapshot& snapshot);
    void power_cut(Random& random);
    void lose_ids();
    /// The first 8 bytes: what the guest wrote there.
    std::uint64_t value(std::size_t sector) const { return value_in(now, sector); }
    std::uint64_t durable_value(std::size_t sector) const { return value_in(durable, sector); }

    static std::uint64_t value_in(const std::vector<std::byte>& content, std::size_t sector) {
        return load_le<std::uint64_t>(content.data() + sector * kSectorBytes);
    }

    /// A copy of the disk is made: what is durable on it. It may come back in its place later.
    void make_image();
    bool has_image() const { return image_.has_value(); }
    void put_image_back();

  private:
    struct Image {
        std::vector<std::byte> content;
        std::vector<std::uint64_t> versions;
        Stored stored;
    };
    std::optional<Image> image_;
};

}  // namespace ublkd::sim
