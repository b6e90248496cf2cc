#include "tests/history/history_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>

namespace ublkd::history {
namespace {

constexpr std::string_view kMagic = "ublkd-history";
constexpr std::string_view kVersion = "1";
constexpr std::string_view kActions[] = {"read", "write", "zero", "discard", "flush"};

std::string text_of(const Seen& seen) {
    const std::string by = fmt::format("{}.{}", seen.by.writer, seen.by.sequence);
    switch (seen.what) {
        case Seen::What::kZeroes:
            return fmt::format("0*{}", seen.count);
        case Seen::What::kStamp:
            return fmt::format("{}*{}", by, seen.count);
        case Seen::What::kMisplaced:
            return fmt::format("{}@{}*{}", by, seen.address, seen.count);
        case Seen::What::kTorn:
            return fmt::format("torn*{}", seen.count);
    }
    return "";
}

template <class T>
bool take_number(std::string_view& text, T& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return true;
}

bool take(std::string_view& text, std::string_view expected) {
    if (!text.starts_with(expected)) return false;
    text.remove_prefix(expected.size());
    return true;
}

bool parse_id(std::string_view text, OperationId& id) {
    return take_number(text, id.writer) && take(text, ".") && take_number(text, id.sequence) &&
           text.empty();
}

bool parse_seen(std::string_view text, Seen& seen) {
    if (take(text, "torn*")) {
        seen.what = Seen::What::kTorn;
    } else if (!take(text, "0*")) {
        seen.what = Seen::What::kStamp;
        if (!take_number(text, seen.by.writer) || !take(text, ".") ||
            !take_number(text, seen.by.sequence))
            return false;
        if (take(text, "@")) {
            seen.what = Seen::What::kMisplaced;
            if (!take_number(text, seen.address)) return false;
        }
        if (!take(text, "*")) return false;
    }
    return take_number(text, seen.count) && text.empty() && seen.count > 0;
}

std::vector<std::string_view> words_of(std::string_view line) {
    std::vector<std::string_view> words;
    while (!line.empty()) {
        const std::size_t space = std::min(line.find(' '), line.size());
        if (space > 0) words.push_back(line.substr(0, space));
        line.remove_prefix(std::min(space + 1, line.size()));
    }
    return words;
}

/// Reads line after line into one history; "" or what is wrong with the line.
class Parser {
  public:
    std::string take_header(std::string_view line) {
        const auto words = words_of(line);
        if (words.size() != 3 || words[0] != kMagic || words[1] != kVersion)
            return "not a history of version 1";
        if (!boot_.empty() && boot_ != words[2])
            return "of another boot than the others: their times cannot be compared";
        boot_ = words[2];
        return "";
    }

    std::string take_line(std::string_view line) {
        const auto words = words_of(line);
        if (words.empty() || words[0].starts_with('#')) return "";
        if (words[0] == "!") return loss(words);
        Time at = 0;
        OperationId id;
        std::string_view number = words.size() > 1 ? words[1] : "";
        if (words.size() < 4 || !take_number(number, at) || !number.empty() ||
            !parse_id(words[2], id))
            return "not an event";
        if (words[0] == ">") return begin(words, at, id);
        if (words[0] == "<") return end(words, at, id);
        return "not an event";
    }

    History take_history() {
        std::ranges::sort(history_.losses, {}, &Loss::begin);
        return std::move(history_);
    }

  private:
    std::string loss(const std::vector<std::string_view>& words) {
        Loss loss;
        if (words.size() != 4 || words[1] != "loss") return "not an event";
        std::string_view first = words[2];
        std::string_view last = words[3];
        if (!take_number(first, loss.begin) || !take_number(last, loss.end) || !first.empty() ||
            !last.empty())
            return "not a loss";
        if (loss.end < loss.begin + 2) return "a loss has to end after it began";
        for (const Loss& other : history_.losses) {
            if (loss.begin <= other.end && other.begin <= loss.end) return "losses overlap";
        }
        history_.losses.push_back(loss);
        return "";
    }

    std::string begin(const std::vector<std::string_view>& words, Time at, OperationId id) {
        Operation operation{.id = id, .begin = at};
        const auto* const action = std::ranges::find(kActions, words[3]);
        if (action == std::end(kActions)) return "unknown operation";
        operation.action = static_cast<Action>(action - kActions);
        std::size_t next = 4;
        if (operation.action != Action::kFlush) {
            std::string_view range = words.size() > next ? words[next++] : "";
            if (!take_number(range, operation.sector) || !take(range, "+") ||
                !take_number(range, operation.count) || !range.empty() || operation.count == 0)
                return "not a range";
        }
        operation.fua = words.size() > next && words[next] == "fua";
        if (words.size() != next + (operation.fua ? 1 : 0)) return "too many words";
        const auto index = static_cast<std::uint32_t>(history_.operations.size());
        if (!known_.emplace(id, index).second) return "this operation began already";
        history_.operations.push_back(std::move(operation));
        return "";
    }

    std::string end(const std::vector<std::string_view>& words, Time at, OperationId id) {
        const auto found = known_.find(id);
        if (found == known_.end()) return "the end of an operation that did not begin";
        Operation& operation = history_.operations[found->second];
        if (operation.outcome != Operation::Outcome::kUnknown) return "it ended already";
        if (at < operation.begin) return "it ends before it began";
        operation.end = at;
        if (words[3] == "failed") {
            operation.outcome = Operation::Outcome::kFailed;
            std::string_view error = words.size() == 5 ? words[4] : "";
            return take_number(error, operation.error) && error.empty() ? "" : "not an errno";
        }
        if (words[3] != "ok") return "unknown outcome";
        operation.outcome = Operation::Outcome::kOk;
        std::uint64_t count = 0;
        for (std::size_t i = 4; i < words.size(); ++i) {
            Seen seen;
            if (!parse_seen(words[i], seen)) return "not what a read saw";
            count += seen.count;
            operation.seen.push_back(seen);
        }
        const std::uint64_t expected = operation.action == Action::kRead ? operation.count : 0;
        return count == expected ? "" : "it saw another number of sectors than it has";
    }

    History history_;
    std::map<OperationId, std::uint32_t> known_;
    std::string boot_;
};

}  // namespace

Time now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<Time>(time.tv_sec) * 1'000'000'000 + static_cast<Time>(time.tv_nsec);
}

std::string header_line() {
    std::string boot;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
    return fmt::format("{} {} {}\n", kMagic, kVersion, boot.empty() ? "unknown-boot" : boot);
}

std::string begin_line(const Operation& operation) {
    std::string line =
        fmt::format("> {} {}.{} {}", operation.begin, operation.id.writer, operation.id.sequence,
                    kActions[static_cast<std::size_t>(operation.action)]);
    if (operation.action != Action::kFlush)
        line += fmt::format(" {}+{}", operation.sector, operation.count);
    return line + (operation.fua ? " fua\n" : "\n");
}

std::string end_line(const Operation& operation) {
    const bool ok = operation.outcome == Operation::Outcome::kOk;
    std::string line = fmt::format("< {} {}.{} {}", operation.end, operation.id.writer,
                                   operation.id.sequence, ok ? "ok" : "failed");
    if (!ok) line += fmt::format(" {}", operation.error);
    for (const Seen& seen : operation.seen) line += " " + text_of(seen);
    return line + "\n";
}

std::string loss_line(const Loss& loss) {
    return fmt::format("! loss {} {}\n", loss.begin, loss.end);
}

HistoryWriter::HistoryWriter(const std::string& path)
    : fd_(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) {
    if (fd_ < 0) {
        std::fprintf(stderr, "history: %s: %s\n", path.c_str(), std::strerror(errno));
        std::exit(2);
    }
    if (lseek(fd_, 0, SEEK_END) == 0) append(header_line());
}

HistoryWriter::~HistoryWriter() { close(fd_); }

void HistoryWriter::append(std::string_view lines) {
    if (write(fd_, lines.data(), lines.size()) == static_cast<ssize_t>(lines.size())) return;
    std::perror("history: write");
    std::exit(2);
}

std::expected<History, std::string> parse_histories(const std::vector<NamedText>& files) {
    Parser parser;
    for (const NamedText& file : files) {
        std::string_view left = file.text;
        for (std::size_t number = 1; !left.empty(); ++number) {
            const std::size_t length = left.find('\n');
            // What was written last when a process died may be half a line: it never happened.
            if (length == std::string_view::npos && number > 1) break;
            const std::string_view line = left.substr(0, length);
            const std::string wrong =
                number == 1 ? parser.take_header(line) : parser.take_line(line);
            if (!wrong.empty())
                return std::unexpected(fmt::format("{}:{}: {}", file.name, number, wrong));
            left.remove_prefix(std::min(line.size() + 1, left.size()));
        }
    }
    return parser.take_history();
}

}  // namespace ublkd::history
