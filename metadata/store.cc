#include "metadata/store.h"

#include <chrono>

namespace ublkd::metadata {

std::uint64_t now_ms() {
    const auto since = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(since).count());
}

Result<void> append_event(Transaction& tx, EventRecord event) {
    auto counter = tx.get<CounterRecord>("events");
    if (!counter) return fail(counter.error());
    CounterRecord last = counter->value_or(CounterRecord{.name = "events"});
    event.sequence = ++last.value;
    event.time_ms = now_ms();
    event.revision = 0;
    TRY(tx.put(last));
    TRY(tx.put(event));
    if (event.sequence <= kEventsKept) return {};
    auto oldest = tx.get<EventRecord>(event.sequence - kEventsKept);
    if (!oldest) return fail(oldest.error());
    return *oldest ? tx.erase(**oldest) : Result<void>();
}

}  // namespace ublkd::metadata
