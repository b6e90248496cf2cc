#include "tests/sim/guest.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/sim/world.h"

namespace ublkd::sim {

using replication::OpKind;

namespace {
constexpr std::size_t kOpenMax = 6;
constexpr std::uint64_t kLateUs = 20000;
constexpr std::uint32_t kDeadlineMs = 100;
// For how long a cut is to hold; the other volumes' take up to a fifth of that. (A timer ends after
// a third of its time at most.)
constexpr std::uint32_t kHoldMs = 40;
constexpr std::uint32_t kLongHoldMs = 600;
}  // namespace

std::size_t Attachment::open() const {
    return static_cast<std::size_t>(
        std::count_if(requests_.begin(), requests_.end(),
                      [](const std::unique_ptr<Request>& request) { return !request->answered; }));
}

std::vector<std::pair<std::size_t, std::uint64_t>> Attachment::unanswered() const {
    std::vector<std::pair<std::size_t, std::uint64_t>> values;
    for (const auto& request : requests_) {
        if (request->answered) continue;
        for (std::size_t i = 0; i < request->values.size(); ++i)
            values.emplace_back(request->range.offset_bytes / kSectorBytes + i, request->values[i]);
    }
    return values;
}

void Attachment::start() {
    const bool hosts = world_->hosts();
    client = std::make_unique<replication::Client>(
        replication::ClientConfig{.volume = kVolume,
                                  .client_start = world_->next_serial(),
                                  .attachment = hosts ? id : AttachmentId(),
                                  .deadline_ms = hosts ? kDeadlineMs : 0,
                                  .losses = losses_},
        this);
    world_->network.opened(endpoint);
    if (guest_start_ == 0) guest_start_ = world_->next_serial();
    client->set_record(world_->authority.record, false);
    for (const auto& request : requests_) {
        request->place = replication::ClientRequest::Place::kNone;
        request->of = nullptr;
        if (request->answered) continue;
        request->token = 0;
        if (world_->timing.one_in(2)) {
            client->submit(*request);
        } else {  // late, and new ones go before it, as from another queue of a device
            world_->clock.after(world_->timing.spread(50, kLateUs), &process->running,
                                [this, late = request.get(), mine = guest_start_] {
                                    if (mine == guest_start_) client->submit(*late);
                                });
        }
    }
    if (owes_last_) last_issue();
}

void Attachment::guest_dies() {
    for (auto& request : requests_) world_->bury(std::move(request));
    requests_.clear();
    guest_start_ = 0;
    sequence_ = 0;
    losses_ = replication::kAnyLosses;
}

void Attachment::last_issue() {
    owes_last_ = client == nullptr;
    if (!owes_last_) issue();
}

void Attachment::issue() {
    if (open() >= kOpenMax) return;
    if (requests_.size() > 32)
        std::erase_if(requests_, [](const std::unique_ptr<Request>& request) {
            return request->answered && request->place == replication::ClientRequest::Place::kNone;
        });
    Random& random = world_->workload;
    auto made = make();
    Request& request = *made;
    const std::uint64_t dice = random.below(100);
    const std::size_t count = 1 + random.below(4);
    const std::size_t first = random.below(kSectors - count);
    const Scenario& scenario = world_->scenario;
    if (dice < static_cast<std::uint64_t>(scenario.flush_percent)) {
        request.kind = OpKind::kFlush;
    } else if (dice >= static_cast<std::uint64_t>(100 - scenario.hold_percent)) {
        request.kind = OpKind::kHold;
        request.range = {first * kSectorBytes, count * kSectorBytes};
    } else if (dice >= static_cast<std::uint64_t>(100 - scenario.cut_percent)) {
        request.kind = OpKind::kCut;
        request.cut = world_->next_serial();
        request.hold_ms = random.one_in(3) ? kLongHoldMs : kHoldMs;
    } else if (dice >=
               static_cast<std::uint64_t>(100 - scenario.hold_percent - scenario.equal_percent)) {
        request.kind = OpKind::kMakeEqual;
        request.range = {first * kSectorBytes, count * kSectorBytes};
    } else {
        request.kind = dice < 60 ? OpKind::kWrite : OpKind::kRead;
        // Zeroes look all alike, so they are left out where the order of values is checked.
        if (scenario.scribble && dice > 90)
            request.kind = dice > 95 ? OpKind::kDiscard : OpKind::kZero;
        request.range = {first * kSectorBytes, count * kSectorBytes};
        if (request.kind == OpKind::kWrite) request.fua = random.one_in(12) || scenario.durable;
    }
    submit(std::move(made));
}

void Attachment::issue(OpKind kind, std::size_t sector) {
    auto made = make();
    made->kind = kind;
    if (kind != OpKind::kFlush) made->range = {sector * kSectorBytes, kSectorBytes};
    submit(std::move(made));
}

std::unique_ptr<Request> Attachment::make() {
    auto made = std::make_unique<Request>();
    made->attachment = this;
    made->begin = world_->tick();
    made->on_done = [](replication::ClientRequest* done) noexcept {
        auto* const self = static_cast<Request*>(done);
        self->attachment->answered(*self);
    };
    return made;
}

void Attachment::submit(std::unique_ptr<Request> made) {
    Request& request = *made;
    const std::size_t bytes = request.range.length_bytes;
    const bool reads = request.kind == OpKind::kRead;
    if (reads || is_change(request.kind)) request.memory = world_->memory(bytes);
    if (reads) request.into = *request.memory;
    if (is_change(request.kind)) request.id = {guest_start_, ++sequence_};
    if (request.kind == OpKind::kWrite) {
        request.data = *request.memory;
        const std::size_t first = request.range.offset_bytes / kSectorBytes;
        for (std::size_t i = 0; i < bytes / kSectorBytes; ++i) {
            request.values.push_back(world_->next_value());
            for (std::size_t at = 0; at < kSectorBytes; at += 8)
                std::memcpy(request.memory->data() + i * kSectorBytes + at, &request.values[i], 8);
            world_->history.write(first + i, request.begin, request.values[i], request.fua);
        }
    }
    requests_.push_back(std::move(made));
    client->submit(request);
}

/// Other volumes have been cut meanwhile: is it so that nothing was answered since?
void Attachment::ask_whether_it_holds(Request& cut) {
    auto made = std::make_unique<Request>();
    Request& request = *made;
    request.attachment = this;
    request.begin = world_->tick();
    request.kind = OpKind::kCutHolds;
    request.cut = cut.cut;
    request.of = &cut;
    request.on_done = cut.on_done;
    requests_.push_back(std::move(made));
    client->submit(request);
}

void Attachment::scribble() {
    Random& random = world_->workload;
    if (requests_.empty()) return;
    Request& request = *requests_[random.below(requests_.size())];
    if (request.kind != OpKind::kWrite || request.answered) return;
    for (std::byte& byte : *request.memory) byte = static_cast<std::byte>(random.below(256));
}

std::optional<Range> Attachment::range_of(OpKind kind, std::uint64_t token) const {
    for (const auto& request : requests_) {
        if (!request->answered && request->kind == kind && request->token == token)
            return request->range;
    }
    return std::nullopt;
}

std::string Attachment::missing(const replication::Message& answer, const Disk& disk) const {
    for (const auto& request : requests_) {
        if (request->answered || request->id != answer.id) continue;
        for (std::size_t i = 0; i < request->values.size(); ++i) {
            const std::size_t sector = request->range.offset_bytes / kSectorBytes + i;
            // A known id is not applied again (R8): a write that was open beside it may have
            // followed.
            const std::uint64_t value = disk.value(sector);
            if (value != request->values[i] &&
                !world_->history.beside(sector, value, request->begin))
                return "acknowledged, but not on member " +
                       std::to_string(disk.member.replica.value()) + ": sector " +
                       std::to_string(sector) + ", " + std::to_string(request->values[i]) +
                       ", it has " + std::to_string(value);
        }
    }
    return "";
}

void Attachment::send_to_node(const replication::Message& message) {
    // What the driver keeps under /run before the first request goes out (R9).
    if (message.type == replication::MessageType::kRequest) losses_ = message.losses;
    world_->network.send(endpoint, message);
}

void Attachment::start_timer(std::uint32_t milliseconds) {
    const std::uint64_t us = world_->timing.spread(500, std::uint64_t{milliseconds} * 300);
    world_->clock.after(us, &process->running, [this, timed = client.get()] {
        if (client.get() == timed) client->on_timer();
    });
}

bool Attachment::close(ReplicaId replica) {
    world_->network.close(endpoint, replica.value());
    return true;
}

void Attachment::ask_authority() {
    world_->clock.after(world_->timing.spread(100, 5000), &process->running,
                        [this, asked = client.get()] {
                            if (client.get() == asked && !world_->authority.away())
                                client->set_record(world_->authority.record, false);
                        });
}

/// R9: what was not flushed may be gone; a new guest begins, as after a crash of this one.
void Attachment::crash() {
    world_->clock.after(1, &process->running, [this, mine = guest_start_] {
        if (mine != guest_start_) return;
        world_->network.forget(endpoint);
        guest_dies();
        start();
    });
}

void Attachment::answered(Request& request) {
    if (request.answered) world_->wrong("a request was answered twice");
    request.answered = true;
    ++world_->counts.answered;
    const std::uint64_t end = world_->tick();
    const std::size_t first = request.range.offset_bytes / kSectorBytes;
    const Scenario& scenario = world_->scenario;
    if (!request.result && world_->hosts()) {
        if (request.result.error().code == Errc::kLost) {
            if (losses_ >= world_->counts.losses) world_->wrong("told of a loss that was none");
            trace(world_->clock.now_us(), "client %llu is told that writes may be LOST",
                  static_cast<unsigned long long>(endpoint - kFirstClient));
            crash();
            return;
        }
        // A restored store may have lost that it was attached, as it may have lost anything.
        const bool may_be_off = forced_off || world_->counts.restores > 0;
        if (request.result.error().code == Errc::kNotPermitted && may_be_off) return;
    }
    // Another cut is under way, or its time is over.
    const bool cuts = request.kind == OpKind::kCut || request.kind == OpKind::kCutHolds;
    if (request.of != nullptr) client->release(*std::exchange(request.of, nullptr));
    if (!request.result) {
        // Only a volume whose last disk is gone, or a full one that was told to fail, answers with
        // an error.
        const bool allowed = request.result.error().code == Errc::kNoSpace
                                 ? !scenario.wait_on_full || request.kind == OpKind::kMakeEqual
                                 : cuts || scenario.disk_failures > 0 || scenario.unreadable;
        if (!allowed) world_->wrong("a request failed");
        return;
    }
    if (cuts) {
        world_->check_cut(request, end);
        ++(request.kind == OpKind::kCut ? world_->counts.cuts : world_->counts.held);
    }
    if (request.kind == OpKind::kHold) {
        world_->clock.after(world_->timing.spread(100, 4000), &process->running,
                            [this, &request, mine = guest_start_] {
                                if (mine == guest_start_) client->release(request);
                            });
    } else if (request.kind == OpKind::kCut) {
        world_->clock.after(world_->timing.spread(100, std::uint64_t{request.hold_ms} * 200),
                            &process->running, [this, &request, mine = guest_start_] {
                                if (mine == guest_start_) ask_whether_it_holds(request);
                            });
    } else if (request.kind == OpKind::kWrite) {
        for (std::size_t i = 0; i < request.values.size(); ++i)
            world_->history.end_write(first + i, request.values[i], end);
    } else if (request.kind == OpKind::kFlush) {
        world_->history.flushed(request.begin);
    } else if (request.kind == OpKind::kRead && !scenario.scribble) {
        for (std::size_t i = 0; i < request.into.size() / kSectorBytes; ++i) {
            std::uint64_t value = 0;
            std::memcpy(&value, request.into.data() + i * kSectorBytes, 8);
            world_->history.read(first + i, request.begin, end, value);
            world_->check_read(value, request.begin);
        }
    }
}

}  // namespace ublkd::sim
