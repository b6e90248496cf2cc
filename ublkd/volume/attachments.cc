// Whose requests are served (R15): the authority's record says it, and only the primary proposes
// another one. Here the daemon asks for that, and hears when it is so; and for another primary
// (R6).
#include <algorithm>

#include "ublkd/volume/host.h"

namespace ublkd::volume {

using Attachments = std::vector<AttachmentId>;

namespace {

constexpr std::chrono::milliseconds kLook{10};

bool same(Attachments one, Attachments other) {
    std::ranges::sort(one);
    std::ranges::sort(other);
    return one == other;
}

}  // namespace

io::Task<Result<void>> Volume::Driver::set_attachments(const Attachments* wanted,
                                                       const Attachments* taken_off,
                                                       io::Clock::time_point deadline) {
    const char* const elsewhere = "no replica of this host serves as primary";
    Host* primary = serving();
    if (primary == nullptr) co_return fail(Errc::kBusy, elsewhere);
    Attachments gone = primary->node.record()->attachments;
    gone.insert(gone.end(), taken_off->begin(), taken_off->end());
    std::erase_if(gone,
                  [&](AttachmentId id) { return std::ranges::find(*wanted, id) != wanted->end(); });
    Result<void> set;
    step([&] { set = primary->node.set_attachments(*wanted); });
    CO_TRY(set);
    for (;;) {
        primary = stopping_ ? nullptr : serving();
        if (primary == nullptr) co_return fail(Errc::kBusy, elsewhere);
        const bool stored = same(primary->node.record()->attachments, *wanted);
        const bool fenced =
            std::ranges::all_of(gone, [&](AttachmentId id) { return primary->node.fenced(id); });
        if (stored && fenced) co_return Result<void>{};
        if (io::Clock::now() >= deadline)
            co_return fail(Errc::kTimedOut, stored ? "requests of who was taken off are under way"
                                                   : "the authority has not stored it");
        co_await reactor_->sleep_for(kLook);
    }
}

void Volume::Driver::take_over(const std::set<ReplicaId>& but) {
    for (const auto& host : hosts_) {
        const replication::Node& node = host->node;
        if (!node.in_sync() || node.role() != replication::Role::kSecondary ||
            but.contains(host->place.member.replica))
            continue;
        replication::Message word;
        word.type = replication::MessageType::kFailover;
        word.volume = config_.id;
        word.to = host->place.member.replica;
        word.number = node.number();
        word.check = true;  // other attachments don't count
        step([&] { host->node.on_message(word); });
        return;
    }
}

}  // namespace ublkd::volume
