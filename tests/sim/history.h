// What a guest did and saw, and whether one order explains it. Each sector is a register whose
// writes are all different; for those linearizability is decided exactly by zones (Gibbons and
// Korach, "Testing shared memories", 1997): the operations on one value span a zone between their
// earliest end and their latest start; forward zones (the value was current all through it) never
// overlap, and no backward zone lies within a forward one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace ublkd::sim {

class History {
  public:
    static constexpr std::uint64_t kOpen = std::numeric_limits<std::uint64_t>::max();

    struct Operation {
        std::uint64_t begin = 0;
        std::uint64_t end = kOpen;  // kOpen: its outcome is unknown
        std::uint64_t value = 0;
        bool write = false;
        bool fua = false;
    };

    explicit History(std::size_t sectors) : sectors_(sectors) {
        for (auto& sector : sectors_)
            sector.push_back(Operation{0, 0, 0, true, true});  // all zeroes at first
    }

    void write(std::size_t sector, std::uint64_t begin, std::uint64_t value, bool fua) {
        sectors_[sector].push_back(Operation{begin, kOpen, value, true, fua});
    }
    void end_write(std::size_t sector, std::uint64_t value, std::uint64_t end) {
        for (Operation& operation : sectors_[sector]) {
            if (operation.write && operation.value == value && operation.end == kOpen)
                operation.end = end;
        }
    }
    /// Whether the write of `value` had not ended when something began at `begin`.
    bool beside(std::size_t sector, std::uint64_t value, std::uint64_t begin) const {
        for (const Operation& operation : sectors_[sector]) {
            if (operation.write && operation.value == value) return operation.end > begin;
        }
        return false;
    }
    void read(std::size_t sector, std::uint64_t begin, std::uint64_t end, std::uint64_t value) {
        // A read that was under way when writes were lost may have seen them.
        if (begin > lost_at_)
            sectors_[sector].push_back(Operation{begin, end, value, false, false});
    }
    /// All writes that ended before `begin` are durable.
    void flushed(std::uint64_t begin) { flushed_ = std::max(flushed_, begin); }

    /// When the latest of the writes of these values, one of each sector, began.
    std::uint64_t last_begin(const std::vector<std::uint64_t>& values) const {
        std::uint64_t last = 0;
        for (std::size_t sector = 0; sector < sectors_.size(); ++sector) {
            if (const Operation* const write = write_of(sector, values[sector]); write != nullptr)
                last = std::max(last, write->begin);
        }
        return last;
    }
    /// What a cut, asked for at `begin`, that has these values lacks of what somebody had been told
    /// of before `before`; "": nothing.
    std::string lacks(const std::vector<std::uint64_t>& values, std::uint64_t begin,
                      std::uint64_t before) const {
        if (begin <= lost_at_) return "";
        for (std::size_t sector = 0; sector < sectors_.size(); ++sector) {
            const Operation* const held = write_of(sector, values[sector]);
            if (held == nullptr) continue;
            for (const Operation& told : sectors_[sector]) {
                const Operation* const write = told.write ? &told : write_of(sector, told.value);
                if (told.end < before && write != nullptr && held->end < write->begin)
                    return text(sector, "of a cut lacks what was known by then:", told.value);
            }
        }
        return "";
    }

    /// Unflushed writes were lost (R9): each sector must hold its last durable value or one that
    /// was written later. What it holds is where a new history begins; writes without an outcome
    /// may still come. `values(sector)`: what the members hold; more than one where they are to be
    /// made equal before the sector is served, by whichever of them is primary then. Returns what
    /// is wrong, or "".
    template <class Values>
    std::string lose(std::uint64_t now, Values values) {
        std::string wrong = check();
        for (std::size_t sector = 0; sector < sectors_.size() && wrong.empty(); ++sector)
            wrong = lose(sector, now, values(sector));
        lost_at_ = now;
        return wrong;
    }

    /// "" where one order explains all; otherwise what contradicts.
    std::string check() const {
        for (std::size_t sector = 0; sector < sectors_.size(); ++sector) {
            if (const auto wrong = check(sector); !wrong.empty()) return wrong;
        }
        return "";
    }

  private:
    std::string lose(std::size_t sector, std::uint64_t now, const std::set<std::uint64_t>& values) {
        std::vector<Operation> rest;
        for (const std::uint64_t value : values) {
            const Operation* found = nullptr;
            for (const Operation& operation : sectors_[sector]) {
                if (operation.write && operation.value == value) found = &operation;
            }
            if (found == nullptr) return text(sector, "holds what was never written:", value);
            for (const Operation& other : sectors_[sector]) {
                const bool durable =
                    other.write && other.end != kOpen && (other.end < flushed_ || other.fua);
                if (durable && found->end < other.begin)
                    return text(sector, "lost a durable write; it holds", value);
            }
            rest.push_back(Operation{0, values.size() == 1 ? now : kOpen, value, true, false});
        }
        for (const Operation& other : sectors_[sector]) {
            if (other.write && other.end == kOpen && !values.contains(other.value))
                rest.push_back(other);
        }
        sectors_[sector] = std::move(rest);
        return "";
    }

    const Operation* write_of(std::size_t sector, std::uint64_t value) const {
        const Operation* found = nullptr;
        for (const Operation& operation : sectors_[sector]) {
            if (operation.write && operation.value == value) found = &operation;
        }
        return found;
    }

    struct Zone {
        std::uint64_t written = kOpen;  // when its write began
        std::uint64_t first_end = kOpen;
        std::uint64_t last_begin = 0;
        bool forward() const { return first_end < last_begin; }
    };
    static std::string text(std::size_t sector, const char* what, std::uint64_t value) {
        return "sector " + std::to_string(sector) + " " + what + " " + std::to_string(value);
    }

    std::string check(std::size_t sector) const {
        std::map<std::uint64_t, Zone> zones;
        for (const Operation& operation : sectors_[sector]) {
            Zone& zone = zones[operation.value];
            zone.first_end = std::min(zone.first_end, operation.end);
            zone.last_begin = std::max(zone.last_begin, operation.begin);
            if (operation.write) zone.written = operation.begin;
        }
        for (const Operation& operation : sectors_[sector]) {
            const Zone& zone = zones[operation.value];
            if (zone.written == kOpen || operation.end < zone.written)
                return text(sector, "was read with what was not written yet:", operation.value);
        }
        for (const auto& [value, zone] : zones) {
            if (!zone.forward()) continue;
            for (const auto& [other_value, other] : zones) {
                if (value == other_value) continue;
                const bool overlap = other.forward() && zone.first_end < other.last_begin &&
                                     other.first_end < zone.last_begin;
                const bool within = !other.forward() && zone.first_end < other.last_begin &&
                                    other.first_end < zone.last_begin;
                if (overlap || within)
                    return text(sector, "cannot be ordered: values", value) + " and " +
                           std::to_string(other_value);
            }
        }
        return "";
    }

    std::vector<std::vector<Operation>> sectors_;
    std::uint64_t flushed_ = 0;
    std::uint64_t lost_at_ = 0;
};

}  // namespace ublkd::sim
