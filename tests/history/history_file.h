// History files: text, one line per event, appended as it happens, so that whatever ends a process
// leaves a file that can be judged. Format: docs/testing-history.md.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "tests/history/history.h"

namespace ublkd::history {

/// Nanoseconds of CLOCK_MONOTONIC: one clock for all processes of a boot.
Time now();

std::string header_line();  // names the boot, since times of two boots say nothing of each other
std::string begin_line(const Operation& operation);
std::string end_line(const Operation& operation);
std::string loss_line(const Loss& loss);

/// Appends lines to a file, each one written before append() returns. Ends the process with a
/// message where the file cannot be written.
class HistoryWriter {
  public:
    explicit HistoryWriter(const std::string& path);
    HistoryWriter(const HistoryWriter&) = delete;
    HistoryWriter& operator=(const HistoryWriter&) = delete;
    ~HistoryWriter();
    void append(std::string_view lines);

  private:
    int fd_ = -1;
};

/// The merged history of several files' contents, or what is wrong with them ("NAME:LINE: …").
struct NamedText {
    std::string name;
    std::string text;
};
std::expected<History, std::string> parse_histories(const std::vector<NamedText>& files);

}  // namespace ublkd::history
