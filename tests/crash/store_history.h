// What was asked of a store and answered by it, and whether an image that a power cut left keeps
// the store's contract:
//   1 each sector holds the last flushed value or one of a later issued request;
//   2 a region that is not active holds exactly the changes that the caller allowed to forget, all
//     of them, so that no other member can differ from it; a unit with data is allocated;
//   3 the superblock is the last acknowledged one or one of a later issued update;
//   4 where it says clean, the data is exactly that of the moment of the mark.
// Moments are those of the RecordedDisk.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tests/crash/recorded_disk.h"
#include "ublkd/store/replica_store.h"

namespace ublkd::crash {

class StoreHistory {
  public:
    using ChangeIndex = std::size_t;

    /// A write (or zeroing) of `range` is about to be issued. Changes of one sector never overlap
    /// in time.
    ChangeIndex issue_change(Range range, bool zeroes, std::size_t moment);
    void acknowledge(ChangeIndex change, bool durable, std::size_t moment);
    /// Around a flush: what was acknowledged when it began is durable when it has ended.
    std::vector<ChangeIndex> begin_flush() const;
    void end_flush(std::span<const ChangeIndex> covered, std::size_t moment);
    /// The caller allows that the bits of `regions` are cleared, for the changes that are
    /// acknowledged now.
    void allow_clear(std::span<const std::uint32_t> regions, std::size_t moment);
    void issue_mark(std::size_t moment) { marks_.push_back({moment, changes_.size()}); }
    std::uint64_t issue_update(std::size_t moment);  // returns what to write as "durable through"
    /// A record over several sectors, so that a torn copy is seen.
    static store::RecordBytes record_of(std::uint64_t value);
    void acknowledge_update(std::uint64_t value, std::size_t moment);

    /// The bytes of one sector of `change`.
    void fill(ChangeIndex change, std::uint64_t offset_bytes, std::span<std::byte> into) const;
    /// All sectors that were ever changed, as ranges.
    std::vector<Range> touched() const;

    /// Empty: the contract is kept; otherwise what is wrong, first.
    /// `data`: what reading touched() of the reopened `store` gave, in order.
    std::string check(std::size_t moment, const store::ReplicaStore& store,
                      std::span<const std::byte> data) const;

  private:
    struct Change {
        Range range;
        bool zeroes = false;
        std::size_t issued = 0;
        std::size_t acknowledged = kNever;
        std::size_t durable = kNever;
        std::map<std::uint64_t, std::size_t> clear_allowed;  // region -> moment
    };
    struct Mark {
        std::size_t issued;
        std::size_t changes;  // how many were issued before it
    };
    struct Update {
        std::size_t issued;
        std::size_t acknowledged = kNever;
    };
    struct Expected {
        std::optional<ChangeIndex> durable;  // nullopt: zeroes from the beginning
        std::vector<ChangeIndex> later;
    };
    Expected expected(std::uint64_t sector, std::size_t moment) const;
    bool shows(std::optional<ChangeIndex> change, std::uint64_t sector,
               std::span<const std::byte> bytes) const;
    std::string check_sector(std::uint64_t sector, std::size_t moment,
                             const store::ReplicaStore& store,
                             std::span<const std::byte> bytes) const;
    std::string check_not_active(std::uint64_t sector, std::size_t moment,
                                 std::span<const std::byte> bytes) const;
    std::string check_superblock(std::size_t moment, const store::ReplicaStore& store) const;

    std::vector<Change> changes_;
    std::map<std::uint64_t, std::vector<ChangeIndex>> by_sector_;
    std::vector<Mark> marks_;
    std::vector<Update> updates_;  // value v is updates_[v - 1]
};

}  // namespace ublkd::crash
