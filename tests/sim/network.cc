#include "tests/sim/network.h"

#include <algorithm>
#include <utility>

#include "tests/sim/world.h"
#include "ublkd/replication/questions.h"

namespace ublkd::sim {

using replication::Message;
using replication::MessageType;

namespace {

constexpr std::uint64_t kLeastSilenceUs = 3000;  // until a silent connection is given up
constexpr std::uint64_t kMostSilenceUs = 80'000;
constexpr std::uint64_t kMostLateUs = 60'000;
constexpr std::uint64_t kStraysOneIn = 20;

}  // namespace

Network::Link& Network::link(Endpoint from, Endpoint to) {
    auto& link = links_[{from, to}];
    if (!link) {
        link = std::make_unique<Link>();
        link->ends = {from, to};
    }
    return *link;
}

std::size_t Network::host_of(Endpoint endpoint) const { return world_->process_of(endpoint).index; }

bool Network::between_hosts(const Link& link) const {
    return host_of(link.ends[0]) != host_of(link.ends[1]);
}

void Network::send(Endpoint from, const Message& message) {
    if (replication::is_answer(message.type)) {
        if (message.route == 0) return;
        Route& route = routes_[message.route - 1];
        if (route.answered || route.epoch != route.link->epoch) return;
        route.answered = true;
        Sent sent{.epoch = route.epoch, .message = message};
        const bool carries =
            message.type == MessageType::kAnswer || message.type == MessageType::kFetched;
        if (route.received != nullptr && carries && !message.failed) {
            std::vector<std::byte>* const copy = world_->memory(route.received->size());
            *copy = *route.received;
            sent.message.data = *copy;
            sent.content = true;
        }
        transmit(*route.link, kAsker, std::move(sent));
        return;
    }
    const Endpoint receiver = message.type == MessageType::kPing
                                  ? world_->endpoint_of(message.attachment)
                                  : message.to.value();
    Link& way = link(from, receiver);
    Sent sent{.epoch = way.sides[kAsker].epoch, .message = message};
    Route route{.link = &way, .epoch = sent.epoch};
    if (world_->hosts()) {
        route.asked = message;
        route.asked.data = {};
        route.asked.into = {};
        route.into = message.into;
        if (!message.data.empty()) {
            std::vector<std::byte>* const copy = world_->memory(message.data.size());
            std::copy(message.data.begin(), message.data.end(), copy->begin());
            sent.message.data = *copy;
        }
        if (!message.into.empty()) {
            route.received = world_->memory(message.into.size());
            sent.message.into = *route.received;
        }
        way.routes.push_back(routes_.size());
        if (from >= kFirstClient) way.served.push_back(routes_.size());
    }
    routes_.push_back(std::move(route));
    sent.message.route = routes_.size();
    transmit(way, kAsked, std::move(sent));
}

std::uint64_t Network::held_until(const Link& link, std::size_t to) const {
    const auto found = blocked_.find({host_of(link.ends[1 - to]), host_of(link.ends[to])});
    const std::uint64_t now = world_->clock.now_us();
    return found == blocked_.end() || found->second <= now ? 0 : found->second;
}

void Network::transmit(Link& link, std::size_t to, Sent sent) {
    if (sent.epoch != link.epoch) return;  // into a connection that is gone
    if (between_hosts(link)) sent.message = wire_.through(sent.message);
    Side& side = link.sides[to];
    sent.id = ++ids_;
    const std::uint64_t now = world_->clock.now_us();
    const std::uint64_t held = held_until(link, to);
    side.last_us = std::max(side.last_us, std::max(now, held) + world_->timing.spread(2, 500));
    world_->clock.after(side.last_us - now, nullptr,
                        [this, &link, to, id = sent.id] { arrive(link, to, id); });
    side.queue.push_back(std::move(sent));
    ++under_way_;
    if (held != 0 || !world_->process_of(link.ends[to]).running.up) watch(link);
}

/// What was sent up to `id` is there, unless it was dropped.
void Network::arrive(Link& link, std::size_t to, std::uint64_t id) {
    Side& side = link.sides[to];
    const Running& running = world_->process_of(link.ends[to]).running;
    if (side.queue.empty() || side.queue.front().id > id) return;
    if (!running.up) {
        break_connection(link, kNobody);
        return;
    }
    if (running.paused) {
        world_->clock.after(0, &running, [this, &link, to, id] { arrive(link, to, id); });
        return;
    }
    while (!side.queue.empty() && side.queue.front().id <= id) {
        const Sent sent = std::move(side.queue.front());
        side.queue.pop_front();
        --under_way_;
        receive(link, to, sent);
    }
}

void Network::receive(Link& link, std::size_t to, const Sent& sent) {
    const Side& side = link.sides[to];
    if (sent.epoch > side.epoch) learn_closed(link, to);  // the other side has connected anew
    if (replication::is_answer(sent.message.type)) {
        Route& route = routes_[sent.message.route - 1];
        if (route.epoch != side.epoch) return;
        route.delivered = true;
        if (sent.content) std::ranges::copy(sent.message.data, route.into.begin());
    }
    hand_over(link, to, sent.message);
}

void Network::hand_over(Link& link, std::size_t side, const Message& message) {
    const Endpoint from = link.ends[1 - side];
    const Endpoint to = link.ends[side];
    if (tracing)
        trace_message(world_->clock.now_us(), world_->name_of(from).c_str(),
                      world_->name_of(to).c_str(), message);
    if (to >= kFirstClient) {
        if (world_->attachment(to)->client) world_->attachment(to)->client->on_message(message);
    } else if (Replica* const replica = world_->replica(ReplicaId(to)); replica != nullptr) {
        replica->hear_health(message);
        if (from < kFirstClient) go_astray(to, message);
        replica->node.on_message(message);
    } else if (world_->hosts()) {
        break_connection(link, kNobody);  // refused: no such replica here (any more)
    } else if (from >= kFirstClient) {
        Message moved;
        moved.type = MessageType::kMoved;
        moved.volume = message.volume;
        moved.token = message.token;
        moved.route = message.route;
        send(to, moved);
    } else if (Replica* const sender = world_->replica(ReplicaId(from)); sender != nullptr) {
        sender->node.on_peer_lost(ReplicaId(to), Error{Errc::kNotFound});
    }
}

// ---- what no connection should bring (R1)

/// What was lost with a connection comes all the same when its receiver has a later number: one of
/// the same number cannot, since who accepts a connection ends the one before first.
void Network::come_late(Endpoint to, const Message& message) {
    stray(to, message,
          [message](const Replica& replica) { return message.number < replica.node.number(); });
}

/// A port that was another replica's before, of this volume or of another one: a change or another
/// question comes twice, the second time to the wrong one, who is to answer nobody.
void Network::go_astray(Endpoint to, const Message& message) {
    if (!world_->scenario.strays || replication::is_answer(message.type) ||
        !world_->timing.one_in(kStraysOneIn))
        return;
    Message copy = message;
    copy.route = 0;
    if (world_->timing.one_in(2)) {
        copy.volume = VolumeId(kVolume.value() + 1);
    } else {
        const std::size_t members = world_->scenario.members;
        to = 1 + (to + world_->timing.below(members - 1)) % members;
    }
    stray(to, copy, [](const Replica&) { return true; });
}

void Network::stray(Endpoint to, const Message& message,
                    std::function<bool(const Replica&)> comes) {
    ++under_way_;
    world_->clock.after(
        world_->timing.spread(200, kMostLateUs), nullptr,
        [this, to, message, comes = std::move(comes)] {
            --under_way_;
            Replica* const replica = world_->replica(ReplicaId(to));
            if (replica == nullptr || replica->process->running.paused || !comes(*replica)) return;
            if (tracing)
                trace_message(world_->clock.now_us(), "STRAY", world_->name_of(to).c_str(),
                              message);
            replica->node.on_message(message);
        });
}

// ---- connections

void Network::opened(Endpoint endpoint) {
    for (auto& [ends, link] : links_) {
        if (ends.first != endpoint && ends.second != endpoint) continue;
        link->sides[ends.first == endpoint ? 0 : 1].epoch = link->epoch;
    }
}

void Network::forget(Endpoint endpoint) {
    for (auto& [ends, link] : links_) {
        if (ends.first == endpoint) break_connection(*link, 0);
        if (ends.second == endpoint) break_connection(*link, 1);
    }
}

void Network::close(Endpoint from, Endpoint to) { break_connection(link(from, to), kAsker); }

void Network::drop_from(Side& side, std::size_t kept) {
    while (side.queue.size() > kept) {
        side.queue.pop_back();
        --under_way_;
    }
}

void Network::break_connection(Link& link, std::size_t gone) {
    ++link.epoch;
    const bool tells = between_hosts(link);
    for (std::size_t side = 0; side < 2; ++side) {
        Side& mine = link.sides[side];
        if (side == gone || !tells) {
            drop_from(mine, 0);
            mine.epoch = link.epoch;
            mine.last_us = 0;
            if (side == kAsker) link.routes.clear();
            continue;
        }
        const bool down = !world_->process_of(link.ends[side]).running.up;
        const std::size_t kept = down ? 0 : world_->timing.below(mine.queue.size() + 1);
        const bool strays =
            world_->scenario.strays && side == kAsked && link.ends[kAsker] < kFirstClient;
        for (std::size_t i = kept; strays && i < mine.queue.size(); ++i)
            come_late(link.ends[kAsked], mine.queue[i].message);
        drop_from(mine, kept);
        const std::uint64_t now = world_->clock.now_us();
        const std::uint64_t last = mine.queue.empty() ? now : std::max(now, mine.last_us);
        world_->clock.after(last - now + world_->timing.spread(20, 4000),
                            &world_->process_of(link.ends[side]).running,
                            [this, &link, side, epoch = link.epoch] {
                                if (link.sides[side].epoch < epoch) learn_closed(link, side);
                            });
    }
}

/// Nothing comes over it any more: who waits for an answer is told that there is none.
void Network::learn_closed(Link& link, std::size_t at) {
    Side& side = link.sides[at];
    side.epoch = link.epoch;
    // What arrives later belongs to the connection that is there now.
    while (!side.queue.empty() && side.queue.front().epoch < link.epoch) {
        side.queue.pop_front();
        --under_way_;
    }
    std::vector<Message> unanswered;
    std::erase_if(link.routes, [&](std::size_t index) {
        Route& route = routes_[index];
        if (route.delivered) return true;
        if (at != kAsker || route.epoch >= link.epoch) return false;
        if (replication::answer_of(route.asked.type))
            unanswered.push_back(replication::no_answer(route.asked));
        return true;
    });
    const Endpoint mine = link.ends[at];
    const Endpoint other = link.ends[1 - at];
    if (tracing)
        trace(world_->clock.now_us(), "%s: the connection to %s is CLOSED",
              world_->name_of(mine).c_str(), world_->name_of(other).c_str());
    if (at == kAsked) {
        std::erase_if(link.served, [&](std::size_t index) {
            if (routes_[index].epoch >= link.epoch) return false;
            if (Replica* const replica = world_->replica(ReplicaId(mine)); replica != nullptr)
                (void)replica->node.on_asker_gone(index + 1);
            return true;
        });
        return;
    }
    if (mine >= kFirstClient) {
        if (world_->attachment(mine)->client)
            world_->attachment(mine)->client->on_closed(ReplicaId(other));
        return;
    }
    for (const Message& answer : unanswered) {
        if (Replica* const replica = world_->replica(ReplicaId(mine)); replica != nullptr)
            replica->node.on_message(answer);
    }
    if (other >= kFirstClient) return;
    if (Replica* const replica = world_->replica(ReplicaId(mine)); replica != nullptr)
        replica->node.on_peer_lost(ReplicaId(other), Error{Errc::kClosed, 0, "the connection"});
}

/// A connection that is silent for long is given up.
void Network::watch(Link& link) {
    if (!between_hosts(link) || std::exchange(link.watched, true)) return;
    world_->clock.after(
        world_->timing.spread(kLeastSilenceUs, kMostSilenceUs), nullptr,
        [this, &link, epoch = link.epoch] {
            link.watched = false;
            if (link.epoch != epoch) return;
            for (std::size_t to = 0; to < 2; ++to) {
                const bool down = !world_->process_of(link.ends[to]).running.up;
                if (!link.sides[to].queue.empty() && (down || held_until(link, to) != 0)) {
                    break_connection(link, kNobody);
                    return;
                }
            }
        });
}

void Network::block(std::size_t from, std::size_t to, std::uint64_t until_us) {
    std::uint64_t& until = blocked_[{from, to}];
    until = std::max(until, until_us);
    for (auto& [ends, link] : links_) watch(*link);
}

void Network::cut(std::size_t a, std::size_t b) {
    for (auto& [ends, link] : links_) {
        const std::size_t first = host_of(link->ends[0]);
        const std::size_t second = host_of(link->ends[1]);
        if (std::minmax(first, second) == std::minmax(a, b)) break_connection(*link, kNobody);
    }
}

}  // namespace ublkd::sim
