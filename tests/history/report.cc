#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "tests/history/check.h"

namespace ublkd::history {
namespace {

constexpr const char* kVerbs[] = {"read", "write", "write of zeroes", "discard", "flush"};

class Reporter {
  public:
    explicit Reporter(const History& history) : history_(history) {
        for (const Operation& operation : history.operations)
            start_ = std::min(start_, operation.begin);
        for (const Loss& loss : history.losses) start_ = std::min(start_, loss.begin);
    }

    std::string text_of(const Finding& finding) const {
        const std::string where = finding.count == 1
                                      ? fmt::format("sector {}", finding.sector)
                                      : fmt::format("sectors {} to {}", finding.sector,
                                                    finding.sector + finding.count - 1);
        return where + ": " +
               (finding.what == Finding::What::kContradiction
                    ? contradiction(finding.contradiction, finding.sector)
                    : unexplained(finding)) +
               "\n";
    }

  private:
    /// Seconds since the first operation.
    std::string time(Time at) const {
        if (at == kOpen) return "?";
        return fmt::format("{:.6f}", static_cast<double>(at - start_) / 1e9);
    }

    /// "write 3.17 of sectors 8 to 15 with FUA, by client 3 from 1.000000 to 1.000200 s".
    std::string operation(std::uint32_t index) const {
        const Operation& it = history_.operations[index];
        std::string text = fmt::format("{} {}.{}", kVerbs[static_cast<std::size_t>(it.action)],
                                       it.id.writer, it.id.sequence);
        if (it.action != Action::kFlush)
            text += fmt::format(" of sectors {} to {}", it.sector, it.sector + it.count - 1);
        if (it.fua) text += " with FUA";
        text += fmt::format(" (from {} to {} s", time(it.begin), time(it.end));
        if (it.outcome == Operation::Outcome::kUnknown) text += ", never answered";
        if (it.outcome == Operation::Outcome::kFailed)
            text += fmt::format(", failed with error {}", it.error);
        return text + ")";
    }
    std::string name(std::uint32_t index) const {
        const Operation& it = history_.operations[index];
        return fmt::format("{} {}.{}", kVerbs[static_cast<std::size_t>(it.action)], it.id.writer,
                           it.id.sequence);
    }

    /// What an operation left or found in the sector.
    std::string value(std::uint32_t index, std::uint64_t sector) const {
        const Operation& it = history_.operations[index];
        if (it.action == Action::kWrite)
            return fmt::format("the data of write {}.{}", it.id.writer, it.id.sequence);
        std::uint64_t at = it.sector;
        for (const Seen& seen : it.seen) {
            at += seen.count;
            if (sector >= at) continue;
            if (seen.what == Seen::What::kStamp)
                return fmt::format("the data of write {}.{}", seen.by.writer, seen.by.sequence);
            break;
        }
        return "zeroes";
    }
    std::string saw(std::uint32_t index, std::uint64_t sector) const {
        return operation(index) + " found " + value(index, sector);
    }
    /// "write 3.17 … put its data there", or for a read what it found.
    std::string put(std::uint32_t index, std::uint64_t sector) const {
        if (history_.operations[index].action == Action::kRead) return saw(index, sector);
        return operation(index);
    }

    std::string because(const Contradiction& found, std::uint64_t sector) const {
        std::string text;
        if (found.before && found.since && found.before != found.since) {
            text += fmt::format(
                "\n  {} is older: {} ended before {} began", value(found.later, sector),
                put(*found.before, sector),
                *found.since == found.earlier ? "the former" : put(*found.since, sector));
        }
        if (found.flush) {
            text += fmt::format("\n  it was durable by {}", operation(*found.flush));
        }
        return text;
    }

    std::string contradiction(const Contradiction& found, std::uint64_t sector) const {
        const std::string earlier = put(found.earlier, sector);
        const std::string later = put(found.later, sector);
        switch (found.why) {
            case Why::kNeverWritten:
                return later + ", which nobody wrote there";
            case Why::kWrittenTwice:
                return fmt::format("{}\n  and {}\n  wrote the same stamp", earlier, later);
            case Why::kFromTheFuture:
                return fmt::format("{},\n  and ended before {} began", later, earlier);
            case Why::kOldValue:
                return fmt::format("{},\n  though {} ended before it began", later, earlier) +
                       because(found, sector);
            case Why::kZeroesVanished:
                return fmt::format("{},\n  though {} ended before it began", later, earlier) +
                       because(found, sector);
            case Why::kNotZeroYet:
                return fmt::format("{},\n  though {} ended before it began,\n  and {} after it",
                                   later, earlier, put(*found.since, sector));
            case Why::kNeverZeroed:
                return fmt::format(
                    "{},\n  after {},\n  and no write of zeroes or discard can have come in "
                    "between",
                    later, earlier);
            case Why::kLostFlushed:
                return fmt::format("{} after a loss event,\n  though {} was durable by then", later,
                                   earlier) +
                       because(found, sector);
            case Why::kTwoAfterLoss:
                return fmt::format(
                    "{},\n  and {};\n  both are from before the loss event, which can have left "
                    "one",
                    earlier, later);
        }
        return "";
    }

    std::string unexplained(const Finding& finding) const {
        const std::string read = operation(finding.read);
        const std::string by =
            fmt::format("{}.{}", finding.seen.by.writer, finding.seen.by.sequence);
        switch (finding.what) {
            case Finding::What::kTorn:
                return read + " found neither zeroes nor one whole stamp (torn, or foreign data)";
            case Finding::What::kMisplaced:
                return fmt::format("{} found the data of write {} for sector {} (misplaced)", read,
                                   by, finding.seen.address);
            default:
                return fmt::format("{} found the data of write {}, which is not in the history{}",
                                   read, by, " or did not write this sector");
        }
    }

    const History& history_;
    Time start_ = kOpen;
};

}  // namespace

std::string report(const History& history, const Verdict& verdict, std::size_t most) {
    const Reporter reporter(history);
    std::string text;
    for (std::size_t i = 0; i < std::min(most, verdict.findings.size()); ++i)
        text += reporter.text_of(verdict.findings[i]);
    if (verdict.findings.size() > most)
        text += fmt::format("and {} more\n", verdict.findings.size() - most);
    return text;
}

std::string summary(const History& history, const Verdict& verdict) {
    std::set<std::uint32_t> writers;
    std::uint64_t reads = 0, changes = 0, flushes = 0, failed = 0, unknown = 0;
    for (const Operation& operation : history.operations) {
        writers.insert(operation.id.writer);
        reads += operation.action == Action::kRead ? 1U : 0U;
        changes += operation.changes() ? 1U : 0U;
        flushes += operation.action == Action::kFlush ? 1U : 0U;
        failed += operation.outcome == Operation::Outcome::kFailed ? 1U : 0U;
        unknown += operation.outcome == Operation::Outcome::kUnknown ? 1U : 0U;
    }
    return fmt::format(
        "{} operations of {} clients ({} reads, {} changes, {} flushes; {} failed, {} of unknown "
        "outcome), {} losses, {} sectors",
        history.operations.size(), writers.size(), reads, changes, flushes, failed, unknown,
        history.losses.size(), verdict.sectors);
}

}  // namespace ublkd::history
