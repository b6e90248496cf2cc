// The events that an operator reads (`ebs-cli event list`): written to the metadata, and to the
// daemon's log. add() is for threads that may block; post() for reactors (a thread of the log's own
// writes it). wait_after() is the long poll. Thread-safe. Owner: Daemon; destroyed after the
// volumes have stopped.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "metadata/store.h"
#include "ublkd/io/worker.h"

namespace ublkd::daemon {

class EventLog {
  public:
    explicit EventLog(metadata::MetadataStore* store) : store_(store), worker_("events") {}
    EventLog(const EventLog&) = delete;
    EventLog& operator=(const EventLog&) = delete;

    void add(const std::string& kind, const std::string& resource, const std::string& text);
    void post(std::string kind, std::string resource, std::string text);
    /// As a part of the caller's transaction; call announce() after its commit.
    static Result<void> add_in(metadata::Transaction& tx, const std::string& kind,
                               const std::string& resource, const std::string& text);
    void announce();
    /// Events after `sequence`, at most `limit`; waits up to `wait_ms` for the first. Ends early at
    /// shutdown.
    Result<std::vector<metadata::EventRecord>> wait_after(std::uint64_t sequence, std::size_t limit,
                                                          unsigned wait_ms);
    void shut_down();

  private:
    metadata::MetadataStore* store_;
    std::mutex mutex_;
    std::condition_variable added_;
    std::uint64_t additions_ = 0;
    bool shutting_down_ = false;
    io::Worker worker_;
};

}  // namespace ublkd::daemon
