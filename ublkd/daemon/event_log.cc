#include "ublkd/daemon/event_log.h"

#include <chrono>

#include "ublkd/base/log.h"

namespace ublkd::daemon {

Result<void> EventLog::add_in(metadata::Transaction& tx, const std::string& kind,
                              const std::string& resource, const std::string& text) {
    metadata::EventRecord event;
    event.kind = kind;
    event.resource = resource;
    event.text = text;
    return metadata::append_event(tx, event);
}

void EventLog::add(const std::string& kind, const std::string& resource, const std::string& text) {
    log::info("{} {} {}", kind, resource, text);
    const auto written =
        store_->write([&](metadata::Transaction& tx) { return add_in(tx, kind, resource, text); });
    if (!written) log::warn("an event could not be stored: {}", to_string(written.error()));
    announce();
}

void EventLog::post(std::string kind, std::string resource, std::string text) {
    worker_.submit([this, kind = std::move(kind), resource = std::move(resource),
                    text = std::move(text)] { add(kind, resource, text); });
}

void EventLog::announce() {
    {
        const std::lock_guard lock(mutex_);
        ++additions_;
    }
    added_.notify_all();
}

Result<std::vector<metadata::EventRecord>> EventLog::wait_after(std::uint64_t sequence,
                                                                std::size_t limit,
                                                                unsigned wait_ms) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
    metadata::Query query;
    query.after = {metadata::to_value(sequence)};
    query.limit = limit;
    for (;;) {
        std::uint64_t seen = 0;
        {
            const std::lock_guard lock(mutex_);
            seen = additions_;
        }
        TRY_ASSIGN(auto found, store_->list<metadata::EventRecord>(query));
        if (!found.empty() || wait_ms == 0) return found;
        std::unique_lock lock(mutex_);
        const bool more =
            added_.wait_until(lock, deadline, [&] { return additions_ != seen || shutting_down_; });
        if (!more || shutting_down_) return found;
    }
}

void EventLog::shut_down() {
    {
        const std::lock_guard lock(mutex_);
        shutting_down_ = true;
    }
    added_.notify_all();
}

}  // namespace ublkd::daemon
