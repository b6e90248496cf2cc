#include "tests/history/check.h"

#include <map>

namespace ublkd::history {
namespace {

struct Sector {
    std::vector<SectorEvent> events;
    std::optional<Finding> finding;
};

class Judge {
  public:
    explicit Judge(const History& history) : history_(history) {
        for (std::uint32_t i = 0; i < history.operations.size(); ++i) {
            const Operation& operation = history.operations[i];
            if (operation.changes()) writes_.emplace(operation.id, i);
        }
        for (std::uint32_t i = 0; i < history.operations.size(); ++i) add(i);
    }

    Verdict run() {
        Verdict verdict;
        verdict.sectors = sectors_.size();
        for (auto& [number, sector] : sectors_) {
            if (!sector.finding) judge(number, sector);
            if (sector.finding) join(verdict.findings, *sector.finding);
        }
        return verdict;
    }

  private:
    void add(std::uint32_t index) {
        const Operation& operation = history_.operations[index];
        const bool ok = operation.outcome == Operation::Outcome::kOk;
        if (operation.action == Action::kFlush) {
            if (ok) flushes_.push_back(Flush{operation.begin, operation.end, index});
        } else if (operation.action == Action::kRead) {
            if (ok) add_read(index, operation);
        } else {
            // A change that was answered with an error may have happened in part, and still may.
            SectorEvent event{.write = true,
                              .durable = operation.fua && ok,
                              .value = operation.action == Action::kWrite ? index + 1 : 0,
                              .begin = operation.begin,
                              .end = ok ? operation.end : kOpen,
                              .operation = index};
            for (std::uint64_t i = 0; i < operation.count; ++i)
                sectors_[operation.sector + i].events.push_back(event);
        }
    }

    void add_read(std::uint32_t index, const Operation& operation) {
        std::uint64_t at = operation.sector;
        for (const Seen& seen : operation.seen) {
            std::optional<std::uint64_t> value;
            if (seen.what == Seen::What::kZeroes) value = 0;
            if (seen.what == Seen::What::kStamp) value = value_of(seen.by);
            for (std::uint64_t i = 0; i < seen.count; ++i, ++at) {
                Sector& sector = sectors_[at];
                if (value && (*value == 0 || covers(*value, at))) {
                    sector.events.push_back(SectorEvent{.write = false,
                                                        .durable = false,
                                                        .value = *value,
                                                        .begin = operation.begin,
                                                        .end = operation.end,
                                                        .operation = index});
                } else if (!sector.finding) {
                    sector.finding = unexplained(index, at, seen);
                }
            }
        }
    }

    std::optional<std::uint64_t> value_of(OperationId by) const {
        const auto found = writes_.find(by);
        if (found == writes_.end()) return std::nullopt;
        if (history_.operations[found->second].action != Action::kWrite) return std::nullopt;
        return found->second + 1;
    }
    bool covers(std::uint64_t value, std::uint64_t sector) const {
        const Operation& write = history_.operations[value - 1];
        return write.sector <= sector && sector < write.sector + write.count;
    }

    static Finding unexplained(std::uint32_t read, std::uint64_t sector, const Seen& seen) {
        Finding finding{.sector = sector, .read = read, .seen = seen};
        finding.what = seen.what == Seen::What::kTorn        ? Finding::What::kTorn
                       : seen.what == Seen::What::kMisplaced ? Finding::What::kMisplaced
                                                             : Finding::What::kNowhere;
        return finding;
    }

    void judge(std::uint64_t number, Sector& sector) {
        const auto found = check_sector(sector.events, flushes_, history_.losses);
        if (found) sector.finding = Finding{.sector = number, .contradiction = *found};
    }

    /// Neighbours with one finding become one.
    static void join(std::vector<Finding>& findings, const Finding& finding) {
        if (!findings.empty()) {
            Finding& last = findings.back();
            const Contradiction& a = last.contradiction;
            const Contradiction& b = finding.contradiction;
            const bool same = last.what == finding.what && last.read == finding.read &&
                              last.what != Finding::What::kMisplaced && a.why == b.why &&
                              a.earlier == b.earlier && a.later == b.later &&
                              a.before == b.before && a.since == b.since && a.flush == b.flush;
            if (same && last.sector + last.count == finding.sector) {
                ++last.count;
                return;
            }
        }
        findings.push_back(finding);
    }

    const History& history_;
    std::map<OperationId, std::uint32_t> writes_;
    std::vector<Flush> flushes_;
    std::map<std::uint64_t, Sector> sectors_;
};

}  // namespace

Verdict judge(const History& history) { return Judge(history).run(); }

}  // namespace ublkd::history
