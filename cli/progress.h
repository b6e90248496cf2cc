// What is told on stderr while one waits: a bar with rate and time left on a terminal, plain lines
// every 10 s elsewhere, or lines of JSON. What has ended within a second says nothing. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "cli/client.h"
#include "cli/command.h"

namespace ublkd::cli {

/// How far the work is.
struct Look {
    std::string state;  // a word or a sentence; "": nothing to say
    std::uint64_t done_bytes = 0;
    std::uint64_t total_bytes = 0;  // 0: not known
};

/// A look at some moment, with what follows from it and the first one.
struct Measured {
    Look look;
    std::chrono::seconds elapsed{};
    std::uint64_t bytes_per_second = 0;           // 0: not known yet
    std::optional<std::uint64_t> seconds_left{};  // none: not known yet

    std::string line() const;  // "20s, 63%, 1.3 GiB of 2 GiB, 210 MiB/s, 4s left"
    std::string bar() const;   // "[============>       ] 63%  210 MiB/s  4s left"
    api::Json json() const;
};

/// --progress
const Option& progress_option();

class Progress {
  public:
    /// `what` is being done: "verify pg".
    Progress(const Context& context, std::string what);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();

    bool is_wanted() const { return form_ != Form::kNone; }
    /// Tells what is due; to be called as often as one likes, where it is wanted.
    void tell(const Look& look);

  private:
    using Clock = std::chrono::steady_clock;
    enum class Form { kNone, kBar, kLines, kJson };

    Measured measured(const Look& look);

    std::string what_;
    Form form_;
    std::chrono::seconds every_;
    Clock::time_point begun_ = Clock::now();
    Clock::time_point due_;
    std::optional<std::pair<Clock::time_point, std::uint64_t>> first_;  // with a total: done then
    bool drawn_ = false;
};

/// Of a volume: its state, or its attachment's while that changes, and how far a copy is.
Look look_at(const api::Json& volume);
/// The same of a verify that runs.
Look look_at_verify(const api::Json& volume);

/// Client::call() for work that takes time; how `volume` is (where one is named) is told meanwhile.
Outcome<api::Json> call_and_tell(Context& context, const std::string& what, const std::string& path,
                                 const api::Json& body, std::chrono::milliseconds timeout,
                                 const std::string& volume = "",
                                 Look (*look)(const api::Json&) = look_at);

}  // namespace ublkd::cli
