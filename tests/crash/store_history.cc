#include "tests/crash/store_history.h"

#include <fmt/core.h>

#include "ublkd/base/bytes.h"

namespace ublkd::crash {

StoreHistory::ChangeIndex StoreHistory::issue_change(Range range, bool zeroes, std::size_t moment) {
    changes_.push_back(
        Change{.range = range, .zeroes = zeroes, .issued = moment, .clear_allowed = {}});
    const ChangeIndex index = changes_.size() - 1;
    for (std::uint64_t sector = range.offset_bytes / kSectorBytes;
         sector * kSectorBytes < range.end_bytes(); ++sector)
        by_sector_[sector].push_back(index);
    return index;
}

void StoreHistory::acknowledge(ChangeIndex change, bool durable, std::size_t moment) {
    changes_[change].acknowledged = moment;
    if (durable) changes_[change].durable = moment;
}

std::vector<StoreHistory::ChangeIndex> StoreHistory::begin_flush() const {
    std::vector<ChangeIndex> covered;
    for (ChangeIndex i = 0; i < changes_.size(); ++i) {
        if (changes_[i].acknowledged != kNever && changes_[i].durable == kNever)
            covered.push_back(i);
    }
    return covered;
}

void StoreHistory::end_flush(std::span<const ChangeIndex> covered, std::size_t moment) {
    for (const ChangeIndex change : covered) {
        if (changes_[change].durable == kNever) changes_[change].durable = moment;
    }
}

void StoreHistory::allow_clear(std::span<const std::uint32_t> regions, std::size_t moment) {
    for (Change& change : changes_) {
        if (change.acknowledged == kNever) continue;
        for (const std::uint64_t region : regions) {
            if (change.range.overlaps(Range{region * kRegionBytes, kRegionBytes}))
                change.clear_allowed.try_emplace(region, moment);
        }
    }
}

std::uint64_t StoreHistory::issue_update(std::size_t moment) {
    updates_.push_back(Update{moment});
    return updates_.size();
}

store::RecordBytes StoreHistory::record_of(std::uint64_t value) {
    std::array<std::byte, 512> bytes;
    bytes.fill(static_cast<std::byte>(value));
    return value == 0 ? store::RecordBytes() : store::RecordBytes(bytes);
}

void StoreHistory::acknowledge_update(std::uint64_t value, std::size_t moment) {
    updates_[value - 1].acknowledged = moment;
}

void StoreHistory::fill(ChangeIndex change, std::uint64_t offset_bytes,
                        std::span<std::byte> into) const {
    for (std::size_t at = 0; at < into.size(); at += 8)
        store_le<std::uint64_t>(into.data() + at,
                                (change + 1) << 32 | (offset_bytes + at) / kSectorBytes);
}

std::vector<Range> StoreHistory::touched() const {
    std::vector<Range> ranges;
    for (const auto& [sector, changes] : by_sector_) {
        const std::uint64_t at = sector * kSectorBytes;
        const bool joins = !ranges.empty() && ranges.back().end_bytes() == at &&
                           ranges.back().length_bytes + kSectorBytes <= kMaxIoBytes;
        if (joins) {
            ranges.back().length_bytes += kSectorBytes;
        } else {
            ranges.push_back(Range{at, kSectorBytes});
        }
    }
    return ranges;
}

StoreHistory::Expected StoreHistory::expected(std::uint64_t sector, std::size_t moment) const {
    Expected expected;
    for (const ChangeIndex index : by_sector_.at(sector)) {
        const Change& change = changes_[index];
        if (change.issued >= moment) break;
        if (change.durable <= moment) {
            expected.durable = index;
            expected.later.clear();
        } else {
            expected.later.push_back(index);
        }
    }
    return expected;
}

bool StoreHistory::shows(std::optional<ChangeIndex> change, std::uint64_t sector,
                         std::span<const std::byte> bytes) const {
    if (!change || changes_[*change].zeroes) return is_all_zero(bytes);
    std::array<std::byte, kSectorBytes> wanted;
    fill(*change, sector * kSectorBytes, wanted);
    return std::ranges::equal(wanted, bytes);
}

std::string StoreHistory::check_sector(std::uint64_t sector, std::size_t moment,
                                       const store::ReplicaStore& store,
                                       std::span<const std::byte> bytes) const {
    Expected allowed = expected(sector, moment);
    const std::uint64_t offset = sector * kSectorBytes;
    if (store.superblock().clean) {
        // The state of the mark: the last change before it, and no other.
        std::size_t before = 0;
        for (const Mark& mark : marks_) before = mark.issued < moment ? mark.changes : before;
        std::optional<ChangeIndex> last;
        for (const ChangeIndex index : by_sector_.at(sector))
            last = index < before ? std::optional(index) : last;
        if (!shows(last, sector, bytes))
            return fmt::format("sector {} is not that of the clean mark (word {:x})", sector,
                               load_le<std::uint64_t>(bytes.data()));
        allowed = Expected{last, {}};
    }
    std::optional<ChangeIndex> found = allowed.durable;
    bool matches = shows(found, sector, bytes);
    for (std::size_t i = 0; i < allowed.later.size() && !matches; ++i) {
        found = allowed.later[i];
        matches = shows(found, sector, bytes);
    }
    if (!matches)
        return fmt::format(
            "sector {} holds neither the last flushed nor a later value (word {:x}, flushed change "
            "{})",
            sector, load_le<std::uint64_t>(bytes.data()),
            allowed.durable ? static_cast<std::int64_t>(*allowed.durable) : -1);
    if (!is_all_zero(bytes) && !store.allocated().test(offset / kDirtyUnitBytes))
        return fmt::format("sector {} has data in a unit that is not allocated", sector);
    return store.activity().test(offset / kRegionBytes) ? ""
                                                        : check_not_active(sector, moment, bytes);
}

std::string StoreHistory::check_not_active(std::uint64_t sector, std::size_t moment,
                                           std::span<const std::byte> bytes) const {
    std::optional<ChangeIndex> last;
    for (const ChangeIndex index : by_sector_.at(sector)) {
        const auto& allowed = changes_[index].clear_allowed;
        const auto clear = allowed.find(sector * kSectorBytes / kRegionBytes);
        if (clear != allowed.end() && clear->second < moment) last = index;
    }
    if (shows(last, sector, bytes)) return "";
    return fmt::format(
        "sector {} of a region that is not active is not as it was when the caller cleared it "
        "(word {:x})",
        sector, load_le<std::uint64_t>(bytes.data()));
}

std::string StoreHistory::check_superblock(std::size_t moment,
                                           const store::ReplicaStore& store) const {
    std::uint64_t acknowledged = 0;
    std::uint64_t issued = 0;
    for (std::uint64_t value = 1; value <= updates_.size(); ++value) {
        if (updates_[value - 1].issued < moment) issued = value;
        if (updates_[value - 1].acknowledged <= moment) acknowledged = value;
    }
    const std::uint64_t found = store.superblock().durable_through;
    const bool whole =
        store.superblock().number == found && store.superblock().record == record_of(found);
    if (whole && found >= acknowledged && found <= issued) return "";
    return fmt::format("superblock holds update {}, acknowledged {}, issued {}", found,
                       acknowledged, issued);
}

std::string StoreHistory::check(std::size_t moment, const store::ReplicaStore& store,
                                std::span<const std::byte> data) const {
    if (auto wrong = check_superblock(moment, store); !wrong.empty()) return wrong;
    std::size_t at = 0;
    for (const auto& [sector, changes] : by_sector_) {
        auto wrong = check_sector(sector, moment, store, data.subspan(at, kSectorBytes));
        if (!wrong.empty()) return wrong;
        at += kSectorBytes;
    }
    return "";
}

}  // namespace ublkd::crash
